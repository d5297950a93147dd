//! Nodes join, move, are cordoned, suffer, and come back as others.

use std::time::{Duration, Instant};

use coral_api::{NodeImages, PrefetchStatus, node_images::PauseReason};
use coral_tests::{
    cri::Catalogue,
    hollow::{Fleet, HollowNode, HollowOptions},
    wait::{Look, eventually},
};
use kube::ResourceExt as _;
use serde_json::json;

use crate::{
    ground::{Ground, SOON, images},
    order::Order,
};

/// How soon what happens to a node reaches its agent's orders, beside what the API server takes for its answers.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Answers of the API server on the way: to the watch, to what the controller is about to write at that moment, to its write of the
/// orders, and to the one who looks.
const ANSWERS: u32 = 4;

/// The longest time from now until the orders say what they should. `write_took` is how long a write takes now: on a machine with
/// more work than processors that is seconds, and not the controller's fault.
fn at_once(write_took: Duration) -> Duration {
    AT_ONCE + ANSWERS * write_took
}

fn everything() -> Catalogue {
    Catalogue::of_everything(1_000_000)
}

/// Nodes on which a pull takes a while.
async fn slow_fleet(ground: &Ground, name: &str, count: usize, latency: Duration) -> Fleet {
    let options = |_| HollowOptions {
        max_parallel_pulls: 1,
        ..HollowOptions::new(&everything()).with_latency(latency)
    };
    ground.fleet(name, count, options).await
}

fn paused(object: Option<&NodeImages>) -> Option<PauseReason> {
    object.and_then(|object| object.spec.paused)
}

pub(crate) async fn a_node_that_joins_is_asked_within_two_seconds(ground: Ground) {
    let images = images("joins", 2);
    let mut fleet = ground.fleet("joins", 1, |_| HollowOptions::new(&everything())).await;
    let order = Order::place(
        &ground,
        "joins",
        json!({"images": images, "nodeSelector": fleet.selector(), "parallelism": "100%"}),
    )
    .await;
    order.ready_on(1, SOON).await;
    let began = Instant::now();
    fleet.join(1, HollowOptions::new(&everything())).await.unwrap();
    let is_asked = |object: Option<&NodeImages>| object.is_some_and(|object| object.spec.images.len() == 2);
    let patience = at_once(began.elapsed());
    ground
        .until_asked("the new node to be asked", "joins-1", patience, is_asked)
        .await;
    order.ready_on(2, SOON).await;
    assert!(fleet.node(1).holds_all(&images));
    ground.until_labelled("joins-1", &images, SOON).await;
    fleet.leave().await.unwrap();
}

pub(crate) async fn labels_decide_which_nodes_are_asked(ground: Ground) {
    const GPU: &str = "e2e.coral.invalid/gpu";
    let images = images("relabel", 2);
    let fleet = ground
        .fleet("relabel", 2, |number| {
            HollowOptions::new(&everything()).with_label(GPU, if number == 0 { "true" } else { "false" })
        })
        .await;
    let mut selector = fleet.selector();
    selector["matchExpressions"] = json!([{"key": GPU, "operator": "In", "values": ["true"]}]);
    let order = Order::place(&ground, "relabel", json!({"images": images, "nodeSelector": selector})).await;
    order.ready_on(1, SOON).await;
    assert_eq!(fleet.node(1).runtime().counts().begun, 0);
    assert!(ground.node_images("relabel-1").await.unwrap().is_none());

    fleet.node(1).set_label(GPU, Some("true")).await.unwrap();
    order.ready_on(2, SOON).await;
    assert!(fleet.node(1).holds_all(&images));
    ground.until_labelled("relabel-1", &images, SOON).await;

    // Out of the selection: nobody asks it for anything, and the images stay.
    fleet.node(0).set_label(GPU, None).await.unwrap();
    order.ready_on(1, SOON).await;
    ground.until_labelled("relabel-0", &[], SOON).await;
    let nothing = |object: Option<&NodeImages>| object.is_none_or(|object| object.spec.images.is_empty());
    ground
        .until_asked("nothing to be asked", "relabel-0", SOON, nothing)
        .await;
    assert!(fleet.node(0).holds_all(&images));
    fleet.leave().await.unwrap();
}

