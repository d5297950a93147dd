//! The few places in the description of a pod that Coral changes.

use std::{borrow::Cow, collections::BTreeMap};

use coral_api::{ImageReference, InvalidReference, keys};
use serde_json::json;

use super::{
    CONTAINER_LISTS, Kind,
    patch::{Patch, Path, difference},
    record::{Before, PullPolicy, Record},
    tree::{Entries, Tree},
    wish::{Placement, Wish},
};

const NODE_SELECTOR: &str = "nodeSelector";
const AFFINITY: &str = "affinity";
const NODE_AFFINITY: &str = "nodeAffinity";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const IMAGE_PULL_POLICY: &str = "imagePullPolicy";
/// The weights of all preferences together: as much as one preference of a user's can have.
const WEIGHT: usize = 100;

/// The places that matter, as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Places<'a> {
    /// `nodeSelector` and `affinity`, as far as they are there.
    placement: Entries<'a>,
    /// Init containers first.
    pub(super) containers: Vec<Container<'a>>,
    /// Whether the pod has its node already.
    pub(super) is_bound: bool,
}

/// A container, or an init container.
#[derive(Clone, Debug)]
pub(super) struct Container<'a> {
    list: &'static str,
    index: usize,
    /// The name, if no other container has it: by it, a record speaks of the container.
    pub(super) name: Option<&'a str>,
    pub(super) image: Option<Result<ImageReference, InvalidReference>>,
    pull_policy: Option<&'a Tree<'a>>,
}

/// What is to be in those places.
#[derive(Debug)]
pub(super) struct Changed<'a> {
    placement: Entries<'a>,
    /// In the order of the containers.
    pull_policies: Vec<Option<Cow<'a, Tree<'a>>>>,
}

