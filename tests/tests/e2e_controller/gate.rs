//! New nodes keep their startup taint until what gates them is there.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use coral_api::keys::STARTUP_TAINT;
use coral_controller::Options;
use coral_tests::{
    cri::{Catalogue, Outcome},
    hollow::{HollowNode, HollowOptions},
    wait::{Look, eventually},
};
use serde_json::json;

use crate::{
    controllers::Running,
    ground::{Ground, SOON, images},
    order::Order,
};

const FOREIGN_TAINT: &str = "e2e.coral.invalid/other";

/// A node that registers with the startup taint, and with one of somebody else's.
fn tainted() -> HollowOptions {
    let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    HollowOptions {
        taints: vec![taint(STARTUP_TAINT), taint(FOREIGN_TAINT)],
        ..HollowOptions::new(&Catalogue::of_everything(1_000_000))
    }
}

async fn has_taint(node: &HollowNode, key: &str) -> bool {
    let taints = node.object().await.unwrap().spec.unwrap().taints.unwrap_or_default();
    taints.iter().any(|taint| taint.key == key)
}

/// Waits until the node has lost its startup taint, and sees that it has lost no other.
async fn until_untainted(node: &HollowNode) {
    eventually(
        &format!("{} to lose its startup taint", node.name()),
        SOON,
        async || {
            Ok(if has_taint(node, STARTUP_TAINT).await {
                Look::NotYet("it is there")
            } else {
                Look::Done(())
            })
        },
    )
    .await
    .unwrap();
    assert!(has_taint(node, FOREIGN_TAINT).await);
}

pub(crate) async fn a_new_node_keeps_its_taint_until_the_images_are_there(ground: Ground) {
    let images = images("gate", 4);
    let fleet = ground
        .fleet("gate", 2, |number| HollowOptions {
            max_parallel_pulls: 1,
            ..tainted()
                .with_latency(Duration::from_secs(1))
                .with_label("gated", if number == 0 { "yes" } else { "no" })
        })
        .await;
    // The second one is wanted by nothing that gates.
    let free = fleet.node(1);
    until_untainted(free).await;
    assert_eq!(free.runtime().held(), 0);
    fleet.leave().await.unwrap();

    // A Prefetch comes before the nodes that it gates.
    let spec = json!({
        "images": images,
        "nodeSelector": {"matchLabels": {"gated": "again"}},
        "gate": true,
    });
    let order = Order::place(&ground, "gate", spec).await;
    let fleet = ground
        .fleet("gate", 1, |_| HollowOptions {
            max_parallel_pulls: 1,
            ..tainted()
                .with_latency(Duration::from_secs(1))
                .with_label("gated", "again")
        })
        .await;
    let node = fleet.node(0);
    until_untainted(node).await;
    assert!(node.holds_all(&images), "the gate opened too early");
    order.ready_on(1, SOON).await;
    fleet.leave().await.unwrap();
}

pub(crate) async fn a_node_whose_images_do_not_come_loses_its_taint_in_time(ground: Ground) {
    const GATE_TIMEOUT: Duration = Duration::from_secs(8);
    let images = images("late", 1);
    let options = Options {
        gate_timeout: GATE_TIMEOUT,
        max_pulling_nodes: NonZeroUsize::new(10),
        ..Options::default()
    };
    let controller = Running::start(&ground, options);
    let spec = json!({"images": images, "gate": true});
    let _order = Order::place(&ground, "late", spec).await;
    let began = Instant::now();
    let mut fleet = ground.fleet("late", 0, |_| tainted()).await;
    fleet.join(0, tainted()).await.unwrap();
    let node = fleet.node(0);
    node.runtime().script(&images[0], [Outcome::Hang]);
    until_untainted(node).await;
    let took = began.elapsed();
    // Times of the API have whole seconds.
    assert!(took + Duration::from_secs(1) > GATE_TIMEOUT, "{took:?}");
    assert!(!node.holds_all(&images));
    drop(controller);
    fleet.leave().await.unwrap();
}
