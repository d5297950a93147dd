//! What the API server says of the objects that the controller looks at.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{Mirror, MirroredImage};
use coral_runtime::Cache;
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};

use crate::user::{Kind, Labels, Sketch, User};

/// Objects in one page of a list, which is in memory before it is pruned.
const PAGE_SIZE: u32 = 200;

/// Something that a watch says.
pub(super) enum Event {
    Mirror(Box<watcher::Event<Mirror>>),
    Image(Box<watcher::Event<MirroredImage>>),
    Namespace(Box<watcher::Event<Namespace>>),
    User(Kind, Box<watcher::Event<Sketch>>),
}

/// Everything that happens to these objects, for ever.
pub(super) fn events(client: &Client) -> impl Stream<Item = Event> + Unpin + use<> {
    let own: [BoxStream<'static, Event>; 3] = [
        watch(Api::<Mirror>::all(client.clone()), "Mirror")
            .map(|event| Event::Mirror(Box::new(event)))
            .boxed(),
        watch(Api::<MirroredImage>::all(client.clone()), "MirroredImage")
            .map(|event| Event::Image(Box::new(event)))
            .boxed(),
        watch(Api::<Namespace>::all(client.clone()), "Namespace")
            .map(|event| Event::Namespace(Box::new(event)))
            .boxed(),
    ];
    let users = Kind::ALL.map(|kind| {
        let api = Api::<Sketch>::all_with(client.clone(), &kind.resource());
        watch(api, kind.as_str())
            .map(move |event| Event::User(kind, Box::new(event)))
            .boxed()
    });
    stream::select_all(own.into_iter().chain(users))
}

/// Everything that happens to the objects of one kind.
fn watch<K>(api: Api<K>, kind: &'static str) -> impl Stream<Item = watcher::Event<K>> + Send + use<K>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    coral_runtime::watch(api, kind, PAGE_SIZE)
        .modify(|object| object.meta_mut().managed_fields = None)
        .filter_map(async |event| event.ok())
}

/// What is known.
#[derive(Default)]
pub(super) struct World {
    pub(super) mirrors: Cache<Mirror>,
    pub(super) images: Cache<MirroredImage>,
    namespaces: Cache<Namespace>,
    users: BTreeMap<Kind, Users>,
}

/// Those of one kind.
#[derive(Default)]
struct Users {
    known: BTreeMap<(String, String), User>,
    /// What a list that is under way has brought so far.
    listed: BTreeMap<(String, String), User>,
    is_complete: bool,
}

impl World {
    /// Takes an event in. Returns whether anything is known now that was not known before.
    pub(super) fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Mirror(event) => self.mirrors.take(*event),
            Event::Image(event) => self.images.take(*event),
            Event::Namespace(mut event) => {
                if let watcher::Event::Apply(namespace) | watcher::Event::InitApply(namespace) = &mut *event {
                    prune(namespace);
                }
                self.namespaces.take(*event)
            }
            Event::User(kind, event) => self.users.entry(kind).or_default().take(kind, *event),
        }
    }

    /// Whether every list is complete. Before, nothing may be concluded from what is missing.
    pub(super) fn is_complete(&self) -> bool {
        let users = |kind| self.users.get(&kind).is_some_and(|users| users.is_complete);
        self.mirrors.is_complete()
            && self.images.is_complete()
            && self.namespaces.is_complete()
            && Kind::ALL.into_iter().all(users)
    }

    /// Everybody who uses images, ordered.
    pub(super) fn users(&self) -> Vec<&User> {
        self.users.values().flat_map(|users| users.known.values()).collect()
    }

    /// Labels of the namespaces.
    pub(super) fn namespaces(&self) -> BTreeMap<String, Labels> {
        let all = self.namespaces.objects();
        all.map(|namespace| (namespace.name_any(), namespace.labels().clone()))
            .collect()
    }

    /// Which cluster this is: what nobody gives twice, and nobody changes.
    pub(super) fn cluster(&self) -> Option<String> {
        self.namespaces.get(&(None, "kube-system".to_owned()))?.uid()
    }

    /// Identities of the images that somebody uses.
    pub(super) fn in_use(&self) -> BTreeSet<String> {
        self.users()
            .into_iter()
            .flat_map(|user| user.images.iter().cloned())
            .collect()
    }
}

impl Users {
    fn take(&mut self, kind: Kind, event: watcher::Event<Sketch>) -> bool {
        let key = |user: &User| (user.namespace.clone(), user.name.clone());
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                false
            }
            watcher::Event::InitApply(object) => {
                let user = User::new(kind, &object);
                self.listed.insert(key(&user), user);
                false
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let is_new = !self.is_complete || self.known != listed;
                self.known = listed;
                self.is_complete = true;
                is_new
            }
            watcher::Event::Apply(object) => {
                let user = User::new(kind, &object);
                self.known.insert(key(&user), user.clone()) != Some(user)
            }
            watcher::Event::Delete(object) => {
                let key = (object.namespace().unwrap_or_default(), object.name_any());
                self.known.remove(&key).is_some()
            }
        }
    }
}

/// Only the labels and the UID are looked at.
fn prune(namespace: &mut Namespace) {
    namespace.metadata.annotations = None;
    namespace.spec = None;
    namespace.status = None;
}
