use coral_api::{NodeImages, NodeImagesSpec, node_images::DesiredImage};
use jiff::ToSpan as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::runtime::{HeldImage, Inventory};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn situation(images: &[serde_json::Value]) -> Situation {
    let images: Vec<DesiredImage> = images
        .iter()
        .map(|image| serde_json::from_value(image.clone()).unwrap())
        .collect();
    let mut situation = Situation::default();
    let spec = NodeImagesSpec { paused: None, images };
    situation.asked(Some(&NodeImages::new("node-1", spec)), NOW);
    situation.looked(NOW, Inventory::new());
    situation
}

fn states(situation: &Situation) -> Vec<ImageState> {
    status(situation, &[], NOW)
        .images
        .iter()
        .map(|image| image.state)
        .collect()
}

fn not_found() -> Failure {
    Failure {
        reason: FailureReason::NotFound,
        message: "no such tag".into(),
    }
}

#[test]
fn an_image_goes_from_waiting_to_present() {
    let mut situation = situation(&[json!({"image": "a"})]);
    assert_eq!(states(&situation), [ImageState::Waiting]);
    situation.pull_began("a", NOW);
    assert_eq!(states(&situation), [ImageState::Pulling]);
    let held = HeldImage {
        digest: Some("sha256:1".into()),
        size_bytes: 7,
        pinned: false,
    };
    situation.pull_succeeded("a", held, NOW + 3.seconds());
    let image = &status(&situation, &[], NOW).images[0];
    assert_eq!(image.state, ImageState::Present);
    assert_eq!((image.digest.as_deref(), image.size_bytes), (Some("sha256:1"), Some(7)));
    assert_eq!(image.pull.as_ref().unwrap().seconds, Some(3));
    assert_eq!(image.last_pull_time, Some(Time(NOW + 3.seconds())));
}

#[test]
fn an_image_has_failed_when_its_attempts_are_used_up() {
    let mut situation = situation(&[json!({"image": "a", "backoffLimit": 2})]);
    situation.pull_failed("a", not_found(), NOW);
    let image = &status(&situation, &[], NOW).images[0];
    assert_eq!(image.state, ImageState::Waiting);
    let failure = image.failure.as_ref().unwrap();
    assert_eq!((failure.reason, failure.attempts), (FailureReason::NotFound, 1));
    assert!(failure.next_attempt_time.is_some());
    situation.pull_failed("a", not_found(), NOW);
    assert_eq!(states(&situation), [ImageState::Failed]);
}

#[test]
fn an_image_that_lost_its_turn_tells_why() {
    let mut situation = situation(&[json!({"image": "a", "backoffLimit": 1})]);
    situation.pull_failed("a", not_found(), NOW);
    let held = serde_json::from_value(json!({"image": "a", "backoffLimit": 1, "state": "Held"})).unwrap();
    let spec = NodeImagesSpec {
        paused: None,
        images: vec![held],
    };
    situation.asked(Some(&NodeImages::new("node-1", spec)), NOW);
    let image = status(&situation, &[], NOW).images.remove(0);
    assert_eq!(image.state, ImageState::Failed);
    let failure = image.failure.unwrap();
    assert_eq!((failure.reason, failure.attempts), (FailureReason::NotFound, 1));
    // From then on it may be tried again, and whoever gives the turns has to know.
    let next = failure.next_attempt_time.unwrap().0;
    assert!(next > NOW && next < NOW + 2.seconds(), "{next}");
}

#[test]
fn malformed_references_and_pressure_are_told() {
    let mut situation = situation(&[json!({"image": "Bad"}), json!({"image": "a"})]);
    situation.paused = Some(PauseReason::DiskPressure);
    let status = status(&situation, &[], NOW);
    let reasons: Vec<_> = status
        .images
        .iter()
        .map(|image| image.failure.as_ref().unwrap().reason)
        .collect();
    assert_eq!(reasons, [FailureReason::InvalidReference, FailureReason::DiskPressure]);
    assert_eq!(states(&situation), [ImageState::Failed, ImageState::Waiting]);
    assert!(!conditions::is_true(&status.conditions, conditions::ACCEPTING));
}

