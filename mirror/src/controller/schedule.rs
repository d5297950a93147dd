//! When an image is looked at.

use std::hash::{DefaultHasher, Hasher as _};

use coral_api::{
    FailureReason, Mirror, MirroredImageStatus, keys,
    mirrored_image::{CopyState, OriginState},
};
use coral_runtime::spread;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::turn::{kept, looked_at};

/// How often an original is looked at where nobody says so.
const DEFAULT_INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// How soon one that was not to be had for the moment is looked at again: pods are sent to the copies until it is back.
const TROUBLE_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// The first pause after an attempt that failed, and the longest.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// Attempts after which what will not change by itself is only looked at with the interval.
const PATIENCE: i32 = 10;

/// When to look at an image: at once is any time that has passed. `None`: not by itself.
///
/// `keepers` are the Mirrors that keep its copies up to date.
pub(super) fn look_at(name: &str, status: &MirroredImageStatus, keepers: &[&Mirror]) -> Option<Timestamp> {
    if keepers.is_empty() {
        return None;
    }
    let at_once = Timestamp::UNIX_EPOCH;
    let mut times: Vec<Timestamp> = Vec::new();
    for copy in kept(status, keepers) {
        match &copy.failure {
            Some(failure) => times.extend(failure.next_attempt_time.as_ref().map(|time| time.0)),
            None if copy.state == CopyState::Present => {}
            // Also what somebody else began to copy: nobody does any more, or it would not be asked for.
            None => return Some(at_once),
        }
    }
    match &status.origin {
        None if times.is_empty() => times.push(at_once),
        None => {}
        Some(origin) => {
            let checked_at = origin.checked_at.0;
            let looked_at = looked_at(status, keepers).unwrap_or(checked_at);
            times.extend(keepers.iter().filter_map(|mirror| refresh(mirror, checked_at)));
            if let Some(interval) = interval(keepers) {
                let is_passing = matches!(origin.state, OriginState::Unreachable | OriginState::RateLimited);
                times.push(if is_passing {
                    checked_at + spread(interval.min(TROUBLE_INTERVAL), &(name, checked_at))
                } else {
                    next_turn(looked_at, interval, name)
                });
            }
        }
    }
    times.into_iter().min()
}

/// The shortest interval that somebody wants. `None`: on demand.
pub(super) fn interval(keepers: &[&Mirror]) -> Option<SignedDuration> {
    let wanted = keepers.iter().map(|mirror| match mirror.spec.refresh_interval {
        Some(interval) => SignedDuration::try_from(std::time::Duration::from(interval)).unwrap_or(DEFAULT_INTERVAL),
        None => DEFAULT_INTERVAL,
    });
    wanted.filter(|interval| *interval > SignedDuration::ZERO).min()
}

/// The time that somebody wrote on the Mirror, unless the image has been looked at since.
pub(super) fn refresh(mirror: &Mirror, checked_at: Timestamp) -> Option<Timestamp> {
    let text = mirror.annotations().get(keys::REFRESH_ANNOTATION)?;
    text.parse().ok().filter(|time| *time > checked_at)
}

/// The turn of an image after that time. Each has a place of its own in the interval, so that they are spread over it.
///
/// Turns are on whole seconds, as times are in a status: one a little after the second would come again with the next plan.
fn next_turn(after: Timestamp, interval: SignedDuration, name: &str) -> Timestamp {
    let interval = interval.as_secs().max(1);
    let place = i64::try_from(hash(&name) % interval.unsigned_abs()).unwrap_or_default();
    let turns = (after.as_second() - place).div_euclid(interval).saturating_add(1);
    let turn = turns.saturating_mul(interval).saturating_add(place);
    Timestamp::from_second(turn).unwrap_or(Timestamp::MAX)
}

/// The pause after that many attempts failed. `key` tells it apart from others, so that they do not come back in step.
pub(super) fn pause(
    attempts: i32,
    reason: FailureReason,
    retry_after: Option<SignedDuration>,
    interval: Option<SignedDuration>,
    key: &str,
) -> SignedDuration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    let doubled = FIRST_PAUSE * 2_i32.saturating_pow(doublings);
    let is_lasting = matches!(
        reason,
        FailureReason::NotFound
            | FailureReason::Unauthorized
            | FailureReason::InvalidReference
            | FailureReason::PlatformMismatch
    );
    let longest = match interval {
        Some(interval) if is_lasting && attempts >= PATIENCE => interval.max(LONGEST_PAUSE),
        _ => LONGEST_PAUSE,
    };
    let own = if attempts >= PATIENCE {
        longest
    } else {
        doubled.min(longest)
    };
    let own = spread(own, &(key, attempts));
    retry_after.map_or(own, |asked| asked.max(own))
}

