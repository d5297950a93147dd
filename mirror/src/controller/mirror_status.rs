//! The status of a Mirror, from those of its images.

use coral_api::{
    FailureReason, ImageReference, Mirror, MirrorStatus, MirroredImageStatus, conditions,
    conditions::{READY, RECONCILING, STALLED},
    mirror::{MAX_FAILURES, MirrorCounts, MirrorFailure},
    mirrored_image::{CopyState, CopyStatus},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

/// Attempts after which a failure counts as one that somebody should look at.
const STALLED_ATTEMPTS: i32 = 5;

/// One image of a Mirror.
pub(super) struct Entry<'a> {
    pub(super) image: &'a ImageReference,
    pub(super) status: &'a MirroredImageStatus,
}

/// What has become of a Mirror whose images these are.
pub(super) fn mirror_status(mirror: &Mirror, entries: &[Entry<'_>], now: Timestamp) -> MirrorStatus {
    let name = mirror.name_any();
    let mut counts = MirrorCounts::default();
    let mut failures: Vec<MirrorFailure> = Vec::new();
    for Entry { image, status } in entries {
        let copies: Vec<&CopyStatus> = status.destinations.iter().filter(|copy| copy.mirror == name).collect();
        let is = |state| move |copy: &&CopyStatus| copy.state == state;
        counts.desired += 1;
        counts.copied += i32::from(!copies.is_empty() && copies.iter().all(is(CopyState::Present)));
        counts.copying += i32::from(copies.iter().any(is(CopyState::Copying)));
        counts.failed += i32::from(copies.iter().any(|copy| copy.failure.is_some()));
        for copy in copies {
            if let Some(failure) = &copy.failure {
                let registry = copy.reference.split('/').next().unwrap_or_default();
                failures.push(MirrorFailure {
                    image: image.to_string(),
                    registry: registry.to_owned(),
                    failure: failure.clone(),
                });
            }
        }
    }
    // What was tried last comes first.
    failures.sort_by(|one, other| {
        let time = |failure: &MirrorFailure| failure.failure.next_attempt_time.as_ref().map(|time| time.0);
        time(other).cmp(&time(one)).then_with(|| one.image.cmp(&other.image))
    });
    let is_stalled = !failures.is_empty()
        && counts.copying == 0
        && failures
            .iter()
            .any(|failure| failure.failure.attempts >= STALLED_ATTEMPTS);
    let invalid: Vec<&String> = mirror
        .spec
        .images
        .iter()
        .filter(|image| image.parse::<ImageReference>().is_err())
        .collect();
    let words = words(mirror, counts, failures.first(), invalid.first().copied());
    let old = mirror.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let generation = mirror.metadata.generation;
    let is_ready = counts.copied == counts.desired && invalid.is_empty();
    let is_busy = !mirror.spec.suspend && !is_ready && !is_stalled && invalid.is_empty();
    let stalled = is_stalled || !invalid.is_empty();
    let condition = |kind, status, (reason, message): (&str, String)| {
        conditions::condition(old, kind, status, reason, message, generation, now)
    };
    failures.truncate(MAX_FAILURES);
    MirrorStatus {
        observed_generation: generation,
        conditions: vec![
            condition(READY, is_ready, words.clone()),
            condition(RECONCILING, is_busy, words.clone()),
            condition(STALLED, stalled, words),
        ],
        images: counts,
        failures,
    }
}

/// Whether a condition is another, or there is a failure of another kind: somebody may wait for that.
pub(super) fn is_news(old: Option<&MirrorStatus>, new: &MirrorStatus) -> bool {
    let told = |status: &MirrorStatus| -> Vec<(String, String, Option<i64>)> {
        let conditions = status.conditions.iter();
        let told = conditions.map(|it| (it.status.clone(), it.reason.clone(), it.observed_generation));
        told.collect()
    };
    old.is_none_or(|old| told(old) != told(new))
}

/// A reason and a sentence.
fn words(
    mirror: &Mirror,
    counts: MirrorCounts,
    failure: Option<&MirrorFailure>,
    invalid: Option<&String>,
) -> (&'static str, String) {
    let MirrorCounts {
        desired,
        copied,
        failed,
        ..
    } = counts;
    if let Some(invalid) = invalid {
        let message = format!("{invalid} is not the name of an image");
        return (FailureReason::InvalidReference.as_str(), message);
    }
    match failure {
        Some(failure) if copied < desired || failed > 0 => {
            let MirrorFailure { image, failure, .. } = failure;
            let others = match failed {
                ..=1 => String::new(),
                number => format!(" (and {} more)", number - 1),
            };
            let message = format!(
                "{copied} of {desired} images are copied; {image}: {}{others}",
                failure.message
            );
            (failure.reason.as_str(), message)
        }
        _ if mirror.spec.suspend && copied < desired => (
            "Suspended",
            format!("{copied} of {desired} images are copied; it is suspended"),
        ),
        _ if copied < desired => ("Copying", format!("{copied} of {desired} images are copied")),
        _ if desired == 0 => ("NothingToCopy", "no image is named or found".to_owned()),
        _ if desired == 1 => ("Copied", "the image is copied".to_owned()),
        _ => ("Copied", format!("all {desired} images are copied")),
    }
}

#[cfg(test)]
mod tests {
    use coral_api::mirror::CopyFailure;
    use serde_json::json;

    use super::*;

    fn copy(mirror: &str, state: CopyState, attempts: i32) -> CopyStatus {
        CopyStatus {
            mirror: mirror.to_owned(),
            reference: "r.lan/x:1".to_owned(),
            state,
            failure: (attempts > 0).then(|| CopyFailure {
                reason: FailureReason::NoSpace,
                message: "it is full".to_owned(),
                attempts,
                next_attempt_time: None,
            }),
            ..CopyStatus::default()
        }
    }

    fn status_of(spec: &serde_json::Value, images: &[&[CopyStatus]]) -> MirrorStatus {
        let mut object = json!({"destinations": [{"registry": "r.lan"}], "images": ["x"]});
        object
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let mirror = Mirror::new("m", serde_json::from_value(object).unwrap());
        let image: ImageReference = "x:1".parse().unwrap();
        let statuses: Vec<MirroredImageStatus> = images
            .iter()
            .map(|copies| MirroredImageStatus {
                destinations: copies.to_vec(),
                ..MirroredImageStatus::default()
            })
            .collect();
        let entries: Vec<Entry<'_>> = statuses.iter().map(|status| Entry { image: &image, status }).collect();
        mirror_status(&mirror, &entries, Timestamp::from_second(1_000).unwrap())
    }

    #[test]
    fn conditions_say_how_far_it_is_and_why() {
        use CopyState::{Copying, Failed, Pending, Present};
        let other = || copy("other", Failed, 9);
        let spec = || json!({});
        // Images, then desired, copied, copying, failed, then Ready, Reconciling, Stalled and the reason.
        for (case, spec, images, counts, expected) in [
            (
                "nothing",
                spec(),
                vec![],
                [0, 0, 0, 0],
                (true, false, false, "NothingToCopy"),
            ),
            (
                "all",
                spec(),
                vec![vec![copy("m", Present, 0), other()]],
                [1, 1, 0, 0],
                (true, false, false, "Copied"),
            ),
            (
                "one of two",
                spec(),
                vec![
                    vec![copy("m", Present, 0), copy("m", Copying, 0)],
                    vec![copy("m", Pending, 0)],
                ],
                [2, 0, 1, 0],
                (false, true, false, "Copying"),
            ),
            (
                "failed once",
                spec(),
                vec![vec![copy("m", Failed, 1)]],
                [1, 0, 0, 1],
                (false, true, false, "NoSpace"),
            ),
            (
                "failed again and again",
                spec(),
                vec![vec![copy("m", Failed, 5)]],
                [1, 0, 0, 1],
                (false, false, true, "NoSpace"),
            ),
            (
                "there, but a newer one could not be had",
                spec(),
                vec![vec![copy("m", Present, 1)]],
                [1, 1, 0, 1],
                (true, false, false, "NoSpace"),
            ),
            (
                "suspended",
                json!({"suspend": true}),
                vec![vec![copy("m", Pending, 0)]],
                [1, 0, 0, 0],
                (false, false, false, "Suspended"),
            ),
            (
                "not an image",
                json!({"images": ["A B"]}),
                vec![],
                [0, 0, 0, 0],
                (false, false, true, "InvalidReference"),
            ),
        ] {
            let images: Vec<&[CopyStatus]> = images.iter().map(Vec::as_slice).collect();
            let status = status_of(&spec, &images);
            let MirrorCounts {
                desired,
                copied,
                copying,
                failed,
            } = status.images;
            assert_eq!([desired, copied, copying, failed], counts, "{case}");
            let is = |kind| conditions::is_true(&status.conditions, kind);
            let reason = conditions::find(&status.conditions, READY).unwrap().reason.clone();
            assert_eq!(
                (is(READY), is(RECONCILING), is(STALLED), reason.as_str()),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn there_are_at_most_32_failures_and_the_rest_is_counted() {
        let image = vec![copy("m", CopyState::Failed, 1)];
        let status = status_of(&json!({}), &vec![image.as_slice(); 40]);
        assert_eq!((status.failures.len(), status.images.failed), (MAX_FAILURES, 40));
        assert_eq!(status.failures[0].registry, "r.lan");
        let ready = conditions::find(&status.conditions, READY).unwrap();
        assert!(ready.message.ends_with("it is full (and 39 more)"), "{}", ready.message);
    }
}
