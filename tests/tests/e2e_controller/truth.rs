//! What a Prefetch said all along, against what the runtimes really did.

use coral_tests::hollow::Timeline;

use crate::order::Order;

/// Every status that anybody could have read was true: no node was called ready before its runtime had every image, counts add
/// up, and no more nodes pulled than `budget`, by the word of the status as by the runtimes.
pub(crate) fn assert_true_all_along(order: &Order, timeline: &Timeline, images: &[String], budget: usize) {
    let of_images = timeline.only(|pull| images.contains(&pull.attempt.image));
    let most = of_images.most_nodes_at_once();
    assert!(most <= budget, "{most} nodes pulled at the same time, {budget} may");
    for seen in order.history() {
        let nodes = seen.status.nodes;
        let complete = of_images.complete_nodes(images, seen.at).len();
        assert!(
            usize::try_from(nodes.ready).unwrap() <= complete,
            "{nodes:?}, but {complete} nodes have every image"
        );
        assert!(nodes.ready + nodes.failed <= nodes.desired, "{nodes:?}");
        assert!(usize::try_from(nodes.pulling).unwrap() <= budget, "{nodes:?}");
        for image in &seen.status.images {
            assert!(image.available + image.failed <= image.desired, "{image:?}");
        }
    }
}
