//! What the controller relies on dies in the middle of the work, or it does itself.

use std::time::{Duration, Instant};

use coral_controller::{LeaseOptions, Options};
use coral_tests::{
    cri::Catalogue,
    hollow::{Fleet, HollowOptions},
    wait::{Look, eventually},
};
use serde_json::json;

use crate::{
    controllers::Running,
    ground::{Ground, PATIENCE, SOON, images},
    order::Order,
    truth::assert_true_all_along,
};

const NODES: usize = 300;
/// A tenth of the nodes at a time, so that the middle is long enough to hit.
const BUDGET: usize = 30;
/// The longest time from the death of a leader to the first write of the next.
const HAND_OVER: Duration = Duration::from_secs(20);

async fn fleet(ground: &Ground, name: &str) -> Fleet {
    let everything = Catalogue::of_everything(1_000_000);
    let options = |_| HollowOptions::new(&everything).with_latency(Duration::from_millis(200));
    ground.fleet(name, NODES, options).await
}

/// Waits until a third of the nodes has every image.
async fn until_the_middle(order: &Order) {
    order
        .until("a third of the nodes", PATIENCE, |status| status.nodes.ready >= 100)
        .await;
}

/// All is there, and it came to be as if nothing had happened.
async fn assert_nothing_is_lost(ground: &Ground, order: &Order, fleet: &Fleet, images: &[String]) {
    order.ready_on(300, PATIENCE).await;
    ground.until_all_labelled(fleet, images, PATIENCE).await;
    assert!(fleet.nodes().all(|node| node.holds_all(images)));
    let timeline = fleet.timeline();
    assert_true_all_along(order, &timeline, images, BUDGET);
    let pulls = timeline.pulls().len();
    assert_eq!(
        (pulls, timeline.most_pulls_of_one_image()),
        (images.len() * NODES, 1),
        "an image was pulled again"
    );
}

pub(crate) async fn a_killed_leader_in_the_middle_loses_nothing(ground: Ground) {
    let images = images("leader", 5);
    let fleet = fleet(&ground, "leader").await;
    let start = |identity: &str| {
        let options = Options {
            lease: Some(LeaseOptions::new("default", "coral-controller")),
            identity: identity.to_owned(),
            ..Options::default()
        };
        Running::start(&ground, options)
    };
    let first = start("first");
    eventually("the first to lead", SOON, async || {
        Ok(if first.metrics.is_leader() {
            Look::Done(())
        } else {
            Look::NotYet("it does not")
        })
    })
    .await
    .unwrap();
    let second = start("second");
    let order = Order::place(&ground, "leader", json!({"images": images, "parallelism": "10%"})).await;
    until_the_middle(&order).await;

    // Whoever does not hold the Lease writes nothing but the Lease.
    let of_coral = |running: &Running| {
        let writes = running.tally.paths().into_iter();
        writes
            .filter(|(path, _)| !path.contains("/leases"))
            .map(|(_, count)| count)
            .sum::<usize>()
    };
    assert_eq!(of_coral(&second), 0);
    assert!(!second.metrics.is_leader());
    let killed = Instant::now();
    first.kill();
    eventually("the second to write", SOON, async || {
        let writes = of_coral(&second);
        Ok(if writes > 0 {
            Look::Done(())
        } else {
            Look::NotYet(writes)
        })
    })
    .await
    .unwrap();
    let took = killed.elapsed();
    assert!(took < HAND_OVER, "the hand-over took {took:?}");
    assert!(second.metrics.is_leader());

    assert_nothing_is_lost(&ground, &order, &fleet, &images).await;
    drop(second);
    fleet.leave().await.unwrap();
}

pub(crate) async fn an_api_server_that_restarts_in_the_middle_loses_nothing(ground: Ground) {
    let images = images("restart", 5);
    let fleet = fleet(&ground, "restart").await;
    let controller = Running::start(&ground, Options::default());
    let order = Order::place(&ground, "restart", json!({"images": images, "parallelism": "10%"})).await;
    until_the_middle(&order).await;
    ground.plane.kill_api_server().unwrap();
    ground.plane.heal().await.unwrap();
    assert_nothing_is_lost(&ground, &order, &fleet, &images).await;
    assert!(controller.is_running());
    drop(controller);
    fleet.leave().await.unwrap();
}
