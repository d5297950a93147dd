//! What each node is asked for.

use std::{collections::HashMap, rc::Rc};

use coral_api::{
    NodeImagesSpec, conditions,
    node_images::{DesiredImage, DesiredState, SecretReference},
    prefetch::{PullPolicy, RemovalPolicy},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{
    Wish, Write, removal,
    view::{Cell, NodeView, Standing},
    wish::{Catalogue, ImageNumber},
};

/// Most entries of an object; the schema of NodeImages says the same.
const MAX_IMAGES: usize = 1024;
/// Most Prefetches that an entry names; the schema of NodeImages says the same.
const MAX_REQUESTERS: usize = 64;
/// Most Secrets that an entry names; the schema of NodeImages says the same.
const MAX_PULL_SECRETS: usize = 64;

/// A set of Prefetches that want an image on a node, by its number in [`Requests`]: thousands of nodes share a few such sets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Askers(usize);

impl Askers {
    pub(super) const NOBODY: Self = Self(0);

    pub(super) fn is_empty(self) -> bool {
        self == Self::NOBODY
    }
}

/// What sets of Prefetches ask of nodes.
pub(super) struct Requests<'a> {
    wishes: &'a [Wish<'a>],
    catalogue: &'a Catalogue,
    /// The members of each set, as places in `wishes`, ascending.
    members: Vec<Vec<usize>>,
    /// The set that another one becomes with one more member.
    with: HashMap<(Askers, usize), Askers>,
    /// What a set asks of every node; only state and refresh time are each node's own.
    entries: HashMap<(ImageNumber, Askers), Rc<DesiredImage>>,
}

impl<'a> Requests<'a> {
    pub(super) fn new(wishes: &'a [Wish<'a>], catalogue: &'a Catalogue) -> Self {
        Self {
            wishes,
            catalogue,
            members: vec![Vec::new()],
            with: HashMap::new(),
            entries: HashMap::new(),
        }
    }

    /// Notes on the node what this Prefetch, which selects it, wants there. Prefetches come in the order of `wishes`.
    pub(super) fn want(&mut self, place: usize, node: &mut NodeView<'_>) {
        let wish = &self.wishes[place];
        // A node that is not ready, or about to go, keeps what it has and is asked for nothing more.
        let may_ask_anew = node.is_eligible && !wish.is_complete;
        for image in &wish.images {
            if !may_ask_anew && node.cell(image.number).is_none_or(|cell| cell.asked.is_none()) {
                continue;
            }
            let cell = node.cell_mut(image.number);
            cell.askers = self.set_with(cell.askers, place);
            cell.is_kept |= !wish.is_at_rest();
        }
    }

    fn set_with(&mut self, askers: Askers, place: usize) -> Askers {
        let members = &mut self.members;
        *self.with.entry((askers, place)).or_insert_with(|| {
            let mut grown = members[askers.0].clone();
            grown.push(place);
            members.push(grown);
            Askers(members.len() - 1)
        })
    }

    /// The write that brings a node's object to what the node is asked for.
    pub(super) fn write(&mut self, node: &NodeView<'_>) -> Option<Write> {
        if let Some(object) = node.stale_object {
            // What the node before it held must not pass for what this one holds; the object is made anew.
            return Some(delete(node, object.metadata.uid.clone()));
        }
        let mut wanted: Vec<(Rc<DesiredImage>, &Cell<'_>)> = node
            .cells()
            .iter()
            .filter(|cell| !cell.askers.is_empty())
            .map(|cell| (self.entry(cell), cell))
            .collect();
        // The sort is stable: within a priority the order of the names stays.
        wanted.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.priority));
        let removed = removal::entries(node);
        if wanted.is_empty() && removed.is_empty() {
            return node.object.map(|object| delete(node, object.metadata.uid.clone()));
        }
        // What is beyond the bound of the schema would make the API server refuse everything.
        wanted.truncate(MAX_IMAGES.saturating_sub(removed.len()));
        let node_uid = node.node.metadata.uid.clone()?;
        if is_as_it_should_be(node, &wanted, &removed, &node_uid) {
            return None;
        }
        let wanted = wanted.into_iter().map(|(entry, cell)| DesiredImage {
            state: state(cell),
            refresh_after: refresh_after(&entry, cell).map(conditions::time),
            ..DesiredImage::clone(&entry)
        });
        Some(Write::NodeImages {
            node: node.name.to_owned(),
            node_uid,
            spec: NodeImagesSpec {
                paused: node.paused,
                images: wanted.chain(removed).collect(),
            },
        })
    }

    /// What those who want the image here ask for together.
    fn entry(&mut self, cell: &Cell<'_>) -> Rc<DesiredImage> {
        let entry = self.entries.entry((cell.image, cell.askers));
        let members = &self.members[cell.askers.0];
        let merge = || Rc::new(merge(&self.catalogue.image(cell.image).name, members, self.wishes));
        Rc::clone(entry.or_insert_with(merge))
    }
}