#[test]
fn an_image_that_is_to_go_is_there_until_it_is_gone() {
    let mut situation = situation(&[json!({"image": "a", "state": "Absent"})]);
    // Somebody may have pulled it since the last look.
    assert_eq!(states(&situation), [ImageState::Waiting]);
    situation.looked(NOW + 1.second(), Inventory::new());
    assert_eq!(states(&situation), [ImageState::Absent]);
    let there = Inventory::from([("docker.io/library/a:latest".to_owned(), HeldImage::default())]);
    situation.looked(NOW, there);
    assert_eq!(states(&situation), [ImageState::Present]);
    assert!(removes(&situation));

    let refused = Failure {
        reason: FailureReason::RemovalRefused,
        message: "in use".into(),
    };
    situation.removal_failed("a", refused, NOW);
    let image = status(&situation, &[], NOW).images.remove(0);
    assert_eq!(image.state, ImageState::Present);
    let failure = image.failure.unwrap();
    assert_eq!((failure.reason, failure.attempts), (FailureReason::RemovalRefused, 1));
    assert!(failure.next_attempt_time.is_some());
    assert!(!removes(&situation));

    situation.removed("a", NOW);
    let image = status(&situation, &[], NOW).images.remove(0);
    assert_eq!((image.state, image.failure), (ImageState::Absent, None));
}

#[test]
fn nothing_is_called_gone_that_nobody_has_looked_for() {
    let mut situation = situation(&[json!({"image": "a", "state": "Absent"})]);
    situation.looked(NOW + 1.second(), Inventory::new());
    // The runtime may have finished a pull although it was ended.
    situation.pull_began("a", NOW);
    situation.pull_cancelled("a", NOW + 1.second());
    assert_eq!(states(&situation), [ImageState::Waiting]);
    situation.looked(NOW + 2.seconds(), Inventory::new());
    assert_eq!(states(&situation), [ImageState::Absent]);

    let gone = Failure {
        reason: FailureReason::RuntimeUnavailable,
        message: "gone".into(),
    };
    situation.lost_runtime(gone, NOW + 1.hour());
    let image = status(&situation, &[], NOW).images.remove(0);
    assert_eq!(image.state, ImageState::Waiting);
    assert_eq!(image.failure.unwrap().reason, FailureReason::RuntimeUnavailable);
}

#[test]
fn whether_the_runtime_can_pin_is_told_where_a_pin_is_wanted() {
    let of_runtime = |name: &str, pin: bool| {
        let mut situation = situation(&[json!({"image": "a", "pin": pin})]);
        situation.runtime = Some(coral_api::node_images::RuntimeInfo {
            name: name.into(),
            version: "1".into(),
        });
        situation
    };
    let told = |situation: &Situation| {
        let status = status(situation, &[], NOW);
        let condition = conditions::find(&status.conditions, conditions::PINNING)?;
        Some((condition.status.clone(), condition.reason.clone()))
    };
    let unsupported = Some(("False".to_owned(), "Unsupported".to_owned()));
    assert_eq!(told(&of_runtime("containerd", false)), None);
    assert_eq!(
        told(&of_runtime("containerd", true)),
        Some(("True".to_owned(), "Supported".to_owned()))
    );
    assert_eq!(told(&of_runtime("cri-o", true)), unsupported);
    assert_eq!(told(&of_runtime("other", true)), unsupported);

    // containerd 1.6 takes the label, and makes nothing of it.
    let mut old = of_runtime("containerd", true);
    let identity = "docker.io/library/a:latest".to_owned();
    old.pins = Some([("sha256:1".to_owned(), vec![identity.clone()])].into());
    let inventory = Inventory::from([(identity, HeldImage::default())]);
    old.looked(NOW, inventory.clone());
    assert_ne!(told(&old), unsupported);
    old.looked(NOW, inventory);
    assert_eq!(told(&old), unsupported);
}

#[test]
fn an_image_without_room_waits_whatever_failed_before() {
    let mut situation = situation(&[json!({"image": "a", "backoffLimit": 1})]);
    situation.pull_failed("a", not_found(), NOW);
    situation.filesystem = Some(coral_api::node_images::FilesystemUsage {
        used_bytes: 0,
        free_bytes: Some(1),
        capacity_bytes: Some(1_000),
    });
    situation.note_shortages(&[], NOW);
    let image = status(&situation, &[], NOW).images.remove(0);
    assert_eq!(image.state, ImageState::Waiting);
    let failure = image.failure.unwrap();
    assert_eq!(
        (failure.reason, failure.next_attempt_time),
        (FailureReason::NoSpace, None)
    );
    situation.has_space(None);
    situation.note_shortages(&[], NOW);
    assert_eq!(states(&situation), [ImageState::Failed]);
}

