//! What is pulled, when, and what ends it.

use std::time::Duration;

use coral_api::{FailureReason, conditions, node_images::ImageState};
use coral_tests::{
    cri::{Ending, Flavour, Outcome},
    hollow::Site,
};
use serde_json::json;

use crate::hollow::{A_LOOK, Hollow, SOON, image, image_with, name, of, state};

pub(crate) async fn there_are_never_more_pulls_than_the_limit(site: Site) {
    let node = Hollow::new(&site, "limit", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_millis(300), None);
    let images: Vec<_> = (0..12).map(|number| image(&format!("a{number}"))).collect();
    let node = node.started(3, &images).await;
    node.all_present(SOON).await;
    let counts = node.runtime.counts();
    assert_eq!((counts.begun, counts.succeeded, counts.most_at_once), (12, 12, 3));
}

pub(crate) async fn higher_priority_goes_first(site: Site) {
    let node = Hollow::new(&site, "priority", Flavour::CriO);
    node.runtime.set_pace(Duration::from_millis(50), None);
    let images = [("low", -3), ("none", 0), ("high", 10), ("middle", 5), ("also-high", 10)]
        .map(|(short, priority)| image_with(short, json!({"priority": priority})));
    let node = node.started(1, &images).await;
    node.all_present(SOON).await;
    let order: Vec<String> = node
        .runtime
        .attempts()
        .into_iter()
        .map(|attempt| attempt.image)
        .collect();
    assert_eq!(order, ["high", "also-high", "middle", "none", "low"].map(name));
}

pub(crate) async fn a_spec_that_keeps_changing_begins_no_pull_twice(site: Site) {
    let node = Hollow::new(&site, "churn", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_secs(2), None);
    let node = node.started(4, &[image("app")]).await;
    node.until_runtime("the pull to begin", SOON, |counts| counts.running == 1)
        .await;
    for number in 0..10 {
        let more = json!({"requestedBy": [format!("shop/web-{number}")], "priority": number, "backoffLimit": number});
        node.asks(&[image_with("app", more), image(&format!("other{}", number % 2))])
            .await;
    }
    node.all_present(SOON).await;
    assert_eq!(node.runtime.attempts_at(&name("app")).len(), 1);
    // The others came and went with the spec. Nothing was pulled to the end that was no longer wanted, or was there already.
    for attempts in ["other0", "other1"].map(|short| node.runtime.attempts_at(&name(short))) {
        let succeeded = attempts
            .iter()
            .filter(|attempt| attempt.ended.unwrap().1 == Ending::Succeeded);
        assert!(succeeded.count() <= 1, "{attempts:?}");
    }
}

pub(crate) async fn two_spellings_of_an_image_are_one_pull(site: Site) {
    let node = Hollow::new(&site, "spellings", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_secs(2), None);
    let spellings = ["nginx", "docker.io/library/nginx:latest", "index.docker.io/nginx"];
    let node = node.started(4, &spellings.map(|image| json!({"image": image}))).await;
    let status = node.all_present(SOON).await;
    assert_eq!(status.images.len(), 3);
    assert_eq!(node.runtime.attempts_at("nginx").len(), 1);
}

pub(crate) async fn an_unwanted_pull_is_cancelled_and_makes_room(site: Site) {
    let node = Hollow::new(&site, "unwanted", Flavour::Containerd);
    node.runtime.script(&name("first"), [Outcome::Hang]);
    let node = node.started(1, &[image("first"), image("second")]).await;
    let pulling = |status: &_| state(status, &name("first")) == Some(ImageState::Pulling);
    node.until("the pull to be told", SOON, pulling).await;
    assert!(node.runtime.attempts_at(&name("second")).is_empty());

    node.asks(&[image("second")]).await;
    let status = node.all_present(Duration::from_secs(10)).await;
    assert!(of(&status, &name("first")).is_none());
    let counts = node.runtime.counts();
    assert_eq!((counts.cancelled, counts.succeeded, counts.running), (1, 1, 0));
}

