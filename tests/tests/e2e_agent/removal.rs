//! What is taken away, and what stays.

use std::time::Duration;

use coral_api::{FailureReason, NodeImagesStatus, node_images::ImageState};
use coral_tests::{
    cri::{Ending, Flavour, Outcome},
    hollow::Site,
};
use serde_json::{Value, json};

use crate::{
    history::Seen,
    hollow::{A_LOOK, Hollow, SOON, image, image_with, name, of, state},
};

/// A request to take the image away.
fn gone(short: &str) -> Value {
    image_with(short, json!({"state": "Absent"}))
}

/// Whether the agent says that the removal is refused, in words that have this one.
fn refuses(status: &NodeImagesStatus, short: &str, word: &str) -> bool {
    of(status, &name(short)).is_some_and(|image| {
        let failure = image.failure.as_ref();
        image.state == ImageState::Present
            && failure.is_some_and(|failure| {
                failure.reason == FailureReason::RemovalRefused
                    && failure.message.contains(word)
                    && failure.next_attempt_time.is_some()
            })
    })
}

/// Waits until the agent says, of the newest spec, that the image is gone.
async fn until_gone(node: &Hollow, short: &str) {
    let is_gone = |seen: &Seen| {
        state(&seen.status, &name(short)) == Some(ImageState::Absent)
            && seen.status.observed_generation == seen.generation
    };
    node.history.until(&format!("{short} to be gone"), SOON, is_gone).await;
    assert!(!node.runtime.holds(&name(short)));
}

pub(crate) async fn an_image_goes_when_it_is_to_go_also_under_pressure(site: Site) {
    for flavour in [Flavour::Containerd, Flavour::CriO] {
        let node = Hollow::new(&site, &format!("goes-{flavour:?}").to_lowercase(), flavour);
        let node = node.started(2, &[image("a"), image("b")]).await;
        node.all_present(SOON).await;
        node.asks_spec(json!({"images": [gone("a"), image("b")], "paused": "DiskPressure"}))
            .await;
        until_gone(&node, "a").await;
        assert!(node.runtime.holds(&name("b")));
        assert_eq!(node.runtime.calls().remove_image, 1);
        // It is wanted again.
        node.asks(&[image("a"), image("b")]).await;
        node.all_present(SOON).await;
    }
}

/// The agent looks only every 8 s, and somebody else's pull in between must not be overlooked.
pub(crate) async fn nothing_is_called_gone_before_a_fresh_look(site: Site) {
    let node = Hollow::new(&site, "fresh-look", Flavour::Containerd);
    let node = node.started(2, &[image("a")]).await;
    node.all_present(SOON).await;
    node.runtime.hold(&name("theirs")).unwrap();
    node.runtime.run(&name("theirs"), "web-1", "app").unwrap();
    let before = node.history.all().len();
    node.asks(&[image("a"), gone("theirs")]).await;
    let told = |status: &NodeImagesStatus| refuses(status, "theirs", "web-1");
    node.until("the refusal", SOON, told).await;
    let all = node.history.all();
    let called_gone = |seen: &&Seen| state(&seen.status, &name("theirs")) == Some(ImageState::Absent);
    assert_eq!(all[before..].iter().find(called_gone).map(|seen| &seen.status), None);
}

pub(crate) async fn many_images_go_with_few_writes(site: Site) {
    let node = Hollow::new(&site, "many-go", Flavour::Containerd);
    let shorts: Vec<String> = (0..20).map(|number| format!("a{number}")).collect();
    let images: Vec<Value> = shorts.iter().map(|short| image(short)).collect();
    let node = node.started(8, &images).await;
    node.all_present(SOON).await;
    let writes = node.writes();
    let images: Vec<Value> = shorts.iter().map(|short| gone(short)).collect();
    node.asks(&images).await;
    let all_gone = |status: &NodeImagesStatus| status.images.iter().all(|image| image.state == ImageState::Absent);
    node.until("all images to be gone", SOON, all_gone).await;
    assert_eq!(node.runtime.held(), 0);
    let writes = node.writes() - writes;
    assert!(writes <= 4, "{writes} writes");
}

