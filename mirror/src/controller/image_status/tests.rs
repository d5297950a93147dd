use std::sync::Arc;

use coral_api::{FailureReason, ImageReference, mirrored_image::UsedBy};
use serde_json::json;

use super::*;
use crate::State;

const IMAGE: &str = "docker.io/library/nginx:1";
const OLD: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const NEW: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn mirror() -> Arc<Mirror> {
    let spec = json!({"images": ["nginx:1"], "destinations": [{"registry": "r.lan", "nodeAddress": "n.lan"}, {"registry": "s.lan"}]});
    Arc::new(Mirror::new("m", serde_json::from_value(spec).unwrap()))
}

fn wanted(is_used: bool) -> Wanted {
    Wanted {
        image: IMAGE.parse::<ImageReference>().unwrap(),
        requested_by: vec!["m".to_owned()],
        kept_by: ["m".to_owned()].into(),
        rewrite: coral_api::mirror::Rewrite::Never,
        used_by: UsedBy::default(),
        is_used,
    }
}

/// The status of an image of which the first copy is as given, and what it is to be looked at.
fn known(state: CopyState, digest: Option<&str>) -> (MirroredImageStatus, Vec<Target>) {
    let mut status = fitted(&wanted(true), &[&mirror()], None, Some(1), at(0));
    status.destinations[0].state = state;
    status.destinations[0].digest = digest.map(str::to_owned);
    let targets = targets(&wanted(true), &[mirror()], &status, at(0));
    (status, targets)
}

fn look(status: &mut MirroredImageStatus, target: &Target, origin: Option<Result<&str, Verdict>>, seen: Seen) -> usize {
    let looked = Looked {
        name: "x".to_owned(),
        image: IMAGE.parse().unwrap(),
        origin: origin.map(|origin| origin.map(str::to_owned)),
        copies: vec![(target.clone(), seen)],
    };
    super::looked(status, &looked, None, at(1_000)).len()
}

#[test]
fn status_has_a_copy_for_each_destination_and_remembers_them() {
    let (status, targets) = known(CopyState::Present, Some(OLD));
    let names: Vec<_> = status
        .destinations
        .iter()
        .map(|copy| (&*copy.reference, &*copy.node_reference))
        .collect();
    assert_eq!(
        names,
        [
            ("r.lan/docker.io/library/nginx:1", "n.lan/docker.io/library/nginx:1"),
            ("s.lan/docker.io/library/nginx:1", "s.lan/docker.io/library/nginx:1"),
        ]
    );
    assert_eq!(targets.len(), 2);
    assert_eq!(targets[0].digest.as_deref(), Some(OLD));
    let again = fitted(&wanted(true), &[&mirror()], Some(&status), Some(2), at(5));
    assert_eq!(again.destinations, status.destinations);
    assert_eq!(again.observed_generation, Some(2));
    // Of a Mirror that is gone nothing is left.
    assert!(
        fitted(&wanted(true), &[], Some(&status), None, at(5))
            .destinations
            .is_empty()
    );
}

#[test]
fn it_is_known_since_when_nobody_uses_an_image() {
    let first = fitted(&wanted(false), &[], None, None, at(10));
    assert_eq!(first.unused_since, Some(conditions::time(at(10))));
    let later = fitted(&wanted(false), &[], Some(&first), None, at(20));
    assert_eq!(later.unused_since, first.unused_since);
    assert_eq!(
        fitted(&wanted(true), &[], Some(&later), None, at(30)).unused_since,
        None
    );
}