fn delete(node: &NodeView<'_>, uid: Option<String>) -> Write {
    Write::DeleteNodeImages {
        node: node.name.to_owned(),
        uid,
    }
}

/// What several Prefetches ask of a node, as one entry.
fn merge(image: &str, members: &[usize], wishes: &[Wish<'_>]) -> DesiredImage {
    let specs = || members.iter().map(|&member| &wishes[member].prefetch.spec);
    let is_any = |is: fn(&coral_api::PrefetchSpec) -> bool| specs().any(is);
    let longest = specs().max_by_key(|spec| std::time::Duration::from(spec.timeout));
    let mut pull_secrets: Vec<SecretReference> = Vec::new();
    for &member in members {
        let prefetch = wishes[member].prefetch;
        for secret in &prefetch.spec.image_pull_secrets {
            let secret = SecretReference {
                namespace: prefetch.namespace().unwrap_or_default(),
                name: secret.name.clone(),
            };
            if pull_secrets.len() < MAX_PULL_SECRETS && !pull_secrets.contains(&secret) {
                pull_secrets.push(secret);
            }
        }
    }
    DesiredImage {
        image: image.to_owned(),
        requested_by: members
            .iter()
            .take(MAX_REQUESTERS)
            .map(|&member| wishes[member].key.clone())
            .collect(),
        pull_secrets,
        pull_policy: if is_any(|spec| spec.pull_policy == PullPolicy::Always) {
            PullPolicy::Always
        } else {
            PullPolicy::IfNotPresent
        },
        refresh_after: None,
        pin: is_any(|spec| spec.pin),
        priority: specs().map(|spec| spec.priority).max().unwrap_or_default(),
        timeout: longest.map_or_else(|| std::time::Duration::ZERO.into(), |spec| spec.timeout),
        backoff_limit: specs().map(|spec| spec.backoff_limit).max().unwrap_or_default(),
        // One that wants to keep the image decides for all.
        removal_policy: if is_any(|spec| spec.removal_policy == RemovalPolicy::Retain) {
            RemovalPolicy::Retain
        } else {
            RemovalPolicy::Remove
        },
        state: DesiredState::Held,
    }
}

/// An image that is missing is released by a turn alone. One that is there stays as it is: it costs nothing.
fn state(cell: &Cell<'_>) -> DesiredState {
    let stays = cell.standing() == Standing::There && cell.is_kept;
    if stays || cell.is_released {
        DesiredState::Present
    } else {
        DesiredState::Held
    }
}

/// When the image is to be pulled again: at the time that the node has a turn for. A time that has been met stays, which saves a
/// write; one that has not been met is taken back with the turn.
fn refresh_after(entry: &DesiredImage, cell: &Cell<'_>) -> Option<Timestamp> {
    let met = || {
        let asked = cell.asked?.refresh_after.as_ref()?.0;
        let is_met = cell.standing() == Standing::There && !cell.is_older_than(asked);
        is_met.then_some(asked)
    };
    (entry.pull_policy == PullPolicy::Always)
        .then(|| cell.refresh.or_else(met))
        .flatten()
}

/// Whether the node's object is as it should be, found out without making what it should be.
fn is_as_it_should_be(
    node: &NodeView<'_>,
    wanted: &[(Rc<DesiredImage>, &Cell<'_>)],
    removed: &[DesiredImage],
    node_uid: &str,
) -> bool {
    let Some(object) = node.object else {
        return false;
    };
    let (images, number) = (&object.spec.images, wanted.len());
    let is_wanted = |(asked, (entry, cell)): (&DesiredImage, &(Rc<DesiredImage>, &Cell<'_>))| {
        asked.state == state(cell)
            && asked.refresh_after.as_ref().map(|time| time.0) == refresh_after(entry, cell)
            && is_same_request(asked, entry)
    };
    object.spec.paused == node.paused
        && object.owner_references().iter().any(|owner| owner.uid == node_uid)
        && images.len() == number + removed.len()
        && images[number..] == *removed
        && images.iter().zip(wanted).all(is_wanted)
}

/// Whether two entries differ in nothing but state and refresh time.
fn is_same_request(asked: &DesiredImage, entry: &DesiredImage) -> bool {
    // Every field is named, so that a new one is not forgotten here.
    let DesiredImage {
        image,
        requested_by,
        pull_secrets,
        pull_policy,
        refresh_after: _,
        pin,
        priority,
        timeout,
        backoff_limit,
        removal_policy,
        state: _,
    } = entry;
    asked.image == *image
        && asked.requested_by == *requested_by
        && asked.pull_secrets == *pull_secrets
        && asked.pull_policy == *pull_policy
        && asked.pin == *pin
        && asked.priority == *priority
        && asked.timeout == *timeout
        && asked.backoff_limit == *backoff_limit
        && asked.removal_policy == *removal_policy
}