pub(crate) async fn a_cordoned_node_stops_and_goes_on_afterwards(ground: Ground) {
    let images = images("cordon", 8);
    let fleet = slow_fleet(&ground, "cordon", 2, Duration::from_secs(1)).await;
    let order = Order::place(
        &ground,
        "cordon",
        json!({"images": images, "nodeSelector": fleet.selector(), "parallelism": "100%"}),
    )
    .await;
    let node = fleet.node(0);
    stops_and_goes_on(&ground, node, PauseReason::Cordoned, async |is_on| {
        node.set_cordoned(is_on).await.unwrap();
    })
    .await;
    order.ready_on(2, SOON).await;
    // It is about to go: nobody waits for it meanwhile.
    let alone = |status: &PrefetchStatus| status.nodes.desired == 1;
    assert!(order.history().iter().any(|seen| alone(&seen.status)));
    assert!(node.holds_all(&images));
    fleet.leave().await.unwrap();
}

pub(crate) async fn a_node_under_pressure_is_paused_and_goes_on_afterwards(ground: Ground) {
    let images = images("pressure", 8);
    let fleet = slow_fleet(&ground, "pressure", 3, Duration::from_secs(1)).await;
    let order = Order::place(
        &ground,
        "pressure",
        json!({"images": images, "nodeSelector": fleet.selector(), "parallelism": "100%"}),
    )
    .await;
    for (number, reason) in [(0, PauseReason::DiskPressure), (1, PauseReason::PIDPressure)] {
        let node = fleet.node(number);
        stops_and_goes_on(&ground, node, reason, async |is_on| {
            let status = if is_on { "True" } else { "False" };
            node.set_condition(reason.as_str(), status).await.unwrap();
        })
        .await;
    }
    order.ready_on(3, SOON).await;
    assert!(fleet.nodes().all(|node| node.holds_all(&images)));
    fleet.leave().await.unwrap();
}

/// Begins a trouble in the middle of the work, sees that the node is told and stops, and the same when it is over.
async fn stops_and_goes_on(ground: &Ground, node: &HollowNode, reason: PauseReason, trouble: impl AsyncFn(bool)) {
    let pulls = || node.runtime().counts().begun;
    eventually("the node to be in the middle", SOON, async || {
        let pulls = pulls();
        Ok(if pulls >= 1 {
            Look::Done(())
        } else {
            Look::NotYet(pulls)
        })
    })
    .await
    .unwrap();
    let began = Instant::now();
    trouble(true).await;
    let patience = at_once(began.elapsed());
    let is_told = |object: Option<&NodeImages>| paused(object) == Some(reason);
    ground.until_asked("the pause", node.name(), patience, is_told).await;
    // The agent has read it when nothing runs any more, and then nothing begins: several pulls would have.
    eventually("the pull that runs to end", SOON, async || {
        let running = node.runtime().counts().running;
        Ok(if running == 0 {
            Look::Done(())
        } else {
            Look::NotYet(running)
        })
    })
    .await
    .unwrap();
    let stopped = pulls();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(pulls(), stopped, "a pull began {:?} after the trouble", began.elapsed());
    assert!(stopped < 8, "it was done before the trouble came");
    let over = Instant::now();
    trouble(false).await;
    let patience = at_once(over.elapsed());
    let is_told = |object: Option<&NodeImages>| paused(object).is_none();
    ground
        .until_asked("the end of the pause", node.name(), patience, is_told)
        .await;
}

