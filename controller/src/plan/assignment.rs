//! Which node is asked for which images, and whose turn it is.

use std::collections::BTreeMap;

use coral_api::{
    NodeImagesSpec, conditions,
    node_images::{DesiredImage, DesiredState, SecretReference},
    prefetch::{PullPolicy, RemovalPolicy},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{NodeView, Slots, Wish, Write};

/// What each node is asked for, by image; in the order of the nodes.
pub(super) type Assignments = Vec<BTreeMap<String, DesiredImage>>;

/// Gives every node its images, and the turns of every Prefetch to its nodes.
pub(super) fn assign(
    wishes: &[Wish<'_>],
    nodes: &[NodeView<'_>],
    previous: &Slots,
    now: Timestamp,
) -> (Assignments, Slots) {
    let mut assignments: Assignments = vec![BTreeMap::new(); nodes.len()];
    for wish in wishes {
        for (node, desired) in nodes.iter().zip(&mut assignments) {
            if wish.selects(node.node) {
                want(wish, node, desired, now);
            }
        }
    }
    let mut slots = Slots::default();
    for wish in in_order(wishes) {
        give_turns(wish, nodes, &mut assignments, previous, &mut slots, now);
    }
    (assignments, slots)
}

/// The write that brings a node's object to what the node is asked for.
pub(super) fn write(node: &NodeView<'_>, desired: &BTreeMap<String, DesiredImage>) -> Option<Write> {
    if desired.is_empty() {
        return node.object.map(|_| Write::DeleteNodeImages {
            node: node.name.to_owned(),
        });
    }
    let mut images: Vec<DesiredImage> = desired.values().cloned().collect();
    images.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.image.cmp(&b.image)));
    let spec = NodeImagesSpec {
        paused: crate::node::pause_reason(node.node),
        images,
    };
    let node_uid = node.node.metadata.uid.clone()?;
    let is_as_it_should_be = node.object.is_some_and(|object| {
        object.spec == spec && object.owner_references().iter().any(|owner| owner.uid == node_uid)
    });
    (!is_as_it_should_be).then(|| Write::NodeImages {
        node: node.name.to_owned(),
        node_uid,
        spec,
    })
}

/// Adds what the Prefetch wants to what the node is asked for, held back for now.
fn want(wish: &Wish<'_>, node: &NodeView<'_>, desired: &mut BTreeMap<String, DesiredImage>, now: Timestamp) {
    let spec = &wish.prefetch.spec;
    for image in wish.images.keys() {
        // A node that is not ready, or about to go, keeps what it has and is asked for nothing more.
        let is_asked_already = asked(node, image).is_some();
        if !is_asked_already && (!node.is_eligible || wish.is_complete()) {
            continue;
        }
        let entry = desired.entry(image.clone()).or_insert_with(|| DesiredImage {
            image: image.clone(),
            requested_by: Vec::new(),
            pull_secrets: Vec::new(),
            pull_policy: PullPolicy::IfNotPresent,
            refresh_after: None,
            pin: false,
            priority: spec.priority,
            timeout: spec.timeout,
            backoff_limit: spec.backoff_limit,
            removal_policy: RemovalPolicy::Retain,
            state: DesiredState::Held,
        });
        // Prefetches come in the order of their keys, so this stays sorted. The schema bounds the list.
        if entry.requested_by.len() < MAX_REQUESTERS {
            entry.requested_by.push(wish.key.clone());
        }
        for secret in &spec.image_pull_secrets {
            let secret = SecretReference {
                namespace: wish.prefetch.namespace().unwrap_or_default(),
                name: secret.name.clone(),
            };
            if entry.pull_secrets.len() < MAX_PULL_SECRETS && !entry.pull_secrets.contains(&secret) {
                entry.pull_secrets.push(secret);
            }
        }
        if spec.pull_policy == PullPolicy::Always {
            entry.pull_policy = PullPolicy::Always;
        }
        let refresh_after = wish.refresh_after(node.name, now).map(conditions::time);
        entry.refresh_after = entry.refresh_after.take().max(refresh_after);
        entry.pin |= spec.pin;
        entry.priority = entry.priority.max(spec.priority);
        entry.backoff_limit = entry.backoff_limit.max(spec.backoff_limit);
        if std::time::Duration::from(spec.timeout) > entry.timeout.into() {
            entry.timeout = spec.timeout;
        }
    }
}

/// Most Prefetches that an entry names; the schema of NodeImages says the same.
const MAX_REQUESTERS: usize = 64;
/// Most Secrets that an entry names; the schema of NodeImages says the same.
const MAX_PULL_SECRETS: usize = 64;

/// The Prefetches in the order in which they get turns.
fn in_order<'a, 'b>(wishes: &'a [Wish<'b>]) -> Vec<&'a Wish<'b>> {
    let mut wishes: Vec<&Wish<'_>> = wishes.iter().collect();
    wishes.sort_by_key(|wish| std::cmp::Reverse(wish.prefetch.spec.priority));
    wishes
}

/// Lets as many nodes begin as the Prefetch's parallelism allows. A node whose turn has come keeps it until it has every image.
fn give_turns(
    wish: &Wish<'_>,
    nodes: &[NodeView<'_>],
    assignments: &mut Assignments,
    previous: &Slots,
    slots: &mut Slots,
    now: Timestamp,
) {
    if wish.is_at_rest() {
        return;
    }
    let timeout =
        SignedDuration::try_from(std::time::Duration::from(wish.prefetch.spec.timeout)).unwrap_or(SignedDuration::MAX);
    let selected: Vec<usize> = (0..nodes.len())
        .filter(|&index| {
            wish.selects(nodes[index].node) && wish.images.keys().any(|image| assignments[index].contains_key(image))
        })
        .collect();
    let budget = wish.parallelism(selected.len());
    let mut busy = 0;
    let mut candidates = Vec::new();
    for index in selected {
        let (node, desired) = (&nodes[index], &mut assignments[index]);
        let missing: Vec<&String> = wish.images.keys().filter(|image| !node.is_settled(image)).collect();
        let has_begun = missing.iter().any(|image| {
            asked(node, image).is_some_and(|entry| entry.state == DesiredState::Present)
                || desired
                    .get(*image)
                    .is_some_and(|entry| entry.state == DesiredState::Present)
        });
        if missing.is_empty() || has_begun {
            release(wish, desired);
        }
        if has_begun && slots.hold(previous, &wish.key, node.name, missing.len(), timeout, now) {
            busy += 1;
        }
        if !missing.is_empty() && !has_begun {
            candidates.push((index, missing.len()));
        }
    }
    for (index, missing) in candidates.into_iter().take(budget.saturating_sub(busy)) {
        slots.hold(previous, &wish.key, nodes[index].name, missing, timeout, now);
        release(wish, &mut assignments[index]);
    }
}

/// Lets a node pull what the Prefetch wants of it.
fn release(wish: &Wish<'_>, desired: &mut BTreeMap<String, DesiredImage>) {
    for image in wish.images.keys() {
        if let Some(entry) = desired.get_mut(image) {
            entry.state = DesiredState::Present;
        }
    }
}

/// What the node's object asks of it now.
fn asked<'a>(node: &NodeView<'a>, image: &str) -> Option<&'a DesiredImage> {
    node.object?.spec.images.iter().find(|entry| entry.image == image)
}
