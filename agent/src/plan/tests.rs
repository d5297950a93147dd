use coral_api::{
    FailureReason, NodeImages, NodeImagesSpec,
    node_images::{DesiredImage, PauseReason},
    prefetch::PullPolicy,
};
use jiff::{SignedDuration, ToSpan as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    classify::Failure,
    containerd::Pins,
    runtime::{HeldImage, Inventory},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn entry(image: &str) -> DesiredImage {
    serde_json::from_value(json!({"image": image})).unwrap()
}

fn asked(images: Vec<DesiredImage>) -> Situation {
    let mut situation = Situation::default();
    ask(&mut situation, images);
    situation.looked(NOW, Inventory::new());
    situation
}

fn ask(situation: &mut Situation, images: Vec<DesiredImage>) {
    situation.asked(Some(&NodeImages::new(
        "node-1",
        NodeImagesSpec { paused: None, images },
    )));
}

fn holds(situation: &mut Situation, identity: &str) {
    situation
        .inventory
        .get_or_insert_default()
        .insert(identity.to_owned(), HeldImage::default());
}

fn failure() -> Failure {
    Failure {
        reason: FailureReason::NotFound,
        message: "not found".to_owned(),
    }
}

/// The actions as words: `+image` begins a pull, `-image` ends one, `pin` and `unpin` protect.
fn words(situation: &Situation, running: &[&str], now: Timestamp) -> Vec<String> {
    let running: Vec<String> = running.iter().map(ToString::to_string).collect();
    plan(situation, &running, 2, now)
        .into_iter()
        .map(|action| match action {
            Action::Pull { image, .. } => format!("+{image}"),
            Action::Cancel { image } => format!("-{image}"),
            Action::Pin { identity } => format!("pin {identity}"),
            Action::Unpin { names } => format!("unpin {}", names.join(" ")),
        })
        .collect()
}

#[test]
fn missing_images_are_pulled_up_to_the_limit() {
    let situation = asked(vec![entry("a"), entry("b"), entry("c")]);
    assert_eq!(words(&situation, &[], NOW), ["+a", "+b"]);
    assert_eq!(words(&situation, &["a"], NOW), ["+b"]);
    assert!(words(&situation, &["a", "b"], NOW).is_empty());
}

#[test]
fn images_that_are_there_are_left_alone() {
    let mut situation = asked(vec![entry("a"), entry("b")]);
    holds(&mut situation, "docker.io/library/a:latest");
    assert_eq!(words(&situation, &[], NOW), ["+b"]);
}

#[test]
fn higher_priority_goes_first() {
    let mut urgent = entry("c");
    urgent.priority = 5;
    let situation = asked(vec![entry("a"), entry("b"), urgent]);
    assert_eq!(words(&situation, &[], NOW), ["+c", "+a"]);
}

#[test]
fn nothing_is_pulled_before_the_first_look_or_while_paused() {
    let mut situation = asked(vec![entry("a")]);
    situation.paused = Some(PauseReason::DiskPressure);
    assert!(words(&situation, &[], NOW).is_empty());
    situation.paused = None;
    situation.lost_runtime(failure(), NOW);
    assert!(words(&situation, &[], NOW).is_empty());
}

#[test]
fn held_and_absent_images_are_not_pulled() {
    let mut held = entry("a");
    held.state = DesiredState::Held;
    let mut absent = entry("b");
    absent.state = DesiredState::Absent;
    let situation = asked(vec![held, absent]);
    assert!(words(&situation, &[], NOW).is_empty());
    // A pull that has begun goes on when its image is held back, and ends when its image is to go.
    assert_eq!(words(&situation, &["a", "b"], NOW), ["-b"]);
}

#[test]
fn unwanted_pulls_end_and_their_place_is_used() {
    let mut situation = asked(vec![entry("a"), entry("b")]);
    ask(&mut situation, vec![entry("b"), entry("c")]);
    assert_eq!(words(&situation, &["a", "b"], NOW), ["-a", "+c"]);
    situation.asked(None);
    assert_eq!(words(&situation, &["b"], NOW), ["-b"]);
}

#[test]
fn only_what_coral_pinned_is_unpinned_and_only_when_nobody_wants_it() {
    let identity = "docker.io/library/a:latest";
    let mut pinned = entry("a");
    pinned.pin = true;
    let mut situation = asked(vec![pinned.clone()]);
    holds(&mut situation, identity);
    assert!(words(&situation, &[], NOW).is_empty(), "the runtime cannot pin");
    situation.pins = Some(Pins::new());
    assert_eq!(words(&situation, &[], NOW), [format!("pin {identity}")]);

    // Pinned by somebody else: nothing to do, neither now nor later.
    situation.inventory.as_mut().unwrap().get_mut(identity).unwrap().pinned = true;
    assert!(words(&situation, &[], NOW).is_empty());
    situation.pins = Some(Pins::from([(
        "sha256:1".into(),
        vec![identity.into(), "sha256:2".into()],
    )]));
    assert!(words(&situation, &[], NOW).is_empty());
    ask(&mut situation, vec![entry("a")]);
    assert_eq!(words(&situation, &[], NOW), [format!("unpin {identity} sha256:2")]);
}

#[test]
fn two_spellings_are_one_pull() {
    let situation = asked(vec![entry("nginx"), entry("docker.io/library/nginx:latest")]);
    assert_eq!(words(&situation, &[], NOW), ["+nginx"]);
}

#[test]
fn malformed_references_are_never_pulled() {
    let situation = asked(vec![entry("Bad Image")]);
    assert!(words(&situation, &[], NOW).is_empty());
}

#[test]
fn a_failed_image_waits_for_its_next_attempt() {
    let mut situation = asked(vec![entry("a")]);
    situation.pull_began("a", NOW);
    situation.pull_failed("a", failure(), NOW);
    assert!(words(&situation, &[], NOW).is_empty());
    let wake = next_wake(&situation, NOW).unwrap();
    assert!(wake > NOW && wake <= NOW + SignedDuration::from_secs(2));
    assert_eq!(words(&situation, &[], wake), ["+a"]);
}

#[test]
fn a_registry_that_limits_the_rate_is_asked_for_one_image_at_a_time() {
    let mut situation = asked(vec![
        entry("h.io/a"),
        entry("h.io/b"),
        entry("h.io/c"),
        entry("other.io/d"),
    ]);
    assert_eq!(words(&situation, &[], NOW), ["+h.io/a", "+h.io/b"]);
    let limited = Failure {
        reason: FailureReason::RateLimited,
        message: "too many requests".to_owned(),
    };
    situation.pull_failed("h.io/a", limited, NOW);
    assert_eq!(words(&situation, &[], NOW), ["+h.io/b", "+other.io/d"]);
    assert_eq!(words(&situation, &["h.io/b"], NOW), ["+other.io/d"]);
    situation.pull_began("h.io/a", NOW);
    situation.pull_succeeded("h.io/a", HeldImage::default(), NOW);
    assert_eq!(words(&situation, &["h.io/b"], NOW), ["+h.io/c"]);
}

#[test]
fn changed_credentials_end_the_wait() {
    let mut situation = asked(vec![entry("a")]);
    situation.pull_failed("a", failure(), NOW);
    let mut with_secret = entry("a");
    with_secret.pull_secrets = vec![coral_api::node_images::SecretReference {
        namespace: "shop".into(),
        name: "regcred".into(),
    }];
    ask(&mut situation, vec![with_secret]);
    assert_eq!(words(&situation, &[], NOW), ["+a"]);
}

#[test]
fn always_is_pulled_again_after_its_refresh_time() {
    let mut always = entry("a");
    always.pull_policy = PullPolicy::Always;
    always.refresh_after = Some(Time(NOW + 60.seconds()));
    let mut situation = asked(vec![always]);
    holds(&mut situation, "docker.io/library/a:latest");
    situation.pull_began("a", NOW);
    situation.pull_succeeded("a", HeldImage::default(), NOW);
    // A time to come is waited for, however often the image was pulled before it.
    assert!(words(&situation, &[], NOW).is_empty());
    assert_eq!(next_wake(&situation, NOW), Some(NOW + 60.seconds()));
    assert_eq!(words(&situation, &[], NOW + 60.seconds()), ["+a"]);
    situation.pull_began("a", NOW + 61.seconds());
    situation.pull_succeeded("a", HeldImage::default(), NOW + 62.seconds());
    assert!(words(&situation, &[], NOW + 62.seconds()).is_empty());
}

#[test]
fn a_look_that_began_before_a_pull_ended_does_not_lose_the_image() {
    let mut situation = asked(vec![entry("a")]);
    situation.pull_began("a", NOW);
    situation.pull_succeeded("a", HeldImage::default(), NOW + 5.seconds());
    situation.looked(NOW + 4.seconds(), Inventory::new());
    assert!(words(&situation, &[], NOW + 5.seconds()).is_empty());
    situation.looked(NOW + 6.seconds(), Inventory::new());
    assert_eq!(words(&situation, &[], NOW + 6.seconds()), ["+a"]);
}