pub(crate) async fn what_a_container_uses_stays_until_it_ends(site: Site) {
    for flavour in [Flavour::Containerd, Flavour::CriO] {
        let node = Hollow::new(&site, &format!("used-{flavour:?}").to_lowercase(), flavour);
        let node = node.started(2, &[image("a")]).await;
        node.all_present(SOON).await;
        node.runtime.run(&name("a"), "web-1", "app").unwrap();
        node.asks(&[gone("a")]).await;
        let told = |status: &NodeImagesStatus| refuses(status, "a", "container app of pod shop/web-1");
        node.until("the refusal", SOON, told).await;
        // It is tried again, and says so.
        let again = |status: &NodeImagesStatus| {
            let failure = of(status, &name("a")).and_then(|image| image.failure.as_ref());
            failure.is_some_and(|failure| failure.attempts >= 2)
        };
        node.until("a second attempt", SOON, again).await;
        assert_eq!(node.runtime.calls().remove_image, 0);
        assert!(node.runtime.holds(&name("a")));
        node.runtime.end_pod("web-1");
        until_gone(&node, "a").await;
    }
}

pub(crate) async fn what_others_pinned_and_what_every_pod_needs_stays(site: Site) {
    let node = Hollow::new(&site, "protected", Flavour::Containerd);
    let pinned_by_coral = image_with("ours", json!({"pin": true}));
    let images = [image("pinned"), image("pause"), pinned_by_coral];
    let node = node.started(2, &images).await;
    node.all_present(SOON).await;
    let is_pinned = |status: &NodeImagesStatus| of(status, &name("ours")).is_some_and(|image| image.pinned);
    node.until("the pin", SOON, is_pinned).await;
    node.runtime.pin(&name("pinned")).unwrap();
    node.runtime.set_sandbox_image(&name("pause"));

    let ours = image_with("ours", json!({"pin": true, "state": "Absent"}));
    node.asks(&[gone("pinned"), gone("pause"), ours]).await;
    let told = |status: &NodeImagesStatus| {
        refuses(status, "pinned", "pinned, and not by Coral") && refuses(status, "pause", "every pod")
    };
    node.until("both refusals", SOON, told).await;
    // What only Coral had pinned goes.
    until_gone(&node, "ours").await;
    assert!(node.runtime.holds(&name("pinned")) && node.runtime.holds(&name("pause")));
}

/// Three names of one image: one is to go, one is wanted, one is somebody else's.
pub(crate) async fn only_coral_s_own_name_of_a_shared_image_goes(site: Site) {
    for flavour in [Flavour::Containerd, Flavour::CriO] {
        let node = Hollow::new(&site, &format!("shared-{flavour:?}").to_lowercase(), flavour);
        let content = "the same";
        let shorts = ["a", "wanted", "foreign"];
        let names = shorts.map(|short| format!("registry.example/team/shared:{short}"));
        for name in &names {
            node.catalogue.publish(name, content, 1_000);
        }
        let [going, wanted, foreign] = &names;
        let asks = |name: &str, state: &str| json!({"image": name, "state": state});
        let node = node
            .started(2, &[asks(going, "Present"), asks(wanted, "Present")])
            .await;
        node.all_present(SOON).await;
        node.runtime.hold(foreign).unwrap();
        assert_eq!(node.runtime.held(), 1);

        node.asks(&[asks(going, "Absent"), asks(wanted, "Present")]).await;
        let told = |status: &NodeImagesStatus| state(status, going) == Some(ImageState::Absent);
        let status = node.until("our name to be gone", SOON, told).await;
        assert_eq!(state(&status, wanted), Some(ImageState::Present));
        assert!(!node.runtime.holds(going) && node.runtime.holds(wanted) && node.runtime.holds(foreign));
        if flavour == Flavour::Containerd {
            assert_eq!(node.runtime.deleted_records(), std::slice::from_ref(going));
            assert_eq!(node.runtime.calls().remove_image, 0);
        }
        // Nobody pulled anything again.
        assert_eq!(node.runtime.counts().begun, 2);
    }
}