pub(crate) async fn a_held_image_waits_for_its_turn(site: Site) {
    let node = Hollow::new(&site, "held", Flavour::CriO);
    let held = image_with("later", json!({"state": "Held", "priority": 100}));
    let node = node.started(2, &[held, image("now")]).await;
    let is_so = |status: &_| {
        state(status, &name("now")) == Some(ImageState::Present)
            && state(status, &name("later")) == Some(ImageState::Waiting)
    };
    let status = node.until("only the other image to be there", SOON, is_so).await;
    assert_eq!(of(&status, &name("later")).unwrap().failure, None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(node.runtime.attempts_at(&name("later")).is_empty());

    // An image that is held back again stays.
    node.asks(&[image("later"), image("now")]).await;
    node.all_present(SOON).await;
    node.asks(&[image_with("later", json!({"state": "Held"})), image("now")])
        .await;
    node.all_present(SOON).await;
    assert_eq!(node.runtime.counts().begun, 2);
}

pub(crate) async fn under_pressure_nothing_begins_until_it_is_over(site: Site) {
    let mut node = Hollow::new(&site, "pressure", Flavour::Containerd);
    node.runtime.set_pace(Duration::from_millis(1500), None);
    let images = [image("a"), image("b"), image("c")];
    node.asks_spec(json!({"images": images, "paused": "DiskPressure"}))
        .await;
    node.start_agent(1);
    let waits = |status: &coral_api::NodeImagesStatus| {
        let reason = |image: &coral_api::node_images::ImageStatus| image.failure.as_ref().map(|failure| failure.reason);
        let mut images = status.images.iter();
        images.len() == 3
            && images
                .all(|image| image.state == ImageState::Waiting && reason(image) == Some(FailureReason::DiskPressure))
    };
    let status = node.until("all images to wait for the disk", SOON, waits).await;
    assert!(!conditions::is_true(&status.conditions, conditions::ACCEPTING));
    assert!(conditions::is_true(&status.conditions, conditions::READY));

    for reason in ["PIDPressure", "Cordoned"] {
        node.asks_spec(json!({"images": images, "paused": reason})).await;
        let told =
            |status: &coral_api::NodeImagesStatus| status.conditions.iter().any(|condition| condition.reason == reason);
        node.until(reason, SOON, told).await;
    }
    assert_eq!(node.runtime.counts().begun, 0);

    // What has begun goes on when pressure comes back; what has not waits.
    node.asks(&images).await;
    node.until_runtime("a pull to begin", SOON, |counts| counts.running == 1)
        .await;
    node.asks_spec(json!({"images": images, "paused": "DiskPressure"}))
        .await;
    node.until_runtime("the pull to end", SOON, |counts| counts.succeeded == 1)
        .await;
    let one = |status: &coral_api::NodeImagesStatus| {
        let present = |image: &&coral_api::node_images::ImageStatus| image.state == ImageState::Present;
        status.images.iter().filter(present).count() == 1 && status.images.len() == 3
    };
    node.until("one image to be there", SOON, one).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.runtime.counts().begun, 1);
    node.asks(&images).await;
    let status = node.all_present(SOON).await;
    assert!(conditions::is_true(&status.conditions, conditions::ACCEPTING));
    assert_eq!(node.runtime.counts().begun, 3);
}

pub(crate) async fn a_deleted_object_ends_its_pulls(site: Site) {
    let node = Hollow::new(&site, "deleted", Flavour::CriO);
    for short in ["a", "b"] {
        node.runtime.script(&name(short), [Outcome::Hang]);
    }
    let images = [image("a"), image("b"), image("c")];
    let node = node.started(2, &images).await;
    node.until_runtime("two pulls", SOON, |counts| counts.running == 2)
        .await;
    node.delete_object().await;
    node.until_runtime("the pulls to end", SOON, |counts| {
        counts.cancelled == 2 && counts.running == 0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.runtime.counts().begun, 2);

    node.asks(&images).await;
    node.all_present(SOON).await;
    assert!(node.agent_runs());
}

pub(crate) async fn a_shutdown_ends_pulls_and_agent_promptly(site: Site) {
    let node = Hollow::new(&site, "shutdown", Flavour::Containerd);
    node.runtime.script(&name("a"), [Outcome::Hang]);
    let mut node = node.started(2, &[image("a"), image("b")]).await;
    let is_so = |status: &_| {
        state(status, &name("a")) == Some(ImageState::Pulling) && state(status, &name("b")) == Some(ImageState::Present)
    };
    node.until("one image to be there and one under way", SOON, is_so).await;
    tokio::time::timeout(Duration::from_secs(5), node.stop_agent())
        .await
        .unwrap();
    node.until_runtime("the pull to end", Duration::from_secs(5), |counts| counts.running == 0)
        .await;
    let attempts = node.runtime.attempts_at(&name("a"));
    assert_eq!(attempts[0].ended.unwrap().1, Ending::Cancelled);
    // Nobody reads "pulling" of a node on which nothing is pulled.
    let is_so = |status: &_| {
        state(status, &name("a")) == Some(ImageState::Waiting) && state(status, &name("b")) == Some(ImageState::Present)
    };
    node.until("the last word", Duration::from_secs(5), is_so).await;
}

pub(crate) async fn a_restarted_agent_pulls_nothing_again(site: Site) {
    let node = Hollow::new(&site, "restarted", Flavour::Containerd);
    let always = json!({"pullPolicy": "Always", "refreshAfter": "2020-01-01T00:00:00Z"});
    let mut node = node.started(2, &[image_with("a", always), image("b")]).await;
    let before = node.all_present(SOON).await;
    node.stop_agent().await;
    node.start_agent(2);
    tokio::time::sleep(A_LOOK).await;
    let after = node.all_present(SOON).await;
    assert_eq!(node.runtime.counts().begun, 2);
    for (before, after) in before.images.iter().zip(&after.images) {
        assert_eq!(
            (&before.digest, &before.last_pull_time),
            (&after.digest, &after.last_pull_time)
        );
    }
    assert_eq!(before.conditions, after.conditions);
}

/// Only whether an earlier agent has left something to tidy up is worth one look.
pub(crate) async fn without_an_object_the_agent_sleeps(site: Site) {
    for flavour in [Flavour::Containerd, Flavour::CriO] {
        let mut node = Hollow::new(&site, &format!("sleeps-{flavour:?}").to_lowercase(), flavour);
        node.start_agent(2);
        tokio::time::sleep(Duration::from_secs(13)).await;
        assert!(node.runtime.calls().list_images <= 1, "{:?}", node.runtime.calls());
        assert_eq!(node.writes(), 0);
        node.asks(&[image("a")]).await;
        node.all_present(Duration::from_secs(5)).await;
    }
}
