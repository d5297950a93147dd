use coral_api::{FailureReason, conditions, mirror::CopyFailure, mirrored_image::OriginStatus};
use serde_json::json;

use super::*;

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn mirror(interval: &str) -> Mirror {
    let spec = json!({"images": ["a"], "destinations": [{"registry": "r.lan"}], "refreshInterval": interval});
    Mirror::new("m", serde_json::from_value(spec).unwrap())
}

/// A copy that was seen so many hours ago, in the registry of its number.
fn copy(number: usize, hours: i64) -> CopyStatus {
    CopyStatus {
        mirror: "m".to_owned(),
        reference: format!("r{number}.lan:5000/app:v1"),
        state: CopyState::Present,
        digest: Some(DIGEST.to_owned()),
        last_copy_time: Some(conditions::time(at(NOW - hours * HOUR))),
        ..CopyStatus::default()
    }
}

/// An original that was asked so many hours ago, and copies.
fn status(state: OriginState, hours: i64, copies: Vec<CopyStatus>) -> MirroredImageStatus {
    MirroredImageStatus {
        digest: Some(DIGEST.to_owned()),
        origin: Some(OriginStatus {
            state,
            checked_at: conditions::time(at(NOW - hours * HOUR)),
            message: String::new(),
        }),
        destinations: copies,
        ..MirroredImageStatus::default()
    }
}

/// Whether the original is asked, and which copies; `None` for everybody who does not wait.
fn asked(status: &MirroredImageStatus, mirror: &Mirror) -> Option<(bool, Vec<usize>)> {
    match turn(status, &[mirror], at(NOW)) {
        Turn::Everybody | Turn::Awake { .. } => None,
        Turn::Some(few) => {
            let number = |copy: &CopyStatus| few.copies.contains(&("m".to_owned(), copy.reference.clone()));
            let numbers = status.destinations.iter().enumerate();
            let numbers = numbers.filter(|(_, copy)| number(copy)).map(|(number, _)| number);
            Some((few.original, numbers.collect()))
        }
    }
}

#[test]
fn one_is_asked_when_all_is_well_and_everybody_otherwise() {
    use OriginState::{Available, NotFound, Unreachable};
    let failing = CopyStatus {
        failure: Some(CopyFailure {
            reason: FailureReason::NoSpace,
            message: String::new(),
            attempts: 1,
            next_attempt_time: None,
        }),
        ..copy(0, 1)
    };
    let older = CopyStatus {
        digest: Some(OTHER.to_owned()),
        ..copy(0, 1)
    };
    let never_seen = CopyStatus {
        last_copy_time: None,
        ..copy(0, 1)
    };
    let gone = CopyStatus {
        state: CopyState::Failed,
        ..copy(0, 1)
    };
    let one = |original: bool, copies: &[usize]| Some((original, copies.to_vec()));
    for (case, status, expected) in [
        (
            "an hour after a look",
            status(Available, 1, vec![copy(0, 1)]),
            one(true, &[]),
        ),
        (
            "three hours after",
            status(Available, 1, vec![copy(0, 3)]),
            one(true, &[]),
        ),
        (
            "four hours after",
            status(Available, 1, vec![copy(0, 4)]),
            one(false, &[0]),
        ),
        (
            "the longest ago",
            status(Available, 1, vec![copy(0, 4), copy(1, 5)]),
            one(false, &[1]),
        ),
        // Eight copies would leave the original no turn.
        (
            "after a copy",
            status(Available, 2, vec![copy(0, 1), copy(1, 7)]),
            one(true, &[]),
        ),
        ("never seen", status(Available, 1, vec![never_seen]), one(false, &[0])),
        ("nowhere yet", status(Available, 1, vec![]), None),
        ("failing", status(Available, 1, vec![failing.clone()]), None),
        ("gone", status(Available, 1, vec![gone]), None),
        ("an older one", status(Available, 1, vec![older]), None),
        (
            "away",
            status(Unreachable, 0, vec![copy(0, 0), copy(1, 1)]),
            one(true, &[1]),
        ),
        ("deleted", status(NotFound, 1, vec![copy(0, 1)]), one(true, &[0])),
    ] {
        assert_eq!(asked(&status, &mirror("1h")), expected, "{case}");
    }
    let well = status(Available, 1, vec![copy(0, 1)]);
    let unwell = status(Unreachable, 1, vec![copy(0, 1), failing]);
    let hourly = mirror("1h");
    assert_eq!(turn(&unwell, &[&hourly], at(NOW)), Turn::Awake { is_away: true });
    assert_eq!(
        turn(&well, &[&mirror("0s")], at(NOW)),
        Turn::Everybody,
        "only on demand"
    );
    let mut demanded = mirror("1h");
    let annotation = (coral_api::keys::REFRESH_ANNOTATION.to_owned(), at(NOW - 1).to_string());
    demanded.metadata.annotations = Some([annotation].into());
    assert_eq!(turn(&unwell, &[&demanded], at(NOW)), Turn::Everybody, "demanded");
    let new = MirroredImageStatus {
        origin: None,
        ..well.clone()
    };
    assert_eq!(asked(&new, &mirror("1h")), None, "new");
}