pub(crate) async fn a_pull_ends_before_its_image_goes(site: Site) {
    let node = Hollow::new(&site, "pulled-and-gone", Flavour::Containerd);
    node.runtime.script(&name("a"), [Outcome::Hang]);
    let node = node.started(2, &[image("a")]).await;
    node.until_runtime("the pull to begin", SOON, |counts| counts.running == 1)
        .await;
    node.asks(&[gone("a")]).await;
    until_gone(&node, "a").await;
    let attempts = node.runtime.attempts_at(&name("a"));
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].ended.unwrap().1, Ending::Cancelled);
}

pub(crate) async fn nothing_is_removed_or_called_gone_while_the_runtime_is_away(site: Site) {
    let mut node = Hollow::new(&site, "away-and-gone", Flavour::Containerd);
    node.runtime.hold(&name("a")).unwrap();
    node.runtime.stop().await;
    node.asks(&[gone("a")]).await;
    node.start_agent(2);
    let told = |status: &NodeImagesStatus| {
        let image = of(status, &name("a"));
        image.is_some_and(|image| {
            let reason = image.failure.as_ref().map(|failure| failure.reason);
            image.state == ImageState::Waiting && reason == Some(FailureReason::RuntimeUnavailable)
        })
    };
    node.until("the runtime to be missed", SOON, told).await;
    node.runtime.resume().unwrap();
    until_gone(&node, "a").await;
}

/// Somebody pulls again what was removed: it goes again.
pub(crate) async fn an_image_that_comes_back_goes_again(site: Site) {
    let node = Hollow::new(&site, "comes-back", Flavour::CriO);
    node.runtime.hold(&name("a")).unwrap();
    let node = node.started(2, &[gone("a")]).await;
    until_gone(&node, "a").await;
    node.runtime.hold(&name("a")).unwrap();
    let patience = A_LOOK + Duration::from_secs(5);
    coral_tests::wait::eventually("the image to go again", patience, async || {
        let calls = node.runtime.calls();
        Ok(if calls.remove_image == 2 && !node.runtime.holds(&name("a")) {
            coral_tests::wait::Look::Done(())
        } else {
            coral_tests::wait::Look::NotYet(calls)
        })
    })
    .await
    .unwrap();
}

/// What was held back after it had used its attempts up is tried at once when its turn comes again, and still counts.
pub(crate) async fn a_turn_that_comes_again_is_one_more_attempt(site: Site) {
    let node = Hollow::new(&site, "turn", Flavour::Containerd);
    let trouble = || Outcome::Fail(coral_tests::cri::Trouble::NotFound);
    node.runtime.script(&name("a"), std::iter::repeat_with(trouble).take(4));
    let with_limit = |state: &str| image_with("a", json!({"backoffLimit": 2, "state": state}));
    let node = node.started(2, &[with_limit("Present")]).await;
    let attempts = |status: &NodeImagesStatus| {
        let image = of(status, &name("a")).filter(|image| image.state == ImageState::Failed);
        image.and_then(|image| Some(image.failure.as_ref()?.attempts))
    };
    let used_up = |status: &_| attempts(status) >= Some(2);
    node.until("the attempts to be used up", SOON, used_up).await;
    node.asks(&[with_limit("Held")]).await;
    let is_held = |seen: &Seen| attempts(&seen.status).is_some() && seen.status.observed_generation == seen.generation;
    let held = node.history.until("the failure to stay", SOON, is_held).await;
    // On a slow machine a third one may have been made before the turn was taken away.
    let made = attempts(&held.status).unwrap();
    assert!((2..=3).contains(&made), "{made}");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let begun = node.runtime.attempts_at(&name("a")).len();
    assert_eq!(i32::try_from(begun), Ok(made));

    node.asks(&[with_limit("Present")]).await;
    let one_more = |status: &_| attempts(status) == Some(made + 1);
    node.until("one more attempt", Duration::from_secs(3), one_more).await;
}
