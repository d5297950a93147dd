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
    situation.asked(Some(&NodeImages::new(
        "node-1",
        NodeImagesSpec { paused: None, images },
    )));
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
    situation.pull_began("a", NOW);
    situation.pull_began("b", NOW);
    assert_eq!(write_time(&say(&situation), None, NOW), Some(NOW));
    let written = (NOW, say(&situation));
    assert_eq!(write_time(&say(&situation), Some(&written), NOW + 1.second()), None);
    situation.pull_succeeded("a", HeldImage::default(), NOW + 1.second());
    assert_eq!(
        write_time(&say(&situation), Some(&written), NOW + 1.second()),
        Some(NOW + 2.seconds())
    );
    situation.pull_succeeded("b", HeldImage::default(), NOW + 1.second());
    assert_eq!(
        write_time(&say(&situation), Some(&written), NOW + 1.second()),
        Some(NOW + 1.second())
    );
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
    assert_eq!(
        write_time(&current, Some(&written), NOW + 3.seconds()),
        Some(NOW + 10.seconds())
    );
}

#[test]
fn free_space_alone_is_no_reason_to_write() {
    let mut situation = situation(&[]);
    let written = (NOW, status(&situation, &[], NOW));
    situation.filesystem = Some(coral_api::node_images::FilesystemUsage::default());
    assert_eq!(
        write_time(&status(&situation, &[], NOW), Some(&written), NOW + 1.minute()),
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
