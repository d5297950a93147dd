//! Keep and Once, suspend, and that all is quiet when all is well.

use std::time::{Duration, SystemTime};

use coral_api::{PrefetchStatus, node_images::ImageState};
use coral_tests::{
    cri::Catalogue,
    hollow::{HollowNode, HollowOptions},
};
use serde_json::json;

use crate::{
    ground::{Ground, SOON, images},
    order::{Order, reason},
};

/// The agent looks every 10 s; this is time enough to see what a look shows.
const A_LOOK: Duration = Duration::from_secs(15);

fn everything() -> Catalogue {
    Catalogue::of_everything(1_000_000)
}

pub(crate) async fn once_is_done_when_done(ground: Ground) {
    let images = images("once", 2);
    let mut fleet = ground.fleet("once", 2, |_| HollowOptions::new(&everything())).await;
    let spec = json!({"images": images, "nodeSelector": fleet.selector(), "mode": "Once"});
    let order = Order::place(&ground, "once", spec).await;
    let status = order.ready_on(2, SOON).await;
    let is_complete = |status: &PrefetchStatus| status.completion_time.is_some();
    let complete = order.until("its end", SOON, is_complete).await;
    assert!(complete.completion_time >= status.start_time);

    // What vanishes afterwards is not fetched again, and new nodes are asked for nothing.
    assert!(fleet.node(0).runtime().vanish(&images[0]));
    fleet.join(2, HollowOptions::new(&everything())).await.unwrap();
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(fleet.timeline().pulls().len(), 4);
    assert!(ground.node_images("once-2").await.unwrap().is_none());
    let last = order.history().pop().unwrap().status;
    assert_eq!(last.completion_time, complete.completion_time);
    fleet.leave().await.unwrap();
}

pub(crate) async fn once_goes_after_its_time(ground: Ground) {
    let images = images("ttl", 2);
    let fleet = ground.fleet("ttl", 2, |_| HollowOptions::new(&everything())).await;
    let spec = json!({
        "images": images,
        "nodeSelector": fleet.selector(),
        "mode": "Once",
        "ttlSecondsAfterFinished": 4,
    });
    let order = Order::place(&ground, "ttl", spec).await;
    let is_complete = |status: &PrefetchStatus| status.completion_time.is_some();
    let complete = order.until("its end", SOON, is_complete).await.completion_time.unwrap();
    order.until_gone(SOON).await;
    let took = SystemTime::from(complete.0).elapsed().unwrap();
    assert!(took >= Duration::from_secs(4), "{took:?}");
    // The images stay where they are, and nobody is asked for them any more.
    assert!(fleet.nodes().all(|node| node.holds_all(&images)));
    for node in fleet.nodes() {
        let nothing = |object: Option<&coral_api::NodeImages>| object.is_none();
        ground
            .until_asked("nothing to be asked", node.name(), SOON, nothing)
            .await;
        ground.until_labelled(node.name(), &[], SOON).await;
    }
    fleet.leave().await.unwrap();
}

pub(crate) async fn suspend_stops_what_has_not_begun(ground: Ground) {
    let images = images("suspend", 2);
    let fleet = ground
        .fleet("suspend", 8, |_| {
            HollowOptions::new(&everything()).with_latency(Duration::from_secs(4))
        })
        .await;
    let spec = json!({
        "images": images,
        "nodeSelector": fleet.selector(),
        "parallelism": 2,
        "suspend": true,
    });
    let order = Order::place(&ground, "suspend", spec).await;
    let is_suspended = |status: &PrefetchStatus| reason(status) == "Suspended";
    order.until("it to be suspended", SOON, is_suspended).await;
    assert_eq!(fleet.timeline().pulls().len(), 0);

    order.change(json!({"suspend": false})).await;
    let is_pulling = |status: &PrefetchStatus| status.nodes.pulling > 0;
    order.until("the first nodes to pull", SOON, is_pulling).await;
    order.change(json!({"suspend": true})).await;
    order.until("it to be suspended", SOON, is_suspended).await;
    // What had begun goes on to its end; after that it is quiet.
    let is_quiet = |status: &PrefetchStatus| is_suspended(status) && status.nodes.pulling == 0;
    order.until("what had begun to end", SOON, is_quiet).await;
    let begun = fleet.timeline();
    let nodes: std::collections::BTreeSet<&str> = begun.pulls().iter().map(|pull| pull.node.as_str()).collect();
    assert!(nodes.len() <= 4, "the suspension came late: {nodes:?}");
    assert_eq!(begun.ended(coral_tests::cri::Ending::Succeeded), begun.pulls().len());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(fleet.timeline().pulls().len(), begun.pulls().len());

    order.change(json!({"suspend": false})).await;
    order.ready_on(8, SOON).await;
    assert!(fleet.timeline().most_nodes_at_once() <= 2);
    fleet.leave().await.unwrap();
}

pub(crate) async fn nothing_is_written_when_nothing_changes(ground: Ground) {
    let images = images("quiet", 20);
    let fleet = ground.fleet("quiet", 4, |_| HollowOptions::new(&everything())).await;
    let spec = json!({"images": images, "nodeSelector": fleet.selector(), "parallelism": "100%"});
    let order = Order::place(&ground, "quiet", spec).await;
    order.ready_on(4, SOON).await;
    for node in fleet.nodes() {
        ground.until_labelled(node.name(), &images, SOON).await;
    }
    // By agent and controller together; what the design promises for 20 images on a node.
    for node in fleet.nodes().map(HollowNode::name) {
        let agent = fleet.tally().writes_to(&format!("/nodeimages/{node}/status"));
        let controller = ground.shared.writes_to(&format!("/{node}"));
        assert!(
            agent + controller <= 8,
            "{node}: {agent} writes by its agent, {controller} by the controller"
        );
    }
    // The counts in the status may follow the condition by two seconds.
    let is_told = |status: &PrefetchStatus| status.images.iter().all(|image| image.available == 4);
    order.until("everything to be told", SOON, is_told).await;
    let versions = async || {
        let (mut versions, mut writes) = (Vec::new(), 0);
        for node in fleet.nodes() {
            let object = ground.node_images(node.name()).await.unwrap().unwrap();
            let status = object.status.unwrap();
            assert!(status.images.iter().all(|image| image.state == ImageState::Present));
            versions.push(object.metadata.resource_version);
            // Others write Nodes, too.
            writes += ground.shared.writes_to(&format!("/{}", node.name()));
        }
        writes += ground.shared.writes_to("/prefetches/quiet/status");
        (versions, writes, fleet.tally().writes())
    };
    let before = versions().await;
    tokio::time::sleep(2 * A_LOOK).await;
    assert_eq!(versions().await, before);
    fleet.leave().await.unwrap();
}
