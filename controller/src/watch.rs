//! What the API server says of the three kinds of objects that the plan looks at.

use coral_api::{NodeImages, Prefetch};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};

/// How long the API server is asked to keep a watch open, in seconds. Then it is begun again where it ended. A connection that has gone
/// dead in silence is noticed 5 s after that.
const WATCH_SECONDS: u32 = 60;
/// Objects in one page of a list. A page is in memory before it is pruned, and what is kept of it lies between what is not.
const PAGE_SIZE: u32 = 100;

/// Something that a watch says.
pub(crate) enum Event {
    Prefetch(Box<watcher::Event<Prefetch>>),
    Node(Box<watcher::Event<Node>>),
    NodeImages(Box<watcher::Event<NodeImages>>),
}

impl Event {
    /// The kind of object that it is about.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Prefetch(_) => "Prefetch",
            Self::Node(_) => "Node",
            Self::NodeImages(_) => "NodeImages",
        }
    }
}

/// Everything that happens to these objects, for ever.
pub(crate) fn events(client: &Client) -> impl Stream<Item = Event> + Unpin + use<> {
    stream::select(
        watch::<Prefetch>(client, "prefetches", prune).map(|event| Event::Prefetch(Box::new(event))),
        stream::select(
            watch::<Node>(client, "nodes", crate::node::prune).map(|event| Event::Node(Box::new(event))),
            watch::<NodeImages>(client, "nodeimages", prune_node_images)
                .map(|event| Event::NodeImages(Box::new(event))),
        ),
    )
}

/// Takes away what nobody looks at, and what is often more than the rest.
pub(crate) fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// As [`prune`]. Lists that were read have room for up to twice as many entries, and there are many lists.
pub(crate) fn prune_node_images(object: &mut NodeImages) {
    prune(object);
    if let Some(owners) = &mut object.metadata.owner_references {
        owners.shrink_to_fit();
    }
    object.spec.images.shrink_to_fit();
    for image in &mut object.spec.images {
        image.requested_by.shrink_to_fit();
        image.pull_secrets.shrink_to_fit();
    }
    if let Some(status) = &mut object.status {
        status.images.shrink_to_fit();
        status.conditions.shrink_to_fit();
    }
}

/// Everything that happens to the objects of one kind. A watch that breaks is begun again, with growing pauses, and one that the API
/// server has forgotten the beginning of (410 Gone) with a new list. Bookmarks make that rare.
fn watch<K>(
    client: &Client,
    kind: &'static str,
    prune: fn(&mut K),
) -> impl Stream<Item = watcher::Event<K>> + Unpin + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE_SIZE);
    watcher(Api::<K>::all(client.clone()), config)
        .backoff(coral_runtime::watch_backoff())
        .modify(prune)
        .filter_map(move |event| async move {
            event
                .inspect_err(|error| tracing::warn!(kind, error = %error, "A watch broke; it is begun again"))
                .ok()
        })
        .boxed()
}
