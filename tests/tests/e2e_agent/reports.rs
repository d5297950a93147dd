//! When the agent writes its status, and when it does not.

use std::time::Duration;

use coral_api::{NodeImagesStatus, node_images::ImageState};
use coral_tests::{cri::Flavour, hollow::Site};
use serde_json::json;

use crate::{
    history::Seen,
    hollow::{Hollow, SOON, image, image_with, name, state},
};

pub(crate) async fn twenty_images_take_few_writes_and_the_last_is_told_at_once(site: Site) {
    let node = Hollow::new(&site, "coalesced", Flavour::Containerd);
    for number in 0..20_u64 {
        let content = format!("content {number}");
        node.catalogue
            .publish(&name(&format!("a{number}")), &content, 200 + 100 * (number % 8));
    }
    // From 0.7 s to 1.4 s each.
    node.runtime.set_pace(Duration::from_millis(500), Some(1_000));
    let images: Vec<_> = (0..20).map(|number| image(&format!("a{number}"))).collect();
    let node = node.started(4, &images).await;
    node.all_present(SOON).await;
    let told = node.history.all().pop().unwrap().at;
    let attempts = node.runtime.attempts();
    let last = attempts
        .iter()
        .filter_map(|attempt| Some(attempt.ended?.0))
        .max()
        .unwrap();
    let late = told - last;
    assert!(late < Duration::from_secs(2), "{late:?}");
    // What follows would count, too.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(node.writes() <= 8, "{} writes", node.writes());
    assert_eq!(node.history.status_changes(), node.writes());
}

pub(crate) async fn nothing_is_written_when_nothing_changes(site: Site) {
    let node = Hollow::new(&site, "idle", Flavour::Containerd);
    let images = [
        image("a"),
        image_with(
            "b",
            json!({"pullPolicy": "Always", "refreshAfter": "2026-01-01T00:00:00Z"}),
        ),
        image_with("held", json!({"state": "Held"})),
        json!({"image": "Not An Image"}),
        image_with("pinned", json!({"pin": true})),
    ];
    let node = node.started(2, &images).await;
    let settled = |status: &NodeImagesStatus| {
        let pinned = status.images.iter().any(|image| image.pinned);
        let present = ["a", "b", "pinned"].map(|short| state(status, &name(short)));
        pinned && present == [Some(ImageState::Present); 3]
    };
    node.until("all images to be settled", SOON, settled).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (writes, events, calls) = (node.writes(), node.history.all().len(), node.runtime.calls());
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!((node.writes(), node.history.all().len()), (writes, events));
    // It did look meanwhile.
    assert!(node.runtime.calls().list_images >= calls.list_images + 2);
}

pub(crate) async fn a_status_that_somebody_else_wrote_is_corrected(site: Site) {
    let node = Hollow::new(&site, "meddled", Flavour::CriO);
    let node = node.started(2, &[image("a"), image("b")]).await;
    let right = node.all_present(SOON).await;
    let wrong = json!({"observedGeneration": 99, "images": [{"image": name("a"), "state": "Failed"}]});
    for status in [wrong, json!(null)] {
        let before = node.history.all().len();
        node.meddles(status).await;
        // One change is the wrong status, a later one the right status.
        let is_corrected = |all: &[Seen]| all.len() >= before + 2 && all.last().unwrap().status.images == right.images;
        let patience = Duration::from_secs(5);
        let after = node
            .history
            .until_all("the status to be corrected", patience, is_corrected)
            .await;
        let said = |status: &NodeImagesStatus| {
            let conditions = status.conditions.iter();
            conditions
                .map(|condition| (condition.type_.clone(), condition.status.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(&after.status), said(&right));
    }
    assert_eq!(node.runtime.counts().begun, 2);
}

/// Also when the wrong status comes between the agent's own writes.
pub(crate) async fn a_status_that_somebody_keeps_writing_is_right_in_the_end(site: Site) {
    let node = Hollow::new(&site, "contested", Flavour::Containerd);
    let node = node.started(2, &[image("a"), image("b")]).await;
    let right = node.all_present(SOON).await;
    let meddle = async |first: usize| {
        for number in first..first + 50 {
            node.meddles(json!({"observedGeneration": number, "images": null}))
                .await;
        }
    };
    tokio::join!(meddle(1_000), meddle(2_000), meddle(3_000));
    let is_right = |status: &NodeImagesStatus| status.images == right.images && status.observed_generation == Some(1);
    let patience = Duration::from_secs(5);
    node.until("the right status", patience, is_right).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.until("the right status to stay", patience, is_right).await;
}

/// The answer to the agent's own write comes after the news of somebody else's, and must not be taken for the newest.
pub(crate) async fn a_status_that_somebody_wrote_before_an_answer_came_is_corrected(site: Site) {
    let node = Hollow::new(&site, "late-answer", Flavour::Containerd);
    let node = node.started(2, &[image("a")]).await;
    node.all_present(SOON).await;
    node.delay_answers(Duration::from_secs(2));
    for _ in 0..2 {
        let changes = node.history.all().len();
        node.meddles(json!({"images": null})).await;
        let is_corrected = |all: &[Seen]| all.len() >= changes + 2 && all.last().unwrap().status.images.len() == 1;
        // The agent has written, but does not know it yet when the loop comes round.
        let patience = Duration::from_secs(12);
        node.history
            .until_all("the status to be corrected", patience, is_corrected)
            .await;
    }
}
