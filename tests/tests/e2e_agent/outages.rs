//! Pulls go on while the API server is away, and what became of them is told afterwards.

use std::time::Duration;

use coral_api::node_images::ImageState;
use coral_tests::{
    cri::{Flavour, Outcome},
    hollow::Site,
};
use serde_json::json;

use crate::{
    gate::{Gate, Way},
    hollow::{Hollow, SOON, image, image_with, name, state},
};

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(15);
/// A watch is begun again after pauses that grow up to 30 s.
const RECONNECTION: Duration = Duration::from_mins(1);

pub(crate) async fn a_pull_that_ends_while_the_api_server_is_away_is_told_afterwards(site: Site) {
    let gate = Gate::start(&site).await;
    let node = Hollow::new(&site, "outage", Flavour::Containerd).through(&gate.address());
    node.runtime.set_pace(Duration::from_secs(4), None);
    let node = node.started(1, &[image("a"), image("b")]).await;
    let pulling = |status: &_| state(status, &name("a")) == Some(ImageState::Pulling);
    node.until("the pull to be told", SOON, pulling).await;
    gate.set(Way::Cut).await;
    tokio::time::sleep(OUTAGE).await;
    // Nothing has waited for the API server.
    assert_eq!(node.runtime.counts().succeeded, 2);
    assert!(pulling(&node.history.all().pop().unwrap().status));
    gate.set(Way::Open).await;
    node.all_present(Duration::from_secs(10)).await;
    assert_eq!(node.runtime.counts().begun, 2);
    assert!(node.agent_runs());
}

pub(crate) async fn a_spec_that_changes_while_the_api_server_is_away_is_found_afterwards(site: Site) {
    let gate = Gate::start(&site).await;
    let node = Hollow::new(&site, "missed", Flavour::CriO).through(&gate.address());
    let node = node.started(1, &[image("a")]).await;
    node.all_present(SOON).await;
    gate.set(Way::Cut).await;
    node.asks(&[image("b")]).await;
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(node.runtime.counts().begun, 1);
    gate.set(Way::Open).await;
    let status = node.all_present(RECONNECTION).await;
    assert_eq!(state(&status, &name("b")), Some(ImageState::Present));
    assert_eq!(state(&status, &name("a")), None);
    assert!(node.agent_runs());
}

pub(crate) async fn a_shutdown_without_an_api_server_is_prompt(site: Site) {
    let gate = Gate::start(&site).await;
    let node = Hollow::new(&site, "orphaned", Flavour::CriO).through(&gate.address());
    node.runtime.script(&name("a"), [Outcome::Hang]);
    let mut node = node.started(1, &[image("a")]).await;
    let pulling = |status: &_| state(status, &name("a")) == Some(ImageState::Pulling);
    node.until("the pull to be told", SOON, pulling).await;
    gate.kill_silently();
    tokio::time::timeout(Duration::from_secs(5), node.stop_agent())
        .await
        .unwrap();
    node.until_runtime("the pull to end", Duration::from_secs(5), |counts| counts.running == 0)
        .await;
}

/// A load balancer that forgets a connection tells nobody: what is sent there gets no answer.
pub(crate) async fn dead_connections_delay_a_status_by_little(site: Site) {
    let gate = Gate::start(&site).await;
    let node = Hollow::new(&site, "dead", Flavour::Containerd).through(&gate.address());
    node.runtime.set_pace(Duration::from_secs(4), None);
    let node = node.started(1, &[image("a")]).await;
    let pulling = |status: &_| state(status, &name("a")) == Some(ImageState::Pulling);
    node.until("the pull to be told", SOON, pulling).await;
    gate.kill_silently();
    node.all_present(Duration::from_secs(30)).await;
    assert_eq!(node.runtime.counts().begun, 1);
}

/// The Secret of an image is read when its pull begins.
pub(crate) async fn dead_connections_delay_a_private_image_by_little(site: Site) {
    let gate = Gate::start(&site).await;
    let node = Hollow::new(&site, "private", Flavour::Containerd).through(&gate.address());
    node.runtime.set_pace(Duration::from_secs(4), None);
    let secret = json!({"namespace": "default", "name": "hollow-nobody-has-this"});
    let private = image_with("private", json!({"pullSecrets": [secret]}));
    let node = node.started(1, &[image("public"), private]).await;
    let pulling = |status: &_| state(status, &name("public")) == Some(ImageState::Pulling);
    node.until("the pull to be told", SOON, pulling).await;
    gate.kill_silently();
    node.until_runtime("the private image to be pulled", Duration::from_secs(45), |counts| {
        counts.succeeded == 2
    })
    .await;
}
