use super::*;

#[test]
fn an_image_that_keeps_vanishing_is_pulled_ever_more_slowly() {
    use coral_api::NodeImagesSpec;
    use serde_json::json;

    let entry = serde_json::from_value(json!({"image": "a"})).unwrap();
    let spec = NodeImagesSpec {
        paused: None,
        images: vec![entry],
    };
    let mut situation = Situation::new("node-1".into());
    situation.asked(Some(&NodeImages::new("node-1", spec)), Timestamp::UNIX_EPOCH);
    let there = Inventory::from([("docker.io/library/a:latest".to_owned(), HeldImage::default())]);
    let mut now = Timestamp::UNIX_EPOCH;
    let mut vanish = |stays: SignedDuration| {
        situation.pull_began("a", now);
        situation.pull_succeeded("a", HeldImage::default(), now);
        situation.looked(now, there.clone());
        now += stays;
        situation.looked(now, Inventory::new());
        situation.pulls["a"]
            .next_attempt
            .map(|time| time.duration_since(now).as_secs())
    };
    let minute = SignedDuration::from_mins(1);
    assert_eq!([minute; 4].map(&mut vanish), [None, Some(30), Some(60), Some(120)]);
    assert_eq!(vanish(SignedDuration::from_hours(2)), None);
    for _ in 0..10 {
        vanish(minute);
    }
    assert_eq!(vanish(minute), Some(30 * 60));
}

#[test]
fn nodes_do_not_knock_in_step() {
    assert_ne!(pause("node-1", "nginx", 5), pause("node-2", "nginx", 5));
}

#[test]
fn pauses_double_up_to_five_minutes() {
    for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (9, 256), (10, 300), (1_000, 300)] {
        let pause = pause("node-1", "nginx", attempt);
        let middle = SignedDuration::from_secs(seconds);
        assert!(
            pause >= middle * 3 / 4 && pause <= middle * 5 / 4,
            "attempt {attempt}: {pause:?}"
        );
    }
}

#[test]
fn a_clock_that_is_set_back_neither_prolongs_a_pause_nor_blinds_the_agent() {
    use coral_api::NodeImagesSpec;
    use serde_json::json;

    let image = "docker.io/library/a:latest";
    let entry = serde_json::from_value(json!({"image": image})).unwrap();
    let spec = NodeImagesSpec {
        paused: None,
        images: vec![entry],
    };
    let expected = Timestamp::constant(1_800_000_000, 0);
    let now = expected - SignedDuration::from_hours(1);
    let mut situation = Situation::new("node-1".into());
    situation.asked(Some(&NodeImages::new("node-1", spec)), expected);
    let there = Inventory::from([(image.to_owned(), HeldImage::default())]);
    situation.pull_succeeded(image, HeldImage::default(), expected);
    situation.looked(expected, there);
    situation.pull_failed(image, failure(), expected);
    let pause = |situation: &Situation, now| situation.pulls[image].next_attempt.map(|time| time.duration_since(now));
    let before = pause(&situation, expected);

    situation.clock_set_back(SetBack { expected, now });
    assert_eq!(pause(&situation, now), before);
    // What a look sees now is newer than what is remembered of the time that is no more.
    situation.looked(now + SignedDuration::from_secs(1), Inventory::new());
    assert_eq!(situation.inventory.as_ref().map(BTreeMap::len), Some(0));
}

fn failure() -> Failure {
    Failure {
        reason: FailureReason::NotFound,
        message: "not found".into(),
    }
}

#[test]
fn another_name_of_an_image_is_another_image_to_the_runtime() {
    use coral_api::NodeImagesSpec;
    use serde_json::json;

    const COPY: &str = "localhost:7439/mirror/docker.io/library/a:1";
    let object = |pull_as: Option<&str>| {
        let entry = serde_json::from_value(json!({"image": "docker.io/library/a:1", "pullAs": pull_as})).unwrap();
        let spec = NodeImagesSpec {
            paused: None,
            images: vec![entry],
        };
        NodeImages::new("node-1", spec)
    };
    let now = Timestamp::UNIX_EPOCH;
    let mut situation = Situation::new("node-1".into());
    assert!(situation.asked(Some(&object(None)), now).is_empty());
    situation.looked(now, Inventory::new());
    situation.pull_began("docker.io/library/a:1", now);
    situation.pull_failed(
        "docker.io/library/a:1",
        Failure {
            reason: FailureReason::RegistryUnavailable,
            message: "no route".to_owned(),
        },
        now,
    );
    // The pull that may be under way is of no use, and that the origin failed is no reason to wait for the copy.
    assert_eq!(
        situation.asked(Some(&object(Some(COPY))), now),
        ["docker.io/library/a:1"]
    );
    let pulls = &situation.pulls["docker.io/library/a:1"];
    assert_eq!((pulls.next_attempt, pulls.failed_attempts), (None, 0));
    situation.looked(
        now,
        Inventory::from([("docker.io/library/a:1".to_owned(), HeldImage::default())]),
    );
    assert!(situation.lacks(&situation.wanted[0], now));
    situation.looked(now, Inventory::from([(COPY.to_owned(), HeldImage::default())]));
    assert!(!situation.lacks(&situation.wanted[0], now));
    assert!(situation.asked(Some(&object(Some(COPY))), now).is_empty());
    assert_eq!(situation.asked(Some(&object(None)), now), ["docker.io/library/a:1"]);
    assert!(situation.lacks(&situation.wanted[0], now));
}