#[test]
fn looks_say_what_is_there_and_what_is_to_be_copied() {
    use CopyState::{Copying, Failed, Pending, Present};
    let gone = || Verdict::new(FailureReason::NotFound, "failed to read it");
    let down = || Verdict::new(FailureReason::RegistryUnavailable, "cannot be reached");
    // Case, copy, original, what is seen; then copy, original, failure, copies to make.
    for (case, state, origin, seen, (state_after, origin_after, reason, jobs)) in [
        (
            "new",
            Pending,
            Some(Ok(NEW)),
            Seen::Missing,
            (Copying, Some(OriginState::Available), None, 1),
        ),
        (
            "equal",
            Pending,
            Some(Ok(NEW)),
            Seen::Equal,
            (Present, Some(OriginState::Available), None, 0),
        ),
        (
            "a newer one",
            Present,
            Some(Ok(NEW)),
            Seen::Missing,
            (Present, Some(OriginState::Available), None, 1),
        ),
        (
            "gone behind our back",
            Present,
            Some(Ok(OLD)),
            Seen::Missing,
            (Copying, Some(OriginState::Available), None, 1),
        ),
        ("its turn", Present, None, Seen::Unchanged, (Present, None, None, 0)),
        (
            "original gone, copy there",
            Present,
            Some(Err(gone())),
            Seen::Unchanged,
            (Present, Some(OriginState::NotFound), None, 0),
        ),
        (
            "original gone, copy gone",
            Present,
            Some(Err(gone())),
            Seen::Missing,
            (Failed, Some(OriginState::NotFound), Some(FailureReason::NotFound), 0),
        ),
        (
            "destination down",
            Present,
            Some(Ok(NEW)),
            Seen::Unknown(down()),
            (
                Failed,
                Some(OriginState::Available),
                Some(FailureReason::RegistryUnavailable),
                0,
            ),
        ),
        (
            "no Secret",
            Pending,
            None,
            Seen::Unknown(Verdict::new(FailureReason::PullSecretUnreadable, "no Secret")),
            (Failed, None, Some(FailureReason::PullSecretUnreadable), 0),
        ),
    ] {
        let (mut status, targets) = known(state, Some(OLD));
        let to_copy = look(&mut status, &targets[0], origin, seen);
        let copy = &status.destinations[0];
        let failure = copy.failure.as_ref();
        assert_eq!((copy.state, to_copy), (state_after, jobs), "{case}");
        assert_eq!(status.origin.map(|origin| origin.state), origin_after, "{case}");
        assert_eq!(failure.map(|failure| failure.reason), reason, "{case}");
        if let Some(failure) = failure {
            assert_eq!(failure.attempts, 1, "{case}");
            assert!(failure.next_attempt_time.as_ref().unwrap().0 > at(1_000), "{case}");
        }
    }
}

#[test]
fn a_copy_that_was_there_is_there_while_a_newer_one_fails() {
    let full = || Verdict::new(FailureReason::NoSpace, "failed to write it: no space left");
    for (state, expected) in [
        (CopyState::Present, CopyState::Present),
        (CopyState::Copying, CopyState::Failed),
    ] {
        let (mut status, targets) = known(state, Some(OLD));
        look(&mut status, &targets[0], Some(Ok(NEW)), Seen::Missing);
        for attempts in 1..=3 {
            let ended = Copied {
                name: "x".to_owned(),
                target: targets[0].clone(),
                result: Err(full()),
            };
            copied(&mut status, &ended, None, at(2_000));
            let copy = &status.destinations[0];
            assert_eq!((copy.state, copy.digest.as_deref()), (expected, Some(OLD)));
            let failure = copy.failure.as_ref().unwrap();
            assert_eq!((failure.reason, failure.attempts), (FailureReason::NoSpace, attempts));
        }
        let ended = Copied {
            name: "x".to_owned(),
            target: targets[0].clone(),
            result: Ok(crate::Copied {
                digest: NEW.to_owned(),
                state: State::Copied,
                sent_bytes: 77,
            }),
        };
        copied(&mut status, &ended, None, at(3_000));
        let copy = &status.destinations[0];
        assert_eq!(
            (copy.state, copy.digest.as_deref(), copy.copied_bytes),
            (CopyState::Present, Some(NEW), 77)
        );
        assert_eq!(
            (&copy.failure, &copy.last_copy_time),
            (&None, &Some(conditions::time(at(3_000))))
        );
    }
}

#[test]
fn an_original_that_goes_in_mid_copy_is_told_of() {
    let (mut status, targets) = known(CopyState::Pending, None);
    look(&mut status, &targets[0], Some(Ok(NEW)), Seen::Missing);
    let result = Err(Verdict {
        is_about_original: true,
        ..Verdict::new(FailureReason::RegistryUnavailable, "failed to read it")
    });
    let ended = Copied {
        name: "x".to_owned(),
        target: targets[0].clone(),
        result,
    };
    copied(&mut status, &ended, None, at(2_000));
    assert_eq!(status.origin.unwrap().state, OriginState::Unreachable);
    assert_eq!(status.destinations[0].state, CopyState::Failed);
}

#[test]
fn only_what_somebody_waits_for_is_written_at_once() {
    let (status, _) = known(CopyState::Present, Some(OLD));
    let with = |change: fn(&mut MirroredImageStatus)| {
        let mut status = status.clone();
        status.used_by.count = 3;
        change(&mut status);
        status
    };
    let old = with(|_| {});
    assert!(is_news(None, &old));
    assert!(!is_news(Some(&old), &old));
    assert!(!is_news(Some(&old), &with(|status| status.used_by.count = 4)));
    assert!(is_news(Some(&old), &with(|status| status.used_by.count = 0)));
    assert!(is_news(
        Some(&old),
        &with(|status| status.destinations[0].state = CopyState::Failed)
    ));
    assert!(is_news(
        Some(&old),
        &with(|status| status.unused_since = Some(conditions::time(at(1))))
    ));
}
