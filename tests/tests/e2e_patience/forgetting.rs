//! etcd has forgotten the version from which an agent wants to go on watching: the API server answers 410 Gone.

use std::{pin::pin, time::Duration};

use coral_api::NodeImages;
use coral_tests::{
    ClusterOptions, images,
    wait::{Look, eventually},
};
use futures::StreamExt as _;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::solo::{PATIENCE, Solo, agent};

const NODE: &str = "light-1";
/// A watch is begun again after pauses that grow up to 30 s, with a jitter.
const NOTICED: Duration = Duration::from_mins(1);
/// The slow registry sends something three times a second.
const STANDSTILL: Duration = Duration::from_secs(2);

pub(crate) async fn what_changed_while_etcd_forgot_is_found() {
    let solo = Solo::start(
        "forgetting",
        ClusterOptions {
            nodes: 0,
            light_nodes: 1,
            agent: Some(agent()),
            ..ClusterOptions::default()
        },
    )
    .await;
    let node = solo.cluster.node(NODE).unwrap();
    let publish = |name: &str, bytes: usize| {
        let registry = solo.cluster.open_registry();
        images::tiny(&registry, name, "v1", bytes, name).unwrap().reference
    };
    let (first, second, third) = (
        publish("first", 100_000),
        publish("second", 100_000),
        publish("third", 100_000),
    );
    let relay = solo.cluster.slow_registry(50_000).await.unwrap();
    let slow = publish("slow", 24_000_000).replace(solo.cluster.registry().as_str(), &relay.host());
    solo.ask(NODE, &[json!({"image": first})]).await;
    solo.present(NODE, &first, PATIENCE).await;
    let process = node.agent_process().unwrap();

    // What it is asked for has changed.
    let known = solo.node_images().get(NODE).await.unwrap();
    node.freeze_agent().unwrap();
    solo.ask(NODE, &[json!({"image": first}), json!({"image": second})])
        .await;
    forget(&solo, &known).await;
    assert!(!node.has_image(&second).unwrap(), "the agent was to be frozen");
    node.thaw_agent().unwrap();
    solo.present(NODE, &second, NOTICED).await;

    // It is asked for nothing any more.
    solo.ask(NODE, &[json!({"image": slow})]).await;
    let is_pulled = || -> anyhow::Result<bool> { Ok(node.ctr(&["content", "active"])?.contains("layer-sha256:")) };
    until("the pull to begin", is_pulled).await;
    let known = solo.node_images().get(NODE).await.unwrap();
    node.freeze_agent().unwrap();
    solo.node_images().delete(NODE, &DeleteParams::default()).await.unwrap();
    forget(&solo, &known).await;
    let before = relay.passed_bytes();
    let goes_on = || Ok(relay.passed_bytes() > before);
    until("the pull to go on while the agent knows nothing", goes_on).await;
    node.thaw_agent().unwrap();
    eventually("the pull to end", NOTICED, async || {
        let before = relay.passed_bytes();
        tokio::time::sleep(STANDSTILL).await;
        let passed = relay.passed_bytes() - before;
        Ok(if passed == 0 {
            Look::Done(())
        } else {
            Look::NotYet(passed)
        })
    })
    .await
    .unwrap();

    // And then for something else, by a new object.
    solo.ask(NODE, &[json!({"image": third})]).await;
    solo.present(NODE, &third, NOTICED).await;
    assert!(!node.has_image(&slow).unwrap());
    assert_eq!(node.agent_process().unwrap(), process, "the agent was started again");
    solo.down().await;
}

/// The API server starts again, and nobody remembers the version that is known.
async fn forget(solo: &Solo, known: &NodeImages) {
    solo.cluster.kill_api_server().unwrap();
    solo.cluster.compact_etcd().await.unwrap();
    solo.cluster.start_api_server().await.unwrap();
    let version = known.resource_version().unwrap();
    let api = solo.node_images();
    let code = eventually("an answer to a watch", PATIENCE, async || {
        let parameters = WatchParams::default()
            .fields(&format!("metadata.name={NODE}"))
            .timeout(5);
        let events = match api.watch(&parameters, &version).await {
            Ok(events) => events,
            Err(kube::Error::Api(status)) => return Ok(Look::Done(status.code)),
            Err(error) => return Ok(Look::NotYet(error.to_string())),
        };
        Ok(match pin!(events).next().await {
            Some(Ok(WatchEvent::Error(status))) => Look::Done(status.code),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
    .await
    .unwrap();
    assert_eq!(code, 410);
}

async fn until(what: &str, look: impl Fn() -> anyhow::Result<bool>) {
    eventually(what, NOTICED, async || {
        let seen = look()?;
        Ok(if seen { Look::Done(()) } else { Look::NotYet(seen) })
    })
    .await
    .unwrap();
}
