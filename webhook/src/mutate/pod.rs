//! The few places in the description of a pod that Coral changes.

use std::collections::BTreeSet;

use coral_api::{ImageReference, InvalidReference, keys};
use json_patch::PatchOperation;
use serde_json::{Map, Value, json};

use super::{
    patch::{below, difference, pointer},
    record::{Before, PullPolicy, Record},
    template::at,
    wish::{Placement, Wish},
};

const NODE_SELECTOR: &str = "nodeSelector";
const AFFINITY: &str = "affinity";
const NODE_AFFINITY: &str = "nodeAffinity";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const IMAGE_PULL_POLICY: &str = "imagePullPolicy";
/// The weights of all preferences together: as much as one preference of a user's can have.
const WEIGHT: usize = 100;

/// A copy of the places that matter, small whatever else the pod has.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// `nodeSelector` and `affinity`, as far as they are there.
    placement: Map<String, Value>,
    /// Init containers first.
    pub(super) containers: Vec<Container>,
    /// Whether the pod has its node already.
    pub(super) is_bound: bool,
}

/// A container, or an init container.
#[derive(Clone, Debug)]
pub(super) struct Container {
    list: &'static str,
    index: usize,
    /// The name, if no other container has it: by it, a record speaks of the container.
    pub(super) name: Option<String>,
    pub(super) image: Option<Result<ImageReference, InvalidReference>>,
    pull_policy: Option<Value>,
}

impl Places {
    pub(super) fn read(spec: &Map<String, Value>) -> Self {
        let placement = [NODE_SELECTOR, AFFINITY]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), spec.get(key)?.clone())));
        let mut containers: Vec<Container> = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|list| {
                let entries = spec
                    .get(list)
                    .and_then(Value::as_array)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let maps = entries
                    .iter()
                    .enumerate()
                    .filter_map(|(index, entry)| Some((index, entry.as_object()?)));
                maps.map(move |(index, container)| Container {
                    list,
                    index,
                    name: container.get("name").and_then(Value::as_str).map(str::to_owned),
                    image: container.get("image").and_then(Value::as_str).map(str::parse),
                    pull_policy: container.get(IMAGE_PULL_POLICY).cloned(),
                })
            })
            .collect();
        // Kubernetes will refuse such a pod; until then it is nobody in particular.
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<String> = containers
            .iter()
            .filter_map(|container| container.name.clone())
            .filter(|name| !seen.insert(name.clone()))
            .collect();
        for container in &mut containers {
            container.name.take_if(|name| twice.contains(name.as_str()));
        }
        Self {
            placement: placement.collect(),
            containers,
            is_bound: spec
                .get("nodeName")
                .and_then(Value::as_str)
                .is_some_and(|name| !name.is_empty()),
        }
    }

    /// Takes back what `record` says was injected, as far as it is there still. What people changed since is theirs.
    pub(super) fn restore(&mut self, record: &Record) {
        if let Some(selector) = self.placement.get_mut(NODE_SELECTOR).and_then(Value::as_object_mut) {
            for key in record.node_selector.iter().filter(|key| key.starts_with(keys::PREFIX)) {
                if selector.get(key).is_some_and(is_available) {
                    selector.remove(key);
                }
            }
        }
        close(&mut self.placement, &[NODE_SELECTOR], record);
        if let Some(terms) = terms_mut(&mut self.placement) {
            for key in record.node_affinity.iter().filter(|key| key.starts_with(keys::PREFIX)) {
                if let Some(index) = terms.iter().position(|term| is_preference(term, key)) {
                    terms.remove(index);
                }
            }
        }
        for depth in (1..=3).rev() {
            close(
                &mut self.placement,
                &[AFFINITY, NODE_AFFINITY, PREFERRED][..depth],
                record,
            );
        }
        for container in &mut self.containers {
            let Some(PullPolicy { set, before }) =
                container.name.as_ref().and_then(|name| record.pull_policy.get(name))
            else {
                continue;
            };
            if container.pull_policy.as_ref().and_then(Value::as_str) == Some(set) {
                container.pull_policy.clone_from(before);
            }
        }
    }

    /// Puts in what is wished for and returns what that changed. `has_arrived` tells of a label key that is there already whether it came
    /// with this update, although nobody writes such keys by hand.
    pub(super) fn inject(&mut self, wish: &Wish, has_arrived: impl Fn(Placement, &str) -> bool) -> Record {
        let mut record = Record::default();
        match wish.placement {
            Some(placement) if !self.is_bound => {
                let images: BTreeSet<String> = self
                    .chosen(wish)
                    .filter_map(|container| container.image.as_ref()?.as_ref().ok())
                    .map(ImageReference::label_key)
                    .collect();
                match placement {
                    Placement::Required => self.require(images, &mut record, has_arrived),
                    Placement::Preferred => self.prefer(images, &mut record, has_arrived),
                }
            }
            _ => {}
        }
        if let Some(pull_policy) = wish.pull_policy {
            let set = pull_policy.as_str();
            for container in &mut self.containers {
                let Some(name) = container.name.as_ref().filter(|name| wish.containers.contains(name)) else {
                    continue;
                };
                if container.pull_policy.as_ref().and_then(Value::as_str) != Some(set) {
                    let before = container.pull_policy.replace(set.into());
                    let set = set.to_owned();
                    record.pull_policy.insert(name.clone(), PullPolicy { set, before });
                }
            }
        }
        record
    }

    /// The containers that the wish is about. Where names cannot tell them apart, only a wish about all is about them.
    pub(super) fn chosen(&self, wish: &Wish) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| {
            let name = container.name.as_deref();
            name.map_or_else(
                || wish.containers == super::Containers::All,
                |name| wish.containers.contains(name),
            )
        })
    }

    fn require(
        &mut self,
        images: BTreeSet<String>,
        record: &mut Record,
        has_arrived: impl Fn(Placement, &str) -> bool,
    ) {
        if images.is_empty() {
            return;
        }
        let Some(Value::Object(selector)) = open(&mut self.placement, &[NODE_SELECTOR], record) else {
            return;
        };
        for key in images {
            match selector.get(&key) {
                None => {
                    selector.insert(key.clone(), keys::AVAILABLE.into());
                    record.node_selector.insert(key);
                }
                Some(value) if is_available(value) && has_arrived(Placement::Required, &key) => {
                    record.node_selector.insert(key);
                }
                Some(_) => {}
            }
        }
    }

    fn prefer(&mut self, images: BTreeSet<String>, record: &mut Record, has_arrived: impl Fn(Placement, &str) -> bool) {
        if images.is_empty() {
            return;
        }
        let weight = (WEIGHT / images.len()).max(1);
        let Some(Value::Array(terms)) = open(&mut self.placement, &[AFFINITY, NODE_AFFINITY, PREFERRED], record) else {
            return;
        };
        for key in images {
            if !terms.iter().any(|term| is_preference(term, &key)) {
                terms.push(json!({"weight": weight, "preference": preference(&key)}));
                record.node_affinity.insert(key);
            } else if has_arrived(Placement::Preferred, &key) {
                record.node_affinity.insert(key);
            }
        }
    }

    /// The operations that make `self` of `before`, which is a copy of it.
    pub(super) fn difference(&self, before: &Self, spec_path: &[&str], operations: &mut Vec<PatchOperation>) {
        let spec = pointer(spec_path);
        for key in [NODE_SELECTOR, AFFINITY] {
            difference(
                &below(&spec, key),
                before.placement.get(key),
                self.placement.get(key),
                operations,
            );
        }
        for (before, after) in before.containers.iter().zip(&self.containers) {
            let container = below(&below(&spec, after.list), after.index);
            difference(
                &below(&container, IMAGE_PULL_POLICY),
                before.pull_policy.as_ref(),
                after.pull_policy.as_ref(),
                operations,
            );
        }
    }
}