#[test]
fn a_lost_runtime_is_not_ready_and_after_a_minute_holds_nothing() {
    let mut situation = situation(&[json!({"image": "a"})]);
    situation.pull_succeeded("a", HeldImage::default(), NOW);
    assert_eq!(states(&situation), [ImageState::Present]);
    let gone = Failure {
        reason: FailureReason::RuntimeUnavailable,
        message: "gone".into(),
    };
    situation.lost_runtime(gone.clone(), NOW + 30.seconds());
    let restarting = status(&situation, &[], NOW);
    assert!(!conditions::is_true(&restarting.conditions, conditions::READY));
    assert_eq!(restarting.images[0].state, ImageState::Present);
    situation.lost_runtime(gone, NOW + 61.seconds());
    let status = status(&situation, &[], NOW);
    assert_eq!(status.images[0].state, ImageState::Waiting);
    assert_eq!(
        status.images[0].failure.as_ref().unwrap().reason,
        FailureReason::RuntimeUnavailable
    );
}

#[test]
fn writes_are_coalesced_and_the_last_image_is_told_at_once() {
    let mut situation = situation(&[json!({"image": "a"}), json!({"image": "b"})]);
    let say = |situation: &Situation| status(situation, &[], NOW);
    let waiting = (NOW, say(&situation));
    situation.pull_began("a", NOW);
    situation.pull_began("b", NOW);
    let mut pace = Pace::new(NOW);
    assert_eq!(write_time(&say(&situation), Some(&pace), None, NOW), Some(NOW));
    assert_eq!(
        write_time(&say(&situation), Some(&pace), Some(&waiting), NOW),
        Some(NOW + 2.seconds())
    );
    let written = (NOW + 2.seconds(), say(&situation));
    pace.wrote(NOW + 2.seconds());
    let later = NOW + 3.seconds();
    assert_eq!(write_time(&say(&situation), Some(&pace), Some(&written), later), None);
    situation.pull_succeeded("a", HeldImage::default(), later);
    assert_eq!(
        write_time(&say(&situation), Some(&pace), Some(&written), later),
        Some(NOW + 6.seconds())
    );
    situation.pull_succeeded("b", HeldImage::default(), later);
    assert_eq!(write_time(&say(&situation), None, Some(&written), later), Some(later));
}

#[test]
fn the_longer_images_move_the_more_seldom_it_is_told_but_never_too_seldom() {
    let mut situation = situation(&[json!({"image": "a"}), json!({"image": "b"})]);
    let mut pace = Pace::new(NOW);
    let mut written = (NOW, status(&situation, &[], NOW));
    let mut told = Vec::new();
    for round in 0..5 {
        // Something begins anew all the time.
        situation.pull_began("b", NOW + round.seconds());
        let current = status(&situation, &[], NOW);
        let time = write_time(&current, Some(&pace), Some(&written), NOW).unwrap();
        told.push(time.duration_since(NOW).as_secs());
        pace.wrote(time);
        written = (time, current);
    }
    assert_eq!(told, [2, 6, 11, 16, 21]);
}

#[test]
fn what_has_gone_or_failed_is_told_soon_whatever_else_moves() {
    let mut before = situation(&[json!({"image": "a"}), json!({"image": "b"}), json!({"image": "c"})]);
    before.pull_succeeded("a", HeldImage::default(), NOW);
    before.pull_began("b", NOW);
    let mut pace = Pace::new(NOW);
    pace.wrote(NOW);
    pace.wrote(NOW);
    let written = (NOW, status(&before, &[], NOW));
    let time = |change: fn(&mut Situation)| {
        let mut situation = before.clone();
        change(&mut situation);
        let current = status(&situation, &written.1.conditions, NOW);
        let time = write_time(&current, Some(&pace), Some(&written), NOW).unwrap();
        time.duration_since(NOW).as_secs()
    };
    let runtime = |situation: &mut Situation| {
        let gone = Failure {
            reason: FailureReason::RuntimeUnavailable,
            message: "gone".into(),
        };
        situation.lost_runtime(gone, NOW);
    };
    assert_eq!(time(|situation| situation.pull_began("c", NOW)), 5);
    assert_eq!(time(|situation| situation.pull_failed("b", not_found(), NOW)), 2);
    assert_eq!(time(|situation| situation.found_missing("a", NOW)), 2);
    assert_eq!(time(runtime), 2);
    assert_eq!(time(|situation| situation.generation = Some(7)), 2);
}

