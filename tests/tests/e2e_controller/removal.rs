//! `removalPolicy: Remove`: what nobody wants any more leaves the nodes.

use coral_api::NodeImages;
use coral_tests::{
    cri::Catalogue,
    hollow::{Fleet, HollowOptions},
    wait::{Look, eventually},
};
use serde_json::json;

use crate::{
    ground::{Ground, SOON, images},
    order::Order,
};

fn everything() -> Catalogue {
    Catalogue::of_everything(1_000_000)
}

/// Waits until no runtime of the fleet holds any of these images.
async fn until_removed(fleet: &Fleet, images: &[String]) {
    eventually("the runtimes to be rid of the images", SOON, async || {
        let holds = |image: &&String| fleet.nodes().any(|node| node.runtime().holds(image));
        let left: Vec<&String> = images.iter().filter(holds).collect();
        Ok(if left.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(left.len())
        })
    })
    .await
    .unwrap();
}

/// Waits until every node is asked for these images and nothing else.
async fn until_only_asked_for(ground: &Ground, fleet: &Fleet, images: &[String]) {
    for node in fleet.nodes() {
        let is_so = |object: Option<&NodeImages>| {
            let asked = object.into_iter().flat_map(|object| &object.spec.images);
            let mut asked: Vec<&str> = asked.map(|entry| entry.image.as_str()).collect();
            asked.sort_unstable();
            asked == images.iter().map(String::as_str).collect::<Vec<_>>()
        };
        ground
            .until_asked("the entries of what is gone to go", node.name(), SOON, is_so)
            .await;
    }
}

pub(crate) async fn a_deleted_prefetch_takes_its_images_away_but_not_those_of_others(ground: Ground) {
    let all = images("removed", 5);
    let (own, shared) = all.split_at(3);
    let fleet = ground.fleet("removed", 4, |_| HollowOptions::new(&everything())).await;
    // What was there before Coral, and what Coral was never asked for.
    let foreign = "registry.example/foreign:v1";
    for node in fleet.nodes() {
        node.runtime().hold(foreign).unwrap();
    }
    let spec = |images: &[String], removal_policy: &str| {
        json!({
            "images": images,
            "nodeSelector": fleet.selector(),
            "parallelism": "100%",
            "removalPolicy": removal_policy,
        })
    };
    let goes = Order::place(&ground, "removed-goes", spec(&all, "Remove")).await;
    let stays = Order::place(&ground, "removed-stays", spec(shared, "Retain")).await;
    goes.ready_on(4, SOON).await;
    stays.ready_on(4, SOON).await;

    goes.delete().await;
    // Nothing holds the deletion up.
    goes.until_gone(std::time::Duration::from_secs(2)).await;
    until_removed(&fleet, own).await;
    until_only_asked_for(&ground, &fleet, shared).await;
    for node in fleet.nodes() {
        assert!(node.holds_all(shared) && node.runtime().holds(foreign));
        ground.until_labelled(node.name(), shared, SOON).await;
    }
    stays.ready_on(4, SOON).await;
    assert_eq!(fleet.timeline().most_pulls_of_one_image(), 1);

    // The other one only retains: what it wanted stays when it goes.
    stays.delete().await;
    until_only_asked_for(&ground, &fleet, &[]).await;
    assert!(fleet.nodes().all(|node| node.holds_all(shared)));
    fleet.leave().await.unwrap();
}

pub(crate) async fn an_image_that_leaves_the_list_is_taken_away(ground: Ground) {
    let all = images("shorter", 3);
    let (first, rest) = all.split_at(1);
    let fleet = ground.fleet("shorter", 3, |_| HollowOptions::new(&everything())).await;
    let spec = json!({
        "images": all,
        "nodeSelector": fleet.selector(),
        "parallelism": "100%",
        "removalPolicy": "Remove",
    });
    let order = Order::place(&ground, "shorter", spec).await;
    order.ready_on(3, SOON).await;
    order.change(json!({"images": rest})).await;
    until_removed(&fleet, first).await;
    until_only_asked_for(&ground, &fleet, rest).await;
    order.ready_on(3, SOON).await;
    assert!(fleet.nodes().all(|node| node.holds_all(rest)));

    // Wanted again, it comes again.
    order.change(json!({"images": all})).await;
    eventually("the image to be back", SOON, async || {
        let holders = fleet.nodes().filter(|node| node.holds_all(&all)).count();
        Ok(if holders == 3 {
            Look::Done(())
        } else {
            Look::NotYet(holders)
        })
    })
    .await
    .unwrap();
    order.ready_on(3, SOON).await;
    for node in fleet.nodes() {
        ground.until_labelled(node.name(), &all, SOON).await;
    }
    fleet.leave().await.unwrap();
}
