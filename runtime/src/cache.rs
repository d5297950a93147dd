//! What a controller knows of one kind of object.
//!
//! A watch fills it, and so do the answers to the controller's own writes: the next plan then starts from what was
//! written, instead of writing it again because the watch is a moment behind.

use std::{collections::BTreeMap, sync::Arc};

use kube::{Resource, ResourceExt as _, runtime::watcher::Event};

/// Name of an object, with its namespace where the kind has one.
pub type Key = (Option<String>, String);

/// The objects of one kind.
#[derive(Debug)]
pub struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// What a list that is under way has brought so far.
    listed: BTreeMap<Key, Arc<K>>,
    /// Whether the first list is complete; before, nothing may be concluded from what is missing.
    is_complete: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listed: BTreeMap::new(),
            is_complete: false,
        }
    }
}

impl<K: Resource + PartialEq> Cache<K> {
    /// Takes in an event of the watch. Returns whether anything is known now that was not known before: a Node's heartbeat is nothing,
    /// once the times are pruned.
    pub fn take(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                self.listed.insert(key(&object), Arc::new(object));
                false
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listed);
                self.is_complete = true;
                true
            }
            Event::Apply(object) => self.insert(object),
            Event::Delete(object) => self.objects.remove(&key(&object)).is_some(),
        }
    }

    /// Takes in a version of an object, unless a newer one is known. Returns whether it differs from the known one in more than its
    /// version.
    pub fn insert(&mut self, mut object: K) -> bool {
        let key = key(&object);
        let Some(known) = self.objects.get(&key) else {
            self.objects.insert(key, Arc::new(object));
            return true;
        };
        if known.meta().uid == object.meta().uid && version(&**known) > version(&object) {
            return false;
        }
        let new_version = object.meta_mut().resource_version.take();
        object
            .meta_mut()
            .resource_version
            .clone_from(&known.meta().resource_version);
        let is_new = **known != object;
        object.meta_mut().resource_version = new_version;
        self.objects.insert(key, Arc::new(object));
        is_new
    }

    /// Takes in that an object is gone.
    pub fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    /// The object, if it is there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&K> {
        self.objects.get(key).map(|object| &**object)
    }

    /// The version of the object, if it is there.
    #[must_use]
    pub fn version(&self, key: &Key) -> Option<u128> {
        version(self.get(key)?)
    }

    /// Whether the object is there.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    /// Whether the first list is complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The objects, to be kept, ordered by namespace and name.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects, ordered by namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &K> {
        self.objects.values().map(|object| &**object)
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace(), object.name_any())
}

/// Resource versions of one kind can be compared as numbers (KEP-5504).
fn version<K: Resource>(object: &K) -> Option<u128> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    use super::*;

    fn node(name: &str, uid: &str, version: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": uid, "resourceVersion": version}})).unwrap()
    }

    fn versions(cache: &Cache<Node>) -> Vec<String> {
        cache.objects().map(|node| node.resource_version().unwrap()).collect()
    }

    #[test]
    fn a_list_replaces_what_was_known_when_it_is_complete() {
        let mut cache = Cache::default();
        cache.take(Event::Apply(node("a", "1", "5")));
        cache.take(Event::Init);
        cache.take(Event::InitApply(node("b", "2", "7")));
        assert_eq!(versions(&cache), ["5"]);
        assert!(!cache.is_complete());
        cache.take(Event::InitDone);
        assert_eq!(versions(&cache), ["7"]);
        assert!(cache.is_complete());
    }

    #[test]
    fn only_what_differs_is_news() {
        let mut cache = Cache::default();
        assert!(cache.insert(node("a", "1", "10")));
        assert!(!cache.take(Event::Apply(node("a", "1", "11"))));
        assert_eq!(versions(&cache), ["11"]);
        let mut labelled = node("a", "1", "12");
        labelled.metadata.labels = Some([("zone".to_owned(), "a".to_owned())].into());
        assert!(cache.take(Event::Apply(labelled)));
        assert!(!cache.take(Event::Apply(node("a", "1", "11"))));
        assert_eq!(versions(&cache), ["12"]);
        assert!(cache.take(Event::Apply(node("a", "2", "13"))));
        assert!(cache.take(Event::Delete(node("a", "2", "14"))));
        assert!(!cache.take(Event::Delete(node("a", "2", "14"))));
        // A list may lack what was there.
        cache.take(Event::Init);
        assert!(cache.take(Event::InitDone));
    }

    #[test]
    fn an_older_version_does_not_undo_an_own_write() {
        let mut cache = Cache::default();
        cache.insert(node("a", "1", "10"));
        cache.take(Event::Apply(node("a", "1", "9")));
        assert_eq!(versions(&cache), ["10"]);
        cache.take(Event::Apply(node("a", "1", "11")));
        assert_eq!(versions(&cache), ["11"]);
        // Another object of the same name is another object.
        cache.take(Event::Apply(node("a", "2", "3")));
        assert_eq!(versions(&cache), ["3"]);
    }
}