#[test]
fn a_node_that_is_to_wait_for_its_turn_and_has_nothing_says_so_after_a_moment() {
    let unwritten = NodeImagesStatus::default();
    let mut answered = unwritten.clone();
    answered.observed_generation = Some(1);
    let mut held = situation(&[json!({"image": "docker.io/library/a:latest", "state": "Held"})]);
    assert!(moves(&status(&held, &[], NOW), Some(&unwritten)));
    assert!(!moves(&status(&held, &[], NOW), Some(&answered)));
    let identity = held.wanted[0].identity().unwrap();
    held.looked(NOW, [(identity, HeldImage::default())].into());
    assert!(!moves(&status(&held, &[], NOW), Some(&unwritten)));
}

#[test]
fn bytes_alone_are_told_every_ten_seconds() {
    let mut situation = situation(&[json!({"image": "a"})]);
    situation.pull_began("a", NOW);
    let written = (NOW, status(&situation, &[], NOW));
    let bytes = crate::containerd::Bytes { done: 5, total: 10 };
    situation.progressed(vec![("docker.io/library/a".parse().unwrap(), bytes)]);
    let current = status(&situation, &[], NOW);
    assert_eq!(current.images[0].pull.as_ref().unwrap().done_bytes, Some(5));
    let pace = Pace::new(NOW);
    assert_eq!(
        write_time(&current, Some(&pace), Some(&written), NOW + 3.seconds()),
        Some(NOW + 10.seconds())
    );
}

#[test]
fn free_space_alone_is_no_reason_to_write() {
    let mut situation = situation(&[]);
    let written = (NOW, status(&situation, &[], NOW));
    situation.filesystem = Some(coral_api::node_images::FilesystemUsage::default());
    assert_eq!(
        write_time(&status(&situation, &[], NOW), None, Some(&written), NOW + 1.minute()),
        None
    );
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut situation = situation(&[json!({"image": "a"}), json!({"image": "b"})]);
    let odd = Timestamp::new(1_000, 123_456_789).unwrap();
    situation.pull_began("a", odd);
    situation.pull_succeeded("a", HeldImage::default(), odd + 3.seconds());
    situation.pull_began("b", odd);
    situation.pull_failed("b", not_found(), odd);
    let status = status(&situation, &[], odd);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<NodeImagesStatus>(&text).unwrap(), status);
}

#[test]
fn an_image_that_is_there_tells_why_it_could_not_be_refreshed() {
    let asked = |refresh_after: Option<i64>| {
        let time = refresh_after.map(|seconds| NOW + seconds.seconds());
        let image = json!({"image": "docker.io/library/a:latest", "pullPolicy": "Always", "refreshAfter": time});
        let image = serde_json::from_value(image).unwrap();
        let spec = NodeImagesSpec {
            paused: None,
            images: vec![image],
        };
        NodeImages::new("node-1", spec)
    };
    let name = "docker.io/library/a:latest";
    let mut situation = situation(&[json!({"image": name, "pullPolicy": "Always"})]);
    situation.pull_succeeded(name, HeldImage::default(), NOW);
    let failure = |situation: &Situation| status(situation, &[], NOW).images.remove(0).failure;
    assert_eq!(failure(&situation), None);

    situation.asked(Some(&asked(Some(10))), NOW);
    situation.pull_failed(name, not_found(), NOW);
    assert_eq!(states(&situation), [ImageState::Present]);
    assert_eq!(failure(&situation).map(|failure| failure.attempts), Some(1));
    // The turn is over, and given again: it is tried at once, and what has failed still counts.
    situation.asked(Some(&asked(None)), NOW);
    assert_eq!(failure(&situation).map(|failure| failure.attempts), Some(1));
    let mut again = asked(Some(10));
    again.status = Some(status(&situation, &[], NOW));
    situation.asked(Some(&again), NOW);
    let again = failure(&situation).unwrap();
    assert_eq!((again.attempts, again.next_attempt_time), (1, None));
    // A later time is a new wish.
    situation.asked(Some(&asked(Some(20))), NOW);
    assert_eq!(failure(&situation), None);
    situation.pull_failed(name, not_found(), NOW);
    situation.pull_succeeded(name, HeldImage::default(), NOW);
    assert_eq!(failure(&situation), None);
}

#[test]
fn what_somebody_else_has_pulled_has_not_failed() {
    let name = "docker.io/library/a:latest";
    let mut situation = situation(&[json!({"image": name})]);
    situation.pull_failed(name, not_found(), NOW);
    let identity = situation.wanted[0].identity().unwrap();
    situation.looked(NOW + 1.second(), [(identity, HeldImage::default())].into());
    let image = status(&situation, &[], NOW).images.remove(0);
    assert_eq!((image.state, image.failure), (ImageState::Present, None));
}
