//! How far a Prefetch is.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{
    FailureReason, PrefetchStatus,
    conditions::{self, RECONCILING, STALLED, condition},
    node_images::{DesiredImage, DesiredState, ImageState},
    prefetch::{ImageCounts, MAX_FAILURES, Mode, NodeCounts, NodeFailure},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{NodeView, Wish, Write, assignment::Assignments};

/// Most digests that the status of one image lists.
const MAX_DIGESTS: usize = 8;

/// The write that a Prefetch lacks: its status, or its end.
pub(super) fn write(
    wish: &Wish<'_>,
    nodes: &[NodeView<'_>],
    assignments: &Assignments,
    now: Timestamp,
) -> Option<Write> {
    let metadata = &wish.prefetch.metadata;
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let namespace = wish.prefetch.namespace()?;
    let name = wish.prefetch.name_any();
    if is_expired(wish, now) {
        return Some(Write::DeletePrefetch {
            namespace,
            name,
            uid: metadata.uid.clone()?,
        });
    }
    let counted: Vec<_> = nodes
        .iter()
        .zip(assignments)
        .filter(|(node, _)| node.is_eligible && wish.selects(node.node))
        .collect();
    let status = status(wish, &counted, now);
    (wish.prefetch.status.as_ref() != Some(&status)).then(|| Write::PrefetchStatus {
        namespace,
        name,
        status: Box::new(status),
    })
}

fn is_expired(wish: &Wish<'_>, now: Timestamp) -> bool {
    let completed = wish
        .prefetch
        .status
        .as_ref()
        .and_then(|status| status.completion_time.as_ref());
    match (completed, wish.prefetch.spec.ttl_seconds_after_finished) {
        (Some(completed), Some(ttl)) if wish.prefetch.spec.mode == Mode::Once => {
            // A time that somebody wrote into the status may be any.
            let end = completed.0.checked_add(SignedDuration::from_secs(ttl.into()));
            end.is_ok_and(|end| end <= now)
        }
        _ => false,
    }
}

fn status(
    wish: &Wish<'_>,
    nodes: &[(&NodeView<'_>, &BTreeMap<String, DesiredImage>)],
    now: Timestamp,
) -> PrefetchStatus {
    let previous = wish.prefetch.status.clone().unwrap_or_default();
    let images: Vec<ImageCounts> = wish
        .images
        .iter()
        .map(|(image, spelling)| count_image(image, spelling, nodes))
        .collect();
    let state_on = |node: &NodeView<'_>, state| {
        wish.images.keys().any(|image| {
            node.reported
                .get(image.as_str())
                .is_some_and(|status| status.state == state)
        })
    };
    let is_ready = |node: &NodeView<'_>| wish.images.keys().all(|image| node.holds(image));
    let is_done = |node: &NodeView<'_>| wish.images.keys().all(|image| node.is_settled(image));
    let counts = NodeCounts {
        desired: count(nodes.len()),
        ready: count(nodes.iter().filter(|(node, _)| is_ready(node)).count()),
        pulling: count(
            nodes
                .iter()
                .filter(|(node, _)| state_on(node, ImageState::Pulling))
                .count(),
        ),
        failed: count(
            nodes
                .iter()
                .filter(|(node, _)| state_on(node, ImageState::Failed))
                .count(),
        ),
    };
    let held = nodes
        .iter()
        .filter(|(node, desired)| {
            !is_done(node) && wish.images.keys().all(|image| desired.get(image).is_none_or(is_held))
        })
        .count();
    let is_done = wish.invalid.is_empty() && nodes.iter().all(|(node, _)| is_done(node));
    let failures = failures(wish, nodes);
    let verdict = verdict(wish, counts, held, is_done, &failures);
    let generation = wish.prefetch.metadata.generation;
    let condition = |kind, value, reason: &str, message: String| {
        condition(&previous.conditions, kind, value, reason, message, generation, now)
    };
    let completion_time = previous
        .completion_time
        .filter(|_| wish.prefetch.spec.mode == Mode::Once)
        .or_else(|| (wish.prefetch.spec.mode == Mode::Once && is_done).then(|| conditions::time(now)));
    PrefetchStatus {
        observed_generation: generation,
        conditions: vec![
            condition(
                conditions::READY,
                verdict.is_ready,
                verdict.reason,
                verdict.message.clone(),
            ),
            condition(
                RECONCILING,
                verdict.is_reconciling,
                verdict.reason,
                verdict.message.clone(),
            ),
            condition(STALLED, verdict.is_stalled, verdict.reason, verdict.message),
        ],
        nodes: counts,
        image_count: count(wish.images.len() + wish.invalid.len()),
        images,
        failures,
        start_time: previous.start_time.or_else(|| Some(conditions::time(now))),
        completion_time,
    }
}

fn count_image(image: &str, spelling: &str, nodes: &[(&NodeView<'_>, &BTreeMap<String, DesiredImage>)]) -> ImageCounts {
    let reported = || nodes.iter().filter_map(|(node, _)| node.reported.get(image));
    let in_state = |state| count(reported().filter(|status| status.state == state).count());
    let digests: BTreeSet<&String> = reported().filter_map(|status| status.digest.as_ref()).collect();
    ImageCounts {
        image: spelling.to_owned(),
        desired: count(nodes.len()),
        available: in_state(ImageState::Present),
        pulling: in_state(ImageState::Pulling),
        failed: in_state(ImageState::Failed),
        digests: digests.into_iter().take(MAX_DIGESTS).cloned().collect(),
    }
}

/// What went wrong, newest first: the attempt that is due last failed last, as pauses grow.
fn failures(wish: &Wish<'_>, nodes: &[(&NodeView<'_>, &BTreeMap<String, DesiredImage>)]) -> Vec<NodeFailure> {
    let mut failures: Vec<NodeFailure> = wish
        .invalid
        .iter()
        .map(|error| NodeFailure {
            node: String::new(),
            image: error.reference.clone(),
            reason: FailureReason::InvalidReference,
            message: error.to_string(),
            attempts: 0,
            next_attempt_time: None,
        })
        .collect();
    let mut on_nodes: Vec<NodeFailure> = Vec::new();
    for (node, _) in nodes {
        for (image, spelling) in &wish.images {
            let Some(failure) = node
                .reported
                .get(image.as_str())
                .and_then(|status| status.failure.as_ref())
            else {
                continue;
            };
            on_nodes.push(NodeFailure {
                node: node.name.to_owned(),
                image: (*spelling).to_owned(),
                reason: failure.reason,
                message: failure.message.clone(),
                attempts: failure.attempts,
                next_attempt_time: failure.next_attempt_time.clone(),
            });
        }
    }
    on_nodes.sort_by(|a, b| b.next_attempt_time.cmp(&a.next_attempt_time));
    failures.extend(on_nodes);
    failures.truncate(MAX_FAILURES);
    failures
}

/// What the three conditions say.
struct Verdict {
    is_ready: bool,
    is_reconciling: bool,
    is_stalled: bool,
    reason: &'static str,
    message: String,
}

fn verdict(wish: &Wish<'_>, nodes: NodeCounts, held: usize, is_done: bool, failures: &[NodeFailure]) -> Verdict {
    let verdict = |is_ready, is_reconciling, is_stalled, reason, message| Verdict {
        is_ready,
        is_reconciling,
        is_stalled,
        reason,
        message,
    };
    let images = match wish.images.len() {
        1 => "the image".to_owned(),
        number => format!("all {number} images"),
    };
    let have = format!("{} of {} nodes have {images}", nodes.ready, nodes.desired);
    let first_failure = failures.first().map_or_else(String::new, |failure| {
        let place = if failure.node.is_empty() {
            String::new()
        } else {
            format!(" on {}", failure.node)
        };
        format!(": {}{place}: {}", failure.image, failure.reason)
    });
    if !wish.invalid.is_empty() {
        let bad = counted(
            wish.invalid.len(),
            "entry of spec.images is",
            "entries of spec.images are",
        );
        return verdict(
            false,
            !is_done && !all_settled(nodes),
            true,
            "InvalidReference",
            format!("{bad} not an image reference{first_failure}"),
        );
    }
    if nodes.desired == 0 {
        let message =
            "no eligible node matches the node selector: eligible are Linux nodes that are Ready and not cordoned"
                .to_owned();
        return verdict(true, false, false, "NoNodes", message);
    }
    if nodes.ready == nodes.desired {
        let on = counted(usize::try_from(nodes.desired).unwrap_or(0), "node has", "nodes have");
        return verdict(true, false, false, "AllPresent", format!("{on} {images}"));
    }
    if is_done {
        return verdict(
            false,
            false,
            true,
            "ImagesFailed",
            format!("{have}; {} failed{first_failure}", nodes.failed),
        );
    }
    if wish.prefetch.spec.suspend {
        return verdict(
            false,
            false,
            false,
            "Suspended",
            format!("{have}; the Prefetch is suspended"),
        );
    }
    let message = if held > 0 {
        format!("{have}; {held} wait for their turn")
    } else {
        have
    };
    verdict(false, true, false, "Pulling", message)
}

const fn all_settled(nodes: NodeCounts) -> bool {
    nodes.ready + nodes.failed >= nodes.desired
}

fn is_held(entry: &DesiredImage) -> bool {
    entry.state == DesiredState::Held
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
