//! How far a Prefetch is.

mod verdict;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use coral_api::{
    FailureReason, ImageReference, PrefetchStatus,
    conditions::{self, RECONCILING, STALLED},
    node_images::{DesiredState, ImageFailure},
    prefetch::{ImageCounts, MAX_FAILURES, Mode, NodeCounts, NodeFailure},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::{
    Wish, Write, removal,
    view::{NodeView, Standing},
};
use verdict::verdict;

/// Most digests that the status of one image lists.
const MAX_DIGESTS: usize = 8;

/// The write that a Prefetch lacks: its status, or its end. `survey` has seen every node that it selects.
pub(super) fn write(survey: Survey<'_>, refusals: &Refusals, now: Timestamp) -> Option<Write> {
    let wish = survey.wish;
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
    let status = if wish.is_complete {
        completed(wish)
    } else {
        status(survey, refusals, now)
    };
    (wish.prefetch.status.as_ref() != Some(&status)).then(|| Write::PrefetchStatus {
        namespace,
        name,
        status: Box::new(status),
    })
}

fn is_expired(wish: &Wish<'_>, now: Timestamp) -> bool {
    let status = wish.prefetch.status.as_ref().filter(|_| wish.is_complete);
    let completed = status.and_then(|status| status.completion_time.as_ref());
    match (completed, wish.prefetch.spec.ttl_seconds_after_finished) {
        (Some(completed), Some(ttl)) => {
            // A time that somebody wrote into the status may be any.
            let end = completed.0.checked_add(SignedDuration::from_secs(ttl.into()));
            end.is_ok_and(|end| end <= now)
        }
        _ => false,
    }
}

/// What a Prefetch that is done says for good: how it was at the end. Images that go later, and nodes that come, change nothing.
fn completed(wish: &Wish<'_>) -> PrefetchStatus {
    let mut status = wish.prefetch.status.clone().unwrap_or_default();
    let generation = wish.prefetch.metadata.generation;
    status.observed_generation = generation;
    for condition in &mut status.conditions {
        condition.observed_generation = generation;
    }
    status
}

fn status(survey: Survey<'_>, refusals: &Refusals, now: Timestamp) -> PrefetchStatus {
    let wish = survey.wish;
    let previous = wish.prefetch.status.as_ref();
    let conditions: &[Condition] = previous.map_or(&[], |status| &status.conditions);
    let generation = wish.prefetch.metadata.generation;
    let failures = failures(wish, &survey, refusals);
    let verdict = verdict(wish, &survey, &failures);
    let condition = |kind, value| {
        let message = verdict.message.clone();
        conditions::condition(conditions, kind, value, verdict.reason, message, generation, now)
    };
    let is_finished = wish.prefetch.spec.mode == Mode::Once && survey.nodes.desired > 0 && survey.is_done(wish);
    PrefetchStatus {
        observed_generation: generation,
        conditions: vec![
            condition(conditions::READY, verdict.is_ready),
            condition(RECONCILING, verdict.is_reconciling),
            condition(STALLED, verdict.is_stalled),
        ],
        nodes: survey.nodes,
        image_count: count(wish.images.len() + wish.invalid.len()),
        images: survey.images(),
        failures,
        start_time: previous
            .and_then(|status| status.start_time.clone())
            .or_else(|| Some(conditions::time(now))),
        completion_time: is_finished.then(|| conditions::time(now)),
    }
}

/// The eligible nodes of a Prefetch, each looked at once.
pub(super) struct Survey<'a> {
    wish: &'a Wish<'a>,
    nodes: NodeCounts,
    images: Vec<ImageCounts>,
    /// The digests of each image.
    digests: Vec<BTreeSet<&'a str>>,
    /// Nodes on which every image is there or has failed.
    done: i32,
    /// Nodes on which something is missing and nothing may be pulled yet.
    held: i32,
    /// Nodes that the Prefetch selects and that do not count.
    ineligible: i32,
    failures: Vec<(&'a NodeView<'a>, &'a str, &'a ImageFailure)>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(wish: &'a Wish<'a>) -> Self {
        Self {
            wish,
            nodes: NodeCounts::default(),
            images: vec![ImageCounts::default(); wish.images.len()],
            digests: vec![BTreeSet::new(); wish.images.len()],
            done: 0,
            held: 0,
            ineligible: 0,
            failures: Vec::new(),
        }
    }

