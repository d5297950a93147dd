use coral_api::{
    FailureReason, NodeImages, NodeImagesSpec, NodeImagesStatus,
    node_images::{DesiredImage, DesiredState, FilesystemUsage, PauseReason},
    prefetch::PullPolicy,
};
use jiff::{SignedDuration, ToSpan as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    classify::Failure,
    containerd::Pins,
    filesystem::Space,
    runtime::{HeldImage, Inventory},
    space::{Need, Reserve},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn entry(image: &str) -> DesiredImage {
    serde_json::from_value(json!({"image": image})).unwrap()
}

fn in_state(image: &str, state: DesiredState) -> DesiredImage {
    DesiredImage { state, ..entry(image) }
}

fn asked(images: Vec<DesiredImage>) -> Situation {
    let mut situation = Situation::default();
    ask(&mut situation, images);
    situation.looked(NOW, Inventory::new());
    situation
}

fn ask(situation: &mut Situation, images: Vec<DesiredImage>) {
    let known = crate::report::status(situation, &[], NOW);
    ask_knowing(situation, images, known);
}

/// Asks for these images when this is known of the node.
fn ask_knowing(situation: &mut Situation, images: Vec<DesiredImage>, known: NodeImagesStatus) {
    let mut object = NodeImages::new("node-1", NodeImagesSpec { paused: None, images });
    object.status = Some(known);
    situation.asked(Some(&object), NOW);
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

/// The actions as words: `+image` begins a pull, `-image` ends one, `?image` asks for the size, `pin` and `unpin` protect.
fn words(situation: &Situation, running: &[&str], now: Timestamp) -> Vec<String> {
    let running: Vec<String> = running.iter().map(ToString::to_string).collect();
    plan(situation, &running, 2, now)
        .into_iter()
        .map(|action| match action {
            Action::Pull { image, .. } => format!("+{image}"),
            Action::Measure { image, .. } => format!("?{image}"),
            Action::Cancel { image } => format!("-{image}"),
            Action::Remove { identity, .. } => format!("remove {identity}"),
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
    situation.asked(None, NOW);
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

    // containerd 1.6 has labels, but makes nothing of this one.
    situation.pins = Some(Pins::from([("sha256:1".into(), vec![identity.into()])]));
    assert!(words(&situation, &[], NOW).is_empty());
    situation.pins = Some(Pins::new());

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
fn images_that_are_to_go_are_removed_also_under_pressure() {
    let identity = "docker.io/library/a:latest";
    let removal = [format!("remove {identity}")];
    let mut situation = asked(vec![in_state("a", DesiredState::Absent)]);
    assert!(words(&situation, &[], NOW).is_empty(), "it is not there");
    holds(&mut situation, identity);
    assert_eq!(words(&situation, &[], NOW), removal);
    situation.paused = Some(PauseReason::DiskPressure);
    assert_eq!(words(&situation, &[], NOW), removal);
    // A pull ends first.
    assert_eq!(words(&situation, &["a"], NOW), ["-a"]);

    situation.removal_failed("a", failure(), NOW);
    assert!(words(&situation, &[], NOW).is_empty());
    let wake = next_wake(&situation, NOW).unwrap();
    assert_eq!(words(&situation, &[], wake), removal);
    situation.lost_runtime(failure(), wake);
    assert!(words(&situation, &[], wake).is_empty());
    situation.looked(wake, situation.inventory.clone().unwrap());
    situation.removed("a", wake);
    assert!(words(&situation, &[], wake).is_empty());
}

#[test]
fn what_coral_pinned_is_unpinned_before_it_is_removed() {
    let identity = "docker.io/library/a:latest";
    let mut situation = asked(vec![in_state("a", DesiredState::Absent)]);
    holds(&mut situation, identity);
    situation.pins = Some(Pins::from([("sha256:1".into(), vec![identity.into()])]));
    assert_eq!(words(&situation, &[], NOW), [format!("unpin {identity}")]);
    // Another name of the same image that is to be pinned keeps the protection, and our name may go.
    let mut other = entry("b");
    other.pin = true;
    ask(&mut situation, vec![in_state("a", DesiredState::Absent), other]);
    let both = vec![identity.into(), "docker.io/library/b:latest".into()];
    situation.pins = Some(Pins::from([("sha256:1".into(), both)]));
    assert!(words(&situation, &[], NOW).contains(&format!("remove {identity}")));
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
fn an_image_that_does_not_fit_makes_way_for_one_that_does() {
    const GIB: i64 = 1 << 30;
    let mut situation = asked(vec![entry("large"), entry("b"), entry("c")]);
    situation.reserve = Reserve::Bytes(GIB);
    situation.filesystem = Some(FilesystemUsage {
        used_bytes: 0,
        free_bytes: Some(5 * GIB),
        capacity_bytes: Some(20 * GIB),
    });
    assert_eq!(words(&situation, &[], NOW), ["?large", "?b"]);
    situation.measured("large", Need::Bytes(6 * GIB));
    assert_eq!(words(&situation, &["b"], NOW), ["?c"]);
    situation.measured("b", Need::Bytes(3 * GIB));
    situation.measured("c", Need::Bytes(2 * GIB));
    // Together they do not fit either.
    assert_eq!(words(&situation, &[], NOW), ["+b"]);
    situation.pull_began("b", NOW);
    assert!(words(&situation, &["b"], NOW).is_empty());
    situation.note_shortages(&["b".to_owned()], NOW);
    let waits = ["large", "b", "c"].map(|image| situation.pulls[image].shortage.is_some());
    assert_eq!(waits, [true, false, true]);
    // There is room again.
    situation.has_space(Some(Space {
        free: 15 * GIB,
        capacity: 20 * GIB,
    }));
    assert_eq!(words(&situation, &["b"], NOW), ["+large"]);
    situation.note_shortages(&["b".to_owned()], NOW);
    assert_eq!(situation.pulls["large"].shortage, None);
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
fn a_turn_that_comes_again_is_one_attempt_that_still_counts() {
    let mut situation = asked(vec![entry("a")]);
    situation.pull_failed("a", failure(), NOW);
    situation.pull_failed("a", failure(), NOW);
    ask(&mut situation, vec![in_state("a", DesiredState::Held)]);
    assert!(words(&situation, &[], NOW + 1.hour()).is_empty());
    // Whoever gave it knew of the failure before the last one: that was long enough ago.
    ask(&mut situation, vec![entry("a")]);
    assert!(words(&situation, &[], NOW).is_empty());
    let later = NOW + 3.seconds();
    assert_eq!(words(&situation, &[], later), ["+a"]);
    assert_eq!(situation.pulls["a"].failed_attempts, 2);
    situation.pull_failed("a", failure(), later);
    assert_eq!(situation.pulls["a"].failed_attempts, 3);
    assert!(words(&situation, &[], later).is_empty());

    // What was to go and is wanted again begins anew.
    ask(&mut situation, vec![in_state("a", DesiredState::Absent)]);
    ask(&mut situation, vec![in_state("a", DesiredState::Held)]);
    assert_eq!(situation.pulls["a"], crate::situation::Pulls::default());
}

#[test]
fn a_turn_given_before_a_failure_was_known_is_no_further_attempt() {
    let mut situation = asked(vec![entry("a")]);
    situation.pull_failed("a", failure(), NOW);
    ask(&mut situation, vec![in_state("a", DesiredState::Held)]);
    let known = crate::report::status(&situation, &[], NOW);
    // The attempt was begun before the turn was over, and fails now.
    situation.pull_failed("a", failure(), NOW);
    ask_knowing(&mut situation, vec![entry("a")], known);
    assert!(words(&situation, &[], NOW).is_empty());
    assert_eq!(words(&situation, &[], NOW + 1.minute()), ["+a"]);
}

#[test]
fn a_turn_that_comes_again_is_no_short_cut_for_an_image_that_keeps_vanishing() {
    let mut situation = asked(vec![entry("a")]);
    for second in 0..2_i64 {
        let now = NOW + second.seconds();
        situation.pull_began("a", now);
        situation.pull_succeeded("a", HeldImage::default(), now);
        situation.looked(now + 1.second(), Inventory::new());
    }
    let mut held = entry("a");
    held.state = DesiredState::Held;
    ask(&mut situation, vec![held]);
    ask(&mut situation, vec![entry("a")]);
    assert!(words(&situation, &[], NOW + 20.seconds()).is_empty());
    assert_eq!(words(&situation, &[], NOW + 1.minute()), ["+a"]);
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