pub(crate) async fn a_node_that_is_not_ready_does_not_count(ground: Ground) {
    let images = images("notready", 2);
    let fleet = ground.fleet("notready", 3, |_| HollowOptions::new(&everything())).await;
    // One is not Ready from the beginning, one becomes so, and one stays.
    fleet.node(2).set_condition("Ready", "False").await.unwrap();
    let order = Order::place(
        &ground,
        "notready",
        json!({"images": images, "nodeSelector": fleet.selector(), "parallelism": "100%"}),
    )
    .await;
    order.ready_on(2, SOON).await;
    assert!(ground.node_images("notready-2").await.unwrap().is_none());
    fleet.node(1).set_condition("Ready", "Unknown").await.unwrap();
    order.ready_on(1, SOON).await;
    // It keeps what it was asked for, so that nothing begins anew when it is back.
    let asked = ground.node_images("notready-1").await.unwrap().unwrap();
    assert_eq!(asked.spec.images.len(), 2);

    fleet.node(1).set_condition("Ready", "True").await.unwrap();
    fleet.node(2).set_condition("Ready", "True").await.unwrap();
    order.ready_on(3, SOON).await;
    assert_eq!(fleet.timeline().most_pulls_of_one_image(), 1);
    assert!(fleet.node(2).holds_all(&images));
    fleet.leave().await.unwrap();
}

/// Nobody knows what is on a node whose agent says nothing and whose kubelet does not either.
pub(crate) async fn the_labels_of_a_silent_node_go_and_come_back(ground: Ground) {
    /// How long both must have been silent.
    const SILENCE: Duration = Duration::from_mins(1);
    let images = images("silent", 2);
    let mut fleet = ground.fleet("silent", 1, |_| HollowOptions::new(&everything())).await;
    let spec = json!({"images": images, "nodeSelector": fleet.selector()});
    let order = Order::place(&ground, "silent", spec).await;
    order.ready_on(1, SOON).await;
    ground.until_labelled("silent-0", &images, SOON).await;
    let began = Instant::now();
    fleet.node_mut(0).kill_agent();
    fleet.node(0).set_condition("Ready", "Unknown").await.unwrap();
    ground.until_labelled("silent-0", &[], SILENCE + SOON).await;
    // Times of the API have whole seconds.
    let took = began.elapsed() + Duration::from_secs(1);
    assert!(took >= SILENCE, "the labels went after {took:?}");

    fleet.node_mut(0).start_agent().unwrap();
    fleet.node(0).set_condition("Ready", "True").await.unwrap();
    ground.until_labelled("silent-0", &images, SOON).await;
    order.ready_on(1, SOON).await;
    fleet.leave().await.unwrap();
}

pub(crate) async fn a_node_replaced_under_its_name_gets_the_images_again(ground: Ground) {
    let images = images("replaced", 3);
    let mut fleet = ground.fleet("replaced", 2, |_| HollowOptions::new(&everything())).await;
    let order = Order::place(
        &ground,
        "replaced",
        json!({"images": images, "nodeSelector": fleet.selector(), "parallelism": "100%"}),
    )
    .await;
    order.ready_on(2, SOON).await;
    let old = fleet.node(1).object().await.unwrap().uid().unwrap();

    fleet.remove(1).await.unwrap();
    fleet.join(1, HollowOptions::new(&everything())).await.unwrap();
    let new = fleet.node(1).object().await.unwrap().uid().unwrap();
    assert_ne!(old, new);
    let owned_by_the_new = |object: Option<&NodeImages>| {
        object.is_some_and(|object| {
            let owners = object.owner_references().iter();
            owners.map(|owner| owner.uid.as_str()).eq([new.as_str()]) && object.spec.images.len() == 3
        })
    };
    ground
        .until_asked("an object of the new node's own", "replaced-1", SOON, owned_by_the_new)
        .await;
    eventually("the new machine to have the images", SOON, async || {
        let held = fleet.node(1).runtime().held();
        Ok(if held == 3 { Look::Done(()) } else { Look::NotYet(held) })
    })
    .await
    .unwrap();
    order.ready_on(2, SOON).await;
    ground.until_labelled("replaced-1", &images, SOON).await;
    // The garbage collector comes late for the object of the old node; it must not take that of the new one.
    let still = ground.node_images("replaced-1").await.unwrap();
    assert!(owned_by_the_new(still.as_ref()), "{still:?}");

    // A node that goes for good takes its object along.
    fleet.remove(0).await.unwrap();
    ground
        .until_asked("the object to go with its node", "replaced-0", SOON, |object| {
            object.is_none()
        })
        .await;
    order.ready_on(1, SOON).await;
    fleet.leave().await.unwrap();
}