/// Looks for two days, one an hour, and tells how often the original and each copy was asked, and the longest that each was not.
fn live(copies: usize) -> (Vec<i64>, Vec<i64>) {
    let mut status = status(
        OriginState::Available,
        0,
        (0..copies).map(|number| copy(number, 0)).collect(),
    );
    let hours = 96;
    let mut last = vec![0; copies + 1];
    let (mut counts, mut longest) = (vec![0; copies + 1], vec![0; copies + 1]);
    for hour in 1..=hours {
        let now = at(NOW + hour * HOUR);
        let Turn::Some(few) = turn(&status, &[&mirror("1h")], now) else {
            panic!("everybody is asked in hour {hour}");
        };
        let mut asked = Vec::new();
        if few.original {
            status.origin.as_mut().unwrap().checked_at = conditions::time(now);
            asked.push(0);
        }
        for (place, copy) in status.destinations.iter_mut().enumerate() {
            if few.copies.contains(&("m".to_owned(), copy.reference.clone())) {
                copy.last_copy_time = Some(conditions::time(now));
                asked.push(place + 1);
            }
        }
        assert_eq!(asked.len(), 1, "hour {hour} of {copies} copies");
        counts[asked[0]] += 1;
        longest[asked[0]] = longest[asked[0]].max(hour - last[asked[0]]);
        last[asked[0]] = hour;
    }
    (counts, longest)
}

#[test]
fn everybody_has_a_turn() {
    assert_eq!(live(1), (vec![72, 24], vec![2, 4]));
    assert_eq!(live(2), (vec![49, 24, 23], vec![2, 4, 6]));
    let (counts, longest) = live(5);
    assert!((48..=49).contains(&counts[0]), "{counts:?}");
    assert_eq!(longest[0], 2);
    assert!(counts[1..].iter().all(|count| (9..=10).contains(count)), "{counts:?}");
    assert!(longest[1..].iter().all(|longest| *longest <= 12), "{longest:?}");
}

#[test]
fn a_look_at_anybody_is_a_look_at_the_image() {
    let keeper = mirror("1h");
    let image = status(OriginState::Available, 3, vec![copy(0, 2), copy(1, 5)]);
    assert_eq!(looked_at(&image, &[&keeper]), Some(at(NOW - 2 * HOUR)));
    // Copies of a Mirror that keeps nothing up to date are not looked at.
    assert_eq!(looked_at(&image, &[]), Some(at(NOW - 3 * HOUR)));
    assert_eq!(looked_at(&MirroredImageStatus::default(), &[&keeper]), None);
}

#[test]
fn what_was_there_and_is_not_makes_its_registry_doubtful() {
    let before = status(OriginState::Available, 1, vec![copy(0, 1), copy(1, 1)]);
    assert!(lost(&before, &before).is_empty());
    for state in [CopyState::Copying, CopyState::Failed] {
        let mut after = before.clone();
        after.destinations[1].state = state;
        assert_eq!(lost(&before, &after), ["r1.lan:5000".to_owned()].into());
        // That it is still not there is no news.
        assert!(lost(&after, &after).is_empty());
    }
}