impl<'a> Places<'a> {
    /// `originals` are the images that containers had before they were replaced by copies.
    pub(super) fn read(spec: &'a Entries<'a>, originals: &BTreeMap<String, String>) -> Self {
        let placement = [AFFINITY, NODE_SELECTOR]
            .into_iter()
            .filter_map(|key| Some((Cow::Borrowed(key), spec.get(key)?.clone())));
        let mut containers = Vec::new();
        for list in CONTAINER_LISTS {
            let entries = spec.get(list).and_then(Tree::as_list).unwrap_or_default();
            containers.reserve(entries.len());
            for (index, entry) in entries.iter().enumerate() {
                let Some(container) = entry.as_map() else { continue };
                let text = |key: &str| container.get(key)?.as_str();
                let name = text("name");
                let original = name.and_then(|name| originals.get(name)).map(String::as_str);
                containers.push(Container {
                    list,
                    index,
                    name,
                    image: original.or_else(|| text("image")).map(str::parse),
                    pull_policy: container.get(IMAGE_PULL_POLICY),
                });
            }
        }
        // Kubernetes will refuse such a pod; until then it is nobody in particular.
        let mut names = Vec::with_capacity(containers.len());
        names.extend(containers.iter().filter_map(|container: &Container<'_>| container.name));
        names.sort_unstable();
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let twice: Vec<&str> = twice.collect();
        for container in &mut containers {
            container.name.take_if(|name| twice.binary_search(name).is_ok());
        }
        Self {
            placement: placement.collect(),
            containers,
            is_bound: spec
                .get("nodeName")
                .and_then(Tree::as_str)
                .is_some_and(|name| !name.is_empty()),
        }
    }

    /// What is there, without what `record` says was injected, as far as it is there still. What people changed since is theirs.
    pub(super) fn restored(&self, record: &Record<'a>) -> Changed<'a> {
        let mut placement = self.placement.clone();
        if let Some(selector) = placement.get_mut(NODE_SELECTOR).and_then(Tree::as_map_mut) {
            let is_injected = |key: &str| key.starts_with(keys::PREFIX) && record.node_selector.contains(key);
            selector.retain(|key, value| !(is_injected(key) && is_available(value)));
        }
        close(&mut placement, &[NODE_SELECTOR], record);
        if let Some(terms) = terms_mut(&mut placement) {
            for key in record.node_affinity.iter().filter(|key| key.starts_with(keys::PREFIX)) {
                if let Some(index) = terms.iter().position(|term| is_preference(term, key)) {
                    terms.remove(index);
                }
            }
        }
        for depth in (1..=3).rev() {
            close(&mut placement, &[AFFINITY, NODE_AFFINITY, PREFERRED][..depth], record);
        }
        let pull_policies = self.containers.iter().map(|container| {
            let injected = container.name.and_then(|name| record.pull_policy.get(name));
            match injected {
                Some(PullPolicy { set, before })
                    if container.pull_policy.and_then(Tree::as_str) == Some(set.as_ref()) =>
                {
                    before.clone().map(Cow::Owned)
                }
                _ => container.pull_policy.map(Cow::Borrowed),
            }
        });
        Changed {
            placement,
            pull_policies: pull_policies.collect(),
        }
    }

    /// The containers that the wish is about. Where names cannot tell them apart, only a wish about all is about them.
    pub(super) fn chosen(&self, wish: &Wish) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().filter(|container| {
            container.name.map_or_else(
                || wish.containers == super::Containers::All,
                |name| wish.containers.contains(name),
            )
        })
    }

    /// The keys of the labels that say that the images are there which a wish is about: in their order, each once.
    pub(super) fn label_keys(&self, wish: &Wish) -> Vec<String> {
        if wish.placement.is_none() || self.is_bound {
            return Vec::new();
        }
        let images = self
            .chosen(wish)
            .filter_map(|container| container.image.as_ref()?.as_ref().ok());
        let mut keys = Vec::with_capacity(self.containers.len());
        keys.extend(images.map(ImageReference::label_key));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The operations that make `after` of what is there.
    pub(super) fn difference(&self, after: &Changed<'_>, kind: Kind, patch: &mut Patch) {
        let mut spec = Path::of(kind.spec_path());
        for key in [NODE_SELECTOR, AFFINITY] {
            spec.below(key, |path| {
                difference(path, self.placement.get(key), after.placement.get(key), patch);
            });
        }
        for (container, after) in self.containers.iter().zip(&after.pull_policies) {
            let (before, after) = (container.pull_policy, after.as_deref());
            if before != after {
                spec.below(container.list, |path| {
                    path.at(container.index, |path| {
                        path.below(IMAGE_PULL_POLICY, |path| difference(path, before, after, patch));
                    });
                });
            }
        }
    }
}

impl<'a> Changed<'a> {
    /// Puts in what is wished for, with these label keys, and returns what that changed. `has_arrived` tells of a label key that is there
    /// already whether it came with this update, although nobody writes such keys by hand.
    pub(super) fn inject(
        &mut self,
        places: &Places<'a>,
        wish: &Wish,
        label_keys: &'a [String],
        has_arrived: impl Fn(Placement, &str) -> bool,
    ) -> Record<'a> {
        let mut record = Record::default();
        match wish.placement {
            None => {}
            Some(Placement::Required) => self.require(label_keys, &mut record, has_arrived),
            Some(Placement::Preferred) => self.prefer(label_keys, &mut record, has_arrived),
        }
        if let Some(pull_policy) = wish.pull_policy {
            let set = pull_policy.as_str();
            for (container, policy) in places.containers.iter().zip(&mut self.pull_policies) {
                let Some(name) = container.name.filter(|name| wish.containers.contains(name)) else {
                    continue;
                };
                if policy.as_deref().and_then(Tree::as_str) != Some(set) {
                    let before = policy.replace(Cow::Owned(Tree::text(set))).map(Cow::into_owned);
                    let set = Cow::Borrowed(set);
                    record.pull_policy.insert(name.into(), PullPolicy { set, before });
                }
            }
        }
        record
    }

    fn require(
        &mut self,
        label_keys: &'a [String],
        record: &mut Record<'a>,
        has_arrived: impl Fn(Placement, &str) -> bool,
    ) {
        if label_keys.is_empty() {
            return;
        }
        let Some(Tree::Map(selector)) = open(&mut self.placement, &[NODE_SELECTOR], record) else {
            return;
        };
        let mut added = Vec::with_capacity(label_keys.len());
        let injected = label_keys.iter().filter(|key| match selector.get(key) {
            None => {
                added.push((Cow::Borrowed(key.as_str()), Tree::text(keys::AVAILABLE)));
                true
            }
            Some(value) => is_available(value) && has_arrived(Placement::Required, key),
        });
        record.node_selector = injected.map(|key| Cow::Borrowed(key.as_str())).collect();
        selector.extend(added);
    }

    fn prefer(
        &mut self,
        label_keys: &'a [String],
        record: &mut Record<'a>,
        has_arrived: impl Fn(Placement, &str) -> bool,
    ) {
        if label_keys.is_empty() {
            return;
        }
        let weight = (WEIGHT / label_keys.len()).max(1);
        let Some(Tree::List(terms)) = open(&mut self.placement, &[AFFINITY, NODE_AFFINITY, PREFERRED], record) else {
            return;
        };
        for key in label_keys {
            if !terms.iter().any(|term| is_preference(term, key)) {
                let mut term = Entries::default();
                term.insert("weight", json!(weight).into());
                term.insert("preference", preference(key));
                terms.push(Tree::Map(term));
                record.node_affinity.insert(Cow::Borrowed(key));
            } else if has_arrived(Placement::Preferred, key) {
                record.node_affinity.insert(Cow::Borrowed(key));
            }
        }
    }
}

/// Whether a pod asks for a label in this way, whoever put it there.
pub(super) fn asks_for(spec: &Tree<'_>, placement: Placement, key: &str) -> bool {
    match placement {
        Placement::Required => spec.at(&[NODE_SELECTOR, key]).is_some_and(is_available),
        Placement::Preferred => spec
            .at(&[AFFINITY, NODE_AFFINITY, PREFERRED])
            .and_then(Tree::as_list)
            .is_some_and(|terms| terms.iter().any(|term| is_preference(term, key))),
    }
}

fn is_available(value: &Tree<'_>) -> bool {
    value.as_str() == Some(keys::AVAILABLE)
}

fn preference<'a>(key: &str) -> Tree<'a> {
    json!({"matchExpressions": [{"key": key, "operator": "In", "values": [keys::AVAILABLE]}]}).into()
}

fn is_preference(term: &Tree<'_>, key: &str) -> bool {
    term.get("preference").is_some_and(|found| *found == preference(key))
}

fn terms_mut<'p, 'a>(placement: &'p mut Entries<'a>) -> Option<&'p mut Vec<Tree<'a>>> {
    let affinity = placement.get_mut(AFFINITY)?.as_map_mut()?;
    affinity
        .get_mut(NODE_AFFINITY)?
        .as_map_mut()?
        .get_mut(PREFERRED)?
        .as_list_mut()
}

/// What is at `path`, made where it is not there, as the record then says. `None` where something of another type is in the way.
fn open<'p, 'a>(root: &'p mut Entries<'a>, path: &[&'static str], record: &mut Record<'a>) -> Option<&'p mut Tree<'a>> {
    let (last, parents) = path.split_last()?;
    let mut map = root;
    for depth in 0..parents.len() {
        map = entry(map, &path[..=depth], || Tree::Map(Entries::default()), record)?.as_map_mut()?;
    }
    let is_list = *last == PREFERRED;
    let empty = || {
        if is_list {
            Tree::List(Vec::new())
        } else {
            Tree::Map(Entries::default())
        }
    };
    let value = entry(map, path, empty, record)?;
    let is_right = match value {
        Tree::List(_) => is_list,
        Tree::Map(_) => !is_list,
        _ => false,
    };
    is_right.then_some(value)
}

fn entry<'p, 'a>(
    map: &'p mut Entries<'a>,
    path: &[&'static str],
    empty: impl Fn() -> Tree<'a>,
    record: &mut Record<'a>,
) -> Option<&'p mut Tree<'a>> {
    let key = *path.last()?;
    let before = match map.get(key) {
        None => Some(Before::Absent),
        Some(Tree::Null) => Some(Before::Null),
        Some(_) => None,
    };
    if let Some(before) = before {
        record.made.insert(path.join("."), before);
        map.insert(key, empty());
    }
    map.get_mut(key)
}

/// Takes away what was made at `path`, if nothing is in it any more.
fn close<'a>(root: &mut Entries<'a>, path: &[&'static str], record: &Record<'a>) {
    if record.made.is_empty() {
        // As on most objects: there is no need to write the path down.
        return;
    }
    let (Some(before), Some((last, parents))) = (record.made.get(&path.join(".")), path.split_last()) else {
        return;
    };
    let parent = parents.iter().try_fold(root, |map, key| map.get_mut(key)?.as_map_mut());
    let Some(parent) = parent else { return };
    let is_empty = match parent.get(last) {
        Some(Tree::Map(map)) => map.is_empty(),
        Some(Tree::List(entries)) => entries.is_empty(),
        _ => false,
    };
    if is_empty {
        match before {
            Before::Absent => parent.remove(last),
            Before::Null => parent.insert(*last, Tree::Null),
        }
    }
}
