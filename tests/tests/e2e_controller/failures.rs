//! Nodes on which images fail.

use std::{collections::BTreeSet, time::Duration};

use coral_api::{
    FailureReason, PrefetchStatus,
    conditions::{self, READY, RECONCILING, STALLED},
    prefetch::MAX_FAILURES,
};
use coral_controller::Options;
use coral_tests::{
    cri::{Catalogue, Flavour},
    hollow::HollowOptions,
    wait::{Look, eventually},
};
use serde_json::json;

use crate::{
    controllers::Running,
    ground::{Ground, PATIENCE, images},
    order::{Order, reason},
    truth::assert_true_all_along,
};

const NODES: usize = 300;
const BUDGET: usize = NODES / 4;

/// The registry mirror of every tenth node lacks two of the images.
pub(crate) async fn a_tenth_of_the_nodes_fails_and_the_status_is_true(ground: Ground) {
    let images = images("tenth", 6);
    let (lacking, there) = images.split_at(2);
    let everything = Catalogue::of_everything(1_000_000);
    let mirror = Catalogue::default();
    for image in there {
        mirror.publish(image, image, 1_000_000);
    }
    let fails = |number: usize| number % 10 == 3;
    let fleet = ground
        .fleet("tenth", NODES, |number| {
            let catalogue = if fails(number) { &mirror } else { &everything };
            let flavour = if number % 4 == 3 {
                Flavour::CriO
            } else {
                Flavour::Containerd
            };
            HollowOptions {
                flavour,
                ..HollowOptions::new(catalogue).with_latency(Duration::from_millis(50))
            }
        })
        .await;
    let controller = Running::start(&ground, Options::default());
    let order = Order::place(&ground, "tenth", json!({"images": images, "backoffLimit": 2})).await;
    // What is tried again for ever is Pulling for a moment, now and then: what is waited for is the moment when nothing is.
    let is_settled = |status: &PrefetchStatus| {
        let nodes = status.nodes;
        conditions::is_true(&status.conditions, STALLED)
            && nodes.pulling == 0
            && nodes.ready + nodes.failed == nodes.desired
    };
    let status = order.until("it to be settled", PATIENCE, is_settled).await;

    assert_eq!(reason(&status), "ImagesFailed");
    assert!(!conditions::is_true(&status.conditions, READY));
    assert!(!conditions::is_true(&status.conditions, RECONCILING));
    let nodes = status.nodes;
    assert_eq!((nodes.desired, nodes.ready, nodes.failed), (300, 270, 30));
    for image in &status.images {
        let holders = fleet.nodes().filter(|node| node.runtime().holds(&image.image)).count();
        let failed = if lacking.contains(&image.image) { 30 } else { 0 };
        let counts = (image.desired, usize::try_from(image.available).unwrap(), image.failed);
        assert_eq!(counts, (300, holders, failed), "{image:?}");
        assert_eq!(holders, if failed == 0 { NODES } else { 270 });
    }
    // 60 failures, of which as many are told as there is room for, each of them a true one.
    assert_eq!(status.failures.len(), MAX_FAILURES);
    let told: BTreeSet<(&str, &str)> = status
        .failures
        .iter()
        .map(|failure| (failure.node.as_str(), failure.image.as_str()))
        .collect();
    assert_eq!(told.len(), MAX_FAILURES, "one of them is told twice");
    for failure in &status.failures {
        let number: usize = failure.node.strip_prefix("tenth-").unwrap().parse().unwrap();
        assert!(fails(number) && lacking.contains(&failure.image), "{failure:?}");
        assert_eq!(failure.reason, FailureReason::NotFound);
        let attempts = fleet.node(number).runtime().attempts_at(&failure.image).len();
        let told = usize::try_from(failure.attempts).unwrap();
        assert!((2..=attempts).contains(&told), "{attempts} attempts: {failure:?}");
    }
    // Nodes that fail do not go on beside the budget, and their attempts grow apart also when turns are given anew for each.
    let of_those_that_fail = || {
        let failing = (0..NODES).filter(|number| fails(*number));
        failing.flat_map(|number| {
            let node = fleet.node(number);
            lacking.iter().map(move |image| node.runtime().attempts_at(image))
        })
    };
    eventually("every node to have tried again twice", PATIENCE, async || {
        let fewest = of_those_that_fail().map(|attempts| attempts.len()).min();
        Ok(if fewest >= Some(4) {
            Look::Done(())
        } else {
            Look::NotYet(fewest)
        })
    })
    .await
    .unwrap();
    for attempts in of_those_that_fail() {
        for (before, pair) in attempts.windows(2).enumerate() {
            let pause = pair[1].began - pair[0].ended.unwrap().0;
            // 1, 2, 4, … seconds, a quarter less at most. When a turn may be given is known to the second.
            let least = (Duration::from_millis(700) * (1 << before)).saturating_sub(Duration::from_secs(1));
            assert!(pause >= least, "{pause:?} before attempt {}", before + 2);
        }
    }
    assert_true_all_along(&order, &fleet.timeline(), &images, BUDGET);

    // The mirror is mended, and nobody has to do anything.
    for image in lacking {
        mirror.publish(image, image, 1_000_000);
    }
    order.ready_on(300, PATIENCE).await;
    assert!(fleet.nodes().all(|node| node.holds_all(&images)));
    let timeline = fleet.timeline();
    assert_true_all_along(&order, &timeline, &images, BUDGET);
    // What failed is tried again, what succeeded is not.
    let again = timeline.only(|pull| !lacking.contains(&pull.attempt.image));
    assert_eq!(again.most_pulls_of_one_image(), 1);
    drop(controller);
    fleet.leave().await.unwrap();
}