fn hash(key: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use coral_api::{
        mirror::CopyFailure,
        mirrored_image::{CopyStatus, OriginStatus},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mirror(interval: Option<&str>, refresh: Option<i64>) -> Mirror {
        let mut spec = json!({"images": ["a"], "destinations": [{"registry": "r.lan"}]});
        if let Some(interval) = interval {
            spec["refreshInterval"] = interval.into();
        }
        let mut mirror = Mirror::new("m", serde_json::from_value(spec).unwrap());
        if let Some(refresh) = refresh {
            let annotation = (keys::REFRESH_ANNOTATION.to_owned(), at(refresh).to_string());
            mirror.metadata.annotations = Some([annotation].into());
        }
        mirror
    }

    fn copy(state: CopyState, next_attempt: Option<i64>) -> CopyStatus {
        CopyStatus {
            mirror: "m".to_owned(),
            state,
            failure: next_attempt.map(|second| CopyFailure {
                reason: FailureReason::Unknown,
                message: String::new(),
                attempts: 1,
                next_attempt_time: Some(Time(at(second))),
            }),
            ..CopyStatus::default()
        }
    }

    fn status(origin: Option<OriginState>, copy: CopyStatus) -> MirroredImageStatus {
        MirroredImageStatus {
            destinations: vec![copy],
            origin: origin.map(|state| OriginStatus {
                state,
                checked_at: Time(at(NOW)),
                message: String::new(),
            }),
            ..MirroredImageStatus::default()
        }
    }

    /// The earliest and the latest second from now; at once is far before.
    #[test]
    fn images_are_looked_at_once_in_an_interval_and_sooner_where_something_is_wrong() {
        use CopyState::{Copying, Failed, Pending, Present};
        use OriginState::{Available, NotFound, Unreachable};
        let hourly = || mirror(Some("1h"), None);
        let at_once = Some((-NOW, -NOW));
        for (case, mirror, status, expected) in [
            ("new", hourly(), status(None, copy(Pending, None)), at_once),
            (
                "begun by another",
                hourly(),
                status(Some(Available), copy(Copying, None)),
                at_once,
            ),
            (
                "there",
                hourly(),
                status(Some(Available), copy(Present, None)),
                Some((0, 3600)),
            ),
            (
                "by default",
                mirror(None, None),
                status(Some(Available), copy(Present, None)),
                Some((0, 3600)),
            ),
            (
                "on demand",
                mirror(Some("0s"), None),
                status(Some(Available), copy(Present, None)),
                None,
            ),
            (
                "demanded",
                mirror(Some("0s"), Some(NOW + 5)),
                status(Some(Available), copy(Present, None)),
                Some((5, 5)),
            ),
            (
                "demanded, and done",
                mirror(Some("0s"), Some(NOW - 5)),
                status(Some(Available), copy(Present, None)),
                None,
            ),
            (
                "failed",
                hourly(),
                status(Some(Available), copy(Failed, Some(NOW + 9))),
                Some((9, 9)),
            ),
            (
                "never looked at for want of a Secret",
                hourly(),
                status(None, copy(Failed, Some(NOW + 9))),
                Some((9, 9)),
            ),
            (
                "origin away",
                hourly(),
                status(Some(Unreachable), copy(Present, None)),
                Some((45, 75)),
            ),
            (
                "origin gone",
                hourly(),
                status(Some(NotFound), copy(Present, None)),
                Some((0, 3600)),
            ),
        ] {
            let time = look_at("name", &status, &[&mirror]);
            let seconds = time.map(|time| time.as_second() - NOW);
            match expected {
                Some((from, to)) => assert!(
                    seconds.is_some_and(|it| (from..=to).contains(&it)),
                    "{case}: {seconds:?}"
                ),
                None => assert_eq!(seconds, None, "{case}"),
            }
        }
        assert_eq!(look_at("name", &status(None, copy(Pending, None)), &[]), None);
    }

    #[test]
    fn turns_are_spread_over_the_interval_and_come_once_in_it() {
        let interval = SignedDuration::from_hours(1);
        let mut tenths = [0; 10];
        for number in 0..1000 {
            let name = format!("image-{number}");
            let first = next_turn(at(NOW), interval, &name);
            let wait = first.duration_since(at(NOW));
            assert!(wait > SignedDuration::ZERO && wait <= interval, "{wait:?}");
            tenths[usize::try_from(wait.as_secs() / 361).unwrap()] += 1;
            assert_eq!(next_turn(first, interval, &name).duration_since(first), interval);
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn pauses_grow_to_five_minutes_and_follow_the_registry() {
        use FailureReason::{NotFound, RegistryUnavailable};
        let hour = Some(SignedDuration::from_hours(1));
        let asked = Some(SignedDuration::from_secs(900));
        for (attempts, reason, retry_after, seconds) in [
            (1, RegistryUnavailable, None, 1),
            (2, RegistryUnavailable, None, 2),
            (5, RegistryUnavailable, None, 16),
            (9, RegistryUnavailable, None, 256),
            (10, RegistryUnavailable, None, 300),
            (i32::MAX, RegistryUnavailable, None, 300),
            (9, NotFound, None, 256),
            (10, NotFound, None, 3600),
        ] {
            let pause = pause(attempts, reason, retry_after, hour, "key").as_millis();
            let (least, most) = (seconds * 750, seconds * 1250);
            assert!((least..=most).contains(&pause), "{attempts} {reason}: {pause}");
        }
        assert_eq!(
            pause(1, RegistryUnavailable, asked, hour, "key"),
            SignedDuration::from_secs(900)
        );
        let keys: std::collections::BTreeSet<_> = (0..20)
            .map(|key| pause(5, RegistryUnavailable, None, hour, &key.to_string()))
            .collect();
        assert!(keys.len() > 10, "they come in step");
    }
}
