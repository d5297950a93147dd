//! Images that nobody wants on a node any more, and that are to be taken off it.
//!
//! There is no finalizer on a Prefetch. The wish to remove stands in the objects of the nodes, beside every entry and from the
//! beginning, so it is there when the Prefetch is gone: an entry that was to be removed becomes `Absent` and stays until its
//! agent says that the image is off the node. A finalizer would tie the deletion of a Prefetch, and of its namespace, to the slowest
//! node, to the controller being there at all, and to images that something still uses. A node that never answers again costs
//! one small object, which goes with the Node.

use coral_api::{
    FailureReason,
    node_images::{DesiredImage, DesiredState, ImageFailure, ImageState, ImageStatus},
    prefetch::{PullPolicy, RemovalPolicy},
};

use super::view::NodeView;

/// The entries of a node that ask for the removal of an image, in the order of the names.
pub(super) fn entries(node: &NodeView<'_>) -> Vec<DesiredImage> {
    let mut entries: Vec<DesiredImage> = unwanted(node)
        .filter(|(asked, reported)| is_to_go(node, asked, *reported))
        .map(|(asked, _)| DesiredImage {
            image: asked.image.clone(),
            pull_as: asked.pull_as.clone(),
            // Whoever asked for it last learns of a removal that is refused.
            requested_by: asked.requested_by.clone(),
            pull_secrets: Vec::new(),
            pull_policy: PullPolicy::IfNotPresent,
            refresh_after: None,
            pin: false,
            priority: asked.priority,
            timeout: asked.timeout,
            backoff_limit: asked.backoff_limit,
            removal_policy: RemovalPolicy::Remove,
            state: DesiredState::Absent,
        })
        .collect();
    entries.sort_by(|a, b| a.image.cmp(&b.image));
    entries
}

/// Removals that the agent of the node could not carry out, because something still needs the image.
pub(super) fn refused<'a>(node: &NodeView<'a>) -> impl Iterator<Item = (&'a DesiredImage, &'a ImageFailure)> {
    unwanted(node).filter_map(|(asked, reported)| {
        let failure = reported?.failure.as_ref()?;
        let is_refused = asked.state == DesiredState::Absent && failure.reason == FailureReason::RemovalRefused;
        is_refused.then_some((asked, failure))
    })
}

/// What the node is asked for and nobody wants there, with what its agent has said.
fn unwanted<'a>(node: &NodeView<'a>) -> impl Iterator<Item = (&'a DesiredImage, Option<&'a ImageStatus>)> {
    let named = node.cells().iter().filter(|cell| cell.askers.is_empty());
    let named = named.filter_map(|cell| Some((cell.asked?, cell.reported)));
    let unnamed = node.unnamed.iter().map(|asked| (*asked, node.reported(&asked.image)));
    named.chain(unnamed)
}

/// Whether the image is to go and is not known to be gone.
fn is_to_go(node: &NodeView<'_>, asked: &DesiredImage, reported: Option<&ImageStatus>) -> bool {
    let is_gone = asked.state == DesiredState::Absent
        && node.is_acknowledged
        && reported.is_some_and(|status| status.state == ImageState::Absent);
    asked.removal_policy == RemovalPolicy::Remove && !is_gone
}