    /// Looks at a node that the Prefetch selects.
    pub(super) fn look_at(&mut self, node: &'a NodeView<'a>) {
        // What one that is done says, it says for good.
        if self.wish.is_complete {
            return;
        }
        if !node.is_eligible {
            self.ineligible += 1;
            return;
        }
        self.nodes.desired += 1;
        let (mut missing, mut failed, mut pulled, mut released) = (0, 0, 0, 0);
        let images = self.wish.images.iter().zip(node.cells_of(self.wish));
        for (((image, cell), counts), digests) in images.zip(&mut self.images).zip(&mut self.digests) {
            let Some(cell) = cell else {
                missing += 1;
                continue;
            };
            if let Some(digest) = cell.reported.and_then(|status| status.digest.as_deref())
                && !digests.contains(digest)
            {
                digests.insert(digest);
            }
            if let Some(failure) = cell.reported_failure() {
                self.failures.push((node, image.spelling, failure));
            }
            if cell.standing() == Standing::There {
                counts.available += 1;
                continue;
            }
            missing += 1;
            released += usize::from(cell.is_released || cell.is_asked(DesiredState::Present));
            if cell.has_failed() {
                counts.failed += 1;
                failed += 1;
            } else if cell.standing() == Standing::Pulling {
                counts.pulling += 1;
                pulled += 1;
            }
        }
        // Each node counts once, so that the numbers add up.
        self.nodes.ready += i32::from(missing == 0);
        self.nodes.failed += i32::from(failed > 0);
        self.nodes.pulling += i32::from(failed == 0 && pulled > 0);
        self.done += i32::from(missing == failed);
        self.held += i32::from(missing > failed && released == 0);
    }

    /// What there is to say of each image.
    fn images(self) -> Vec<ImageCounts> {
        let images = self.images.into_iter().zip(&self.wish.images).zip(self.digests);
        images
            .map(|((counts, image), digests)| ImageCounts {
                image: image.spelling.to_owned(),
                desired: self.nodes.desired,
                digests: digests.into_iter().take(MAX_DIGESTS).map(ToOwned::to_owned).collect(),
                ..counts
            })
            .collect()
    }

    /// Whether nothing is left to do but to try again what has failed.
    fn is_done(&self, wish: &Wish<'_>) -> bool {
        wish.invalid.is_empty() && wish.selector.is_ok() && self.done == self.nodes.desired
    }
}

/// Removals that nodes could not carry out, by the Prefetch that wanted the image last.
#[derive(Default)]
pub(super) struct Refusals(HashMap<String, Vec<NodeFailure>>);

impl Refusals {
    /// Takes in what a node has refused.
    pub(super) fn look_at(&mut self, node: &NodeView<'_>) {
        for (asked, failure) in removal::refused(node) {
            let image = asked.image.parse::<ImageReference>();
            let image = image.map_or_else(|_| asked.image.clone(), |image| image.familiar());
            for key in &asked.requested_by {
                let of_prefetch = self.0.entry(key.clone()).or_default();
                if of_prefetch.len() < MAX_FAILURES {
                    of_prefetch.push(on_node(node, &image, failure));
                }
            }
        }
    }
}

/// What went wrong: what is wrong with the Prefetch itself, then what failed on nodes, newest first, then removals that were refused.
fn failures(wish: &Wish<'_>, survey: &Survey<'_>, refusals: &Refusals) -> Vec<NodeFailure> {
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
    let mut on_nodes: Vec<_> = survey.failures.iter().collect();
    // The attempt that is due last failed last, as pauses grow. The sort is stable: then the order of nodes and images.
    on_nodes.sort_by_key(|(_, _, failure)| Reverse(failure.next_attempt_time.as_ref().map(|time| time.0)));
    let on_nodes = on_nodes.into_iter().take(MAX_FAILURES);
    failures.extend(on_nodes.map(|(node, image, failure)| on_node(node, image, failure)));
    failures.extend(refusals.0.get(&wish.key).into_iter().flatten().cloned());
    failures.truncate(MAX_FAILURES);
    failures
}

fn on_node(node: &NodeView<'_>, image: &str, failure: &ImageFailure) -> NodeFailure {
    NodeFailure {
        node: node.name.to_owned(),
        image: image.to_owned(),
        reason: failure.reason,
        message: failure.message.clone(),
        attempts: failure.attempts,
        next_attempt_time: failure.next_attempt_time.clone(),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