/// Whether a pod asks for a label in this way, whoever put it there.
pub(super) fn asks_for(spec: &Value, placement: Placement, key: &str) -> bool {
    match placement {
        Placement::Required => at(spec, &[NODE_SELECTOR, key]).is_some_and(is_available),
        Placement::Preferred => at(spec, &[AFFINITY, NODE_AFFINITY, PREFERRED])
            .and_then(Value::as_array)
            .is_some_and(|terms| terms.iter().any(|term| is_preference(term, key))),
    }
}

fn is_available(value: &Value) -> bool {
    value.as_str() == Some(keys::AVAILABLE)
}

fn preference(key: &str) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": "In", "values": [keys::AVAILABLE]}]})
}

fn is_preference(term: &Value, key: &str) -> bool {
    term.get("preference").is_some_and(|found| *found == preference(key))
}

fn terms_mut(placement: &mut Map<String, Value>) -> Option<&mut Vec<Value>> {
    let affinity = placement.get_mut(AFFINITY)?.as_object_mut()?;
    affinity
        .get_mut(NODE_AFFINITY)?
        .as_object_mut()?
        .get_mut(PREFERRED)?
        .as_array_mut()
}

/// What is at `path`, made where it is not there, as the record then says. `None` where something of another type is in the way.
fn open<'a>(root: &'a mut Map<String, Value>, path: &[&str], record: &mut Record) -> Option<&'a mut Value> {
    let (last, parents) = path.split_last()?;
    let mut map = root;
    for depth in 0..parents.len() {
        map = entry(map, &path[..=depth], || Value::Object(Map::new()), record)?.as_object_mut()?;
    }
    let is_list = *last == PREFERRED;
    let value = entry(map, path, || if is_list { json!([]) } else { json!({}) }, record)?;
    (value.is_array() == is_list && (is_list || value.is_object())).then_some(value)
}

fn entry<'a>(
    map: &'a mut Map<String, Value>,
    path: &[&str],
    empty: impl Fn() -> Value,
    record: &mut Record,
) -> Option<&'a mut Value> {
    let key = path.last()?;
    let before = match map.get(*key) {
        None => Some(Before::Absent),
        Some(Value::Null) => Some(Before::Null),
        Some(_) => None,
    };
    if let Some(before) = before {
        record.made.insert(path.join("."), before);
        map.insert((*key).to_owned(), empty());
    }
    map.get_mut(*key)
}

/// Takes away what was made at `path`, if nothing is in it any more.
fn close(root: &mut Map<String, Value>, path: &[&str], record: &Record) {
    let (Some(before), Some((last, parents))) = (record.made.get(&path.join(".")), path.split_last()) else {
        return;
    };
    let parent = parents
        .iter()
        .try_fold(root, |map, key| map.get_mut(*key)?.as_object_mut());
    let Some(parent) = parent else { return };
    let is_empty = match parent.get(*last) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(entries)) => entries.is_empty(),
        _ => false,
    };
    if is_empty {
        match before {
            Before::Absent => parent.remove(*last),
            Before::Null => parent.insert((*last).to_owned(), Value::Null),
        };
    }
}
