//! Hundreds of nodes.

use std::time::{Duration, Instant};

use coral_controller::Options;
use coral_tests::{
    cri::Catalogue,
    hollow::{HollowNode, HollowOptions},
};
use serde_json::json;

use crate::{
    controllers::Running,
    ground::{Ground, PATIENCE, images},
    order::Order,
    truth::assert_true_all_along,
};

const NODES: usize = 300;
pub(crate) async fn twenty_images_reach_three_hundred_nodes(ground: Ground) {
    let images = images("scale", 20);
    let everything = Catalogue::of_everything(1_000_000);
    let fleet = ground
        .fleet("scale", NODES, |number| {
            // Nodes are not equally fast.
            let latency = Duration::from_millis(50 + 10 * u64::try_from(number % 10).unwrap());
            HollowOptions::new(&everything).with_latency(latency)
        })
        .await;
    let controller = Running::start(&ground, Options::default());
    let began = Instant::now();
    let order = Order::place(&ground, "scale", json!({"images": images})).await;
    let status = order.ready_on(300, PATIENCE).await;
    let took = began.elapsed();
    ground.until_all_labelled(&fleet, &images, PATIENCE).await;

    assert!(fleet.nodes().all(|node| node.holds_all(&images)));
    for image in &status.images {
        assert_eq!(
            (image.desired, image.available, image.digests.len()),
            (300, 300, 1),
            "{image:?}"
        );
    }
    let timeline = fleet.timeline();
    // A quarter of the nodes, which is the default.
    assert_true_all_along(&order, &timeline, &images, NODES / 4);
    assert_eq!(
        (timeline.pulls().len(), timeline.most_pulls_of_one_image()),
        (20 * NODES, 1)
    );

    for node in fleet.nodes().map(HollowNode::name) {
        let work = timeline.only(|pull| pull.node == node).duration();
        let agent = fleet.tally().writes_to(&format!("/nodeimages/{node}/status"));
        let specs = controller.tally.writes_to(&format!("/nodeimages/{node}"));
        let labels = controller.tally.writes_to(&format!("/nodes/{node}"));
        // Both that it waits and that its turn has come are acknowledged, the end is told at once, and what moves every two seconds,
        // first and last and one that has begun included.
        let most = 4 + usize::try_from(work.as_millis().div_ceil(2_000)).unwrap();
        assert!(
            agent <= most,
            "{node}: {agent} writes by its agent, which had {work:?} of work"
        );
        assert!(
            labels <= agent && specs <= 2,
            "{node}: {labels} writes of its labels, {specs} of its spec"
        );
    }
    // One in two seconds, and one for each change of a condition.
    let most = usize::try_from(took.as_secs()).unwrap() / 2 + 6;
    let writes = controller.tally.writes_to("/prefetches/scale/status");
    assert!(writes <= most, "{writes} writes of the status in {took:?}");
    assert!(controller.is_running());
    fleet.leave().await.unwrap();
}
