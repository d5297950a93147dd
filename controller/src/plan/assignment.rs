//! What each node is asked for.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    rc::Rc,
};

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
    wish::{Catalogue, CataloguedImage, ImageNumber},
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

/// Objects that ask for what they should. Each stands for an object, its generation and what it should ask for: what is here need not be read again,
/// and most of an object's memory is read for nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checked(HashSet<u64>);

/// What a set of Prefetches asks of every node, with a number that stands for it.
struct Entry {
    asked: Rc<DesiredImage>,
    fingerprint: u64,
}

/// What sets of Prefetches ask of nodes.
pub(super) struct Requests<'a> {
    wishes: &'a [Wish<'a>],
    catalogue: &'a Catalogue,
    /// Objects that the last plan has found to ask for what they should, and those that this one has.
    checked_before: &'a Checked,
    pub(super) checked: Checked,
    /// The members of each set, as places in `wishes`, ascending.
    members: Vec<Vec<usize>>,
    /// The set that another one becomes with one more member.
    with: HashMap<(Askers, usize), Askers>,
    /// What a set asks of every node; only state and refresh time are each node's own.
    entries: HashMap<(ImageNumber, Askers), Entry>,
}

impl<'a> Requests<'a> {
    pub(super) fn new(wishes: &'a [Wish<'a>], catalogue: &'a Catalogue, checked_before: &'a Checked) -> Self {
        Self {
            wishes,
            catalogue,
            checked_before,
            checked: Checked::default(),
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
        let mut next = 0;
        for image in &wish.images {
            let cell = node.cell_from(image.number, &mut next, may_ask_anew);
            let Some(cell) = cell.filter(|cell| may_ask_anew || cell.asked.is_some()) else {
                continue;
            };
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

    /// Whether the node's object asks for what it should, but perhaps for when.
    pub(super) fn are_kept_by(&mut self, node: &NodeView<'_>) -> bool {
        let fingerprint = self.fingerprint(node);
        let is_known = fingerprint.is_some_and(|fingerprint| self.checked_before.0.contains(&fingerprint));
        let is_kept = (is_known && is_owned(node)) || {
            let wanted = self.wanted(node);
            asks_the_same(node, &wanted, &removal::entries(node))
        };
        self.checked.0.extend(fingerprint.filter(|_| is_kept));
        is_kept
    }

    /// What stands for the node's object and all that it should ask for; none where images are to be removed, which is seldom and soon over.
    fn fingerprint(&mut self, node: &NodeView<'_>) -> Option<u64> {
        let metadata = &node.object?.metadata;
        let mut hasher = DefaultHasher::new();
        // The spec of an object is another one with every generation.
        (metadata.uid.as_ref()?, metadata.generation?).hash(&mut hasher);
        node.paused.map(|reason| reason as u8).hash(&mut hasher);
        let is_unwanted = |cell: &Cell<'_>| cell.asked.is_some() && cell.askers.is_empty();
        if !node.unnamed.is_empty() || node.cells().iter().any(is_unwanted) {
            return None;
        }
        for cell in node.cells().iter().filter(|cell| !cell.askers.is_empty()) {
            self.entry(cell).fingerprint.hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    /// What the node is to be asked for, with what it is.
    fn wanted<'n, 'b>(&mut self, node: &'n NodeView<'b>) -> Vec<(Rc<DesiredImage>, &'n Cell<'b>)> {
        let mut wanted: Vec<(Rc<DesiredImage>, &Cell<'_>)> = node
            .cells()
            .iter()
            .filter(|cell| !cell.askers.is_empty())
            .map(|cell| (Rc::clone(&self.entry(cell).asked), cell))
            .collect();
        // The sort is stable: within a priority the order of the names stays.
        wanted.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.priority));
        wanted
    }

    /// The write that brings a node's object to what the node is asked for.
    pub(super) fn write(&mut self, node: &NodeView<'_>) -> Option<Write> {
        if let Some(object) = node.stale_object {
            // What the node before it held must not pass for what this one holds; the object is made anew.
            return Some(delete(node, object.metadata.uid.clone()));
        }
        let mut asked_for = node.cells().iter().filter(|cell| !cell.askers.is_empty()).peekable();
        if node.asks_the_same && asked_for.peek().is_some() && asked_for.all(is_asked_when_it_should_be) {
            return None;
        }
        let mut wanted = self.wanted(node);
        let removed = removal::entries(node);
        if wanted.is_empty() && removed.is_empty() {
            return node.object.map(|object| delete(node, object.metadata.uid.clone()));
        }
        // What is beyond the bound of the schema would make the API server refuse everything.
        wanted.truncate(MAX_IMAGES.saturating_sub(removed.len()));
        let node_uid = node.node.metadata.uid.clone()?;
        if is_as_it_should_be(node, &wanted, &removed) {
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
    fn entry(&mut self, cell: &Cell<'_>) -> &Entry {
        let entry = self.entries.entry((cell.image, cell.askers));
        entry.or_insert_with(|| {
            let members = &self.members[cell.askers.0];
            let asked = merge(self.catalogue.image(cell.image), members, self.wishes);
            let mut hasher = DefaultHasher::new();
            // Every field, also one that is yet to be invented.
            format!("{asked:?}").hash(&mut hasher);
            Entry {
                asked: Rc::new(asked),
                fingerprint: hasher.finish(),
            }
        })
    }
}

/// Whether a write of the node's object would tell the node no more than to wait for its turn.
pub(super) fn only_waits(node: &NodeView<'_>) -> bool {
    let is_taken_back = |cell: &Cell<'_>| cell.is_asked(DesiredState::Present) && state(cell) == DesiredState::Held;
    let has_turn = |cell: &Cell<'_>| cell.is_released || cell.refresh.is_some();
    node.stale_object.is_none()
        && node.object.map_or(node.paused, |object| object.spec.paused) == node.paused
        && node.unnamed.is_empty()
        && node.cells().iter().any(|cell| !cell.askers.is_empty())
        && !node.cells().iter().any(|cell| has_turn(cell) || is_taken_back(cell))
}

fn delete(node: &NodeView<'_>, uid: Option<String>) -> Write {
    Write::DeleteNodeImages {
        node: node.name.to_owned(),
        uid,
    }
}

/// What several Prefetches ask of a node, as one entry.
fn merge(image: &CataloguedImage, members: &[usize], wishes: &[Wish<'_>]) -> DesiredImage {
    let specs = || members.iter().map(|&member| &wishes[member].prefetch.spec);
    let is_any = |is: fn(&coral_api::PrefetchSpec) -> bool| specs().any(is);
    let longest = specs().max_by_key(|spec| std::time::Duration::from(spec.timeout));
    let mut pull_secrets: Vec<SecretReference> = Vec::new();
    for &member in members {
        let prefetch = wishes[member].prefetch;
        let named = prefetch.spec.image_pull_secrets.iter().map(|secret| &secret.name);
        // As the pods will have it that are sent to the copy.
        let of_copy = image.copy.as_ref().and_then(|copy| copy.pull_secret_name.as_ref());
        for name in named.chain(of_copy) {
            let secret = SecretReference {
                namespace: prefetch.namespace().unwrap_or_default(),
                name: name.clone(),
            };
            if pull_secrets.len() < MAX_PULL_SECRETS && !pull_secrets.contains(&secret) {
                pull_secrets.push(secret);
            }
        }
    }
    DesiredImage {
        image: image.name.clone(),
        pull_as: image.copy.as_ref().map(|copy| copy.reference.clone()),
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
        let asked = cell.asked_refresh()?;
        let is_met = cell.standing() == Standing::There && !cell.is_older_than(asked);
        is_met.then_some(asked)
    };
    (entry.pull_policy == PullPolicy::Always)
        .then(|| cell.refresh.or_else(met))
        .flatten()
}

/// Whether the node's object is as it should be, found out without making what it should be.
fn is_as_it_should_be(node: &NodeView<'_>, wanted: &[(Rc<DesiredImage>, &Cell<'_>)], removed: &[DesiredImage]) -> bool {
    let is_asked_in_time = |(entry, cell): &(Rc<DesiredImage>, &Cell<'_>)| {
        cell.is_asked(state(cell)) && cell.asked_refresh() == refresh_after(entry, cell)
    };
    asks_the_same(node, wanted, removed) && wanted.iter().all(is_asked_in_time)
}

/// Whether the node's object asks for these images and no others, but perhaps for when.
fn asks_the_same(node: &NodeView<'_>, wanted: &[(Rc<DesiredImage>, &Cell<'_>)], removed: &[DesiredImage]) -> bool {
    let Some(object) = node.object else {
        return false;
    };
    let (images, number) = (&object.spec.images, wanted.len());
    object.spec.paused == node.paused
        && is_owned(node)
        && images.len() == number + removed.len()
        && images[number..] == *removed
        && images
            .iter()
            .zip(wanted)
            .all(|(asked, (entry, _))| is_same_request(asked, entry))
}

/// Whether the node's object goes with the node.
fn is_owned(node: &NodeView<'_>) -> bool {
    let owners = node.object.map_or(&[][..], |object| object.owner_references());
    owners
        .iter()
        .any(|owner| Some(&owner.uid) == node.node.metadata.uid.as_ref())
}

/// Whether state and refresh time are as they should be, of an image that neither is nor is to be refreshed.
fn is_asked_when_it_should_be(cell: &Cell<'_>) -> bool {
    cell.is_asked(state(cell)) && cell.asked_refresh().is_none() && cell.refresh.is_none()
}

/// Whether two entries differ in nothing but state and refresh time.
fn is_same_request(asked: &DesiredImage, entry: &DesiredImage) -> bool {
    // Every field is named, so that a new one is not forgotten here.
    let DesiredImage {
        image,
        pull_as,
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
        && asked.pull_as == *pull_as
        && asked.requested_by == *requested_by
        && asked.pull_secrets == *pull_secrets
        && asked.pull_policy == *pull_policy
        && asked.pin == *pin
        && asked.priority == *priority
        && asked.timeout == *timeout
        && asked.backoff_limit == *backoff_limit
        && asked.removal_policy == *removal_policy
}
