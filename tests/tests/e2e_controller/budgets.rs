//! How many nodes pull at the same time.

use std::{num::NonZeroUsize, time::Duration};

use coral_controller::Options;
use coral_tests::{cri::Catalogue, hollow::HollowOptions};
use serde_json::json;

use crate::{
    controllers::Running,
    ground::{Ground, PATIENCE, images},
    order::Order,
    truth::assert_true_all_along,
};

const HALF: usize = 150;

/// Two Prefetches, each for one half of the nodes, at the same time.
pub(crate) async fn a_number_and_a_share_are_never_exceeded(ground: Ground) {
    let everything = Catalogue::of_everything(1_000_000);
    let fleet = ground
        .fleet("budget", 2 * HALF, |number| {
            let half = if number < HALF { "one" } else { "two" };
            // Nodes are not equally fast.
            let latency = Duration::from_millis(200 + 20 * u64::try_from(number % 10).unwrap());
            HollowOptions::new(&everything)
                .with_latency(latency)
                .with_label("half", half)
        })
        .await;
    let controller = Running::start(&ground, Options::default());
    let (one, two) = (images("number", 3), images("share", 3));
    let spec = |images: &[String], half: &str, parallelism| {
        json!({
            "images": images,
            "nodeSelector": {"matchLabels": {"half": half}},
            "parallelism": parallelism,
        })
    };
    let number = Order::place(&ground, "number", spec(&one, "one", json!(20))).await;
    let share = Order::place(&ground, "share", spec(&two, "two", json!("15%"))).await;
    tokio::join!(number.ready_on(150, PATIENCE), share.ready_on(150, PATIENCE));

    let timeline = fleet.timeline();
    // 15 % of 150 nodes, rounded up.
    for (order, images, budget) in [(&number, &one, 20), (&share, &two, 23)] {
        assert_true_all_along(order, &timeline, images, budget);
        let of_images = timeline.only(|pull| images.contains(&pull.attempt.image));
        assert_eq!(of_images.pulls().len(), 3 * HALF);
        // A budget that nobody uses is none.
        let most = of_images.most_nodes_at_once();
        assert!(most > budget / 4, "{most} of {budget}");
    }
    drop(controller);
    fleet.leave().await.unwrap();
}

/// Two Prefetches that together would let far more nodes pull than the cluster may.
pub(crate) async fn the_budget_of_the_cluster_is_never_exceeded(ground: Ground) {
    const LIMIT: usize = 30;
    let everything = Catalogue::of_everything(1_000_000);
    let fleet = ground
        .fleet("cluster", 2 * HALF, |number| {
            // A third of the nodes is wanted by both.
            let one = if number < 200 { "yes" } else { "no" };
            let two = if number >= 100 { "yes" } else { "no" };
            HollowOptions::new(&everything)
                .with_latency(Duration::from_millis(300))
                .with_label("one", one)
                .with_label("two", two)
        })
        .await;
    let options = Options {
        max_pulling_nodes: NonZeroUsize::new(LIMIT),
        ..Options::default()
    };
    let controller = Running::start(&ground, options);
    let (first, second) = (images("first", 3), images("second", 3));
    let spec = |images: &[String], key: &str| {
        json!({
            "images": images,
            "nodeSelector": {"matchLabels": {key: "yes"}},
            "parallelism": "100%",
        })
    };
    let one = Order::place(&ground, "first", spec(&first, "one")).await;
    let two = Order::place(&ground, "second", spec(&second, "two")).await;
    tokio::join!(one.ready_on(200, PATIENCE), two.ready_on(200, PATIENCE));

    let timeline = fleet.timeline();
    let most = timeline.most_nodes_at_once();
    assert!(most <= LIMIT, "{most} nodes pulled at the same time, {LIMIT} may");
    assert!(most > LIMIT / 4, "{most} of {LIMIT}");
    assert_true_all_along(&one, &timeline, &first, LIMIT);
    assert_true_all_along(&two, &timeline, &second, LIMIT);
    assert_eq!((timeline.pulls().len(), timeline.most_pulls_of_one_image()), (1200, 1));
    drop(controller);
    fleet.leave().await.unwrap();
}
