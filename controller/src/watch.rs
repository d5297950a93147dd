//! What the API server says of the four kinds of objects that the plan looks at.

use coral_api::{MirroredImage, NodeImages, Prefetch, mirrored_image::UsedBy};
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, watcher},
};

/// Objects in one page of a list. A page is in memory before it is pruned, and what is kept of it lies between what is not.
const PAGE_SIZE: u32 = 100;

/// Something that a watch says.
pub(crate) enum Event {
    Prefetch(Box<watcher::Event<Prefetch>>),
    Node(Box<watcher::Event<Node>>),
    NodeImages(Box<watcher::Event<NodeImages>>),
    MirroredImage(Box<watcher::Event<MirroredImage>>),
}

impl Event {
    /// The kind of object that it is about.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Prefetch(_) => "Prefetch",
            Self::Node(_) => "Node",
            Self::NodeImages(_) => "NodeImages",
            Self::MirroredImage(_) => "MirroredImage",
        }
    }
}

/// Everything that happens to these objects, for ever.
pub(crate) fn events(client: &Client) -> impl Stream<Item = Event> + Unpin + use<> {
    stream::select(
        watch::<Prefetch>(client, "prefetches", prune).map(|event| Event::Prefetch(Box::new(event))),
        stream::select(
            watch::<Node>(client, "nodes", crate::node::prune).map(|event| Event::Node(Box::new(event))),
            stream::select(
                watch::<NodeImages>(client, "nodeimages", prune_node_images)
                    .map(|event| Event::NodeImages(Box::new(event))),
                watch::<MirroredImage>(client, "mirroredimages", prune_mirrored_image)
                    .map(|event| Event::MirroredImage(Box::new(event))),
            ),
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

/// As [`prune`]. Only where pods are sent is looked at, and what else is told of an image changes more often.
pub(crate) fn prune_mirrored_image(object: &mut MirroredImage) {
    prune(object);
    object.metadata.annotations = None;
    object.spec.requested_by = Vec::new();
    if let Some(status) = &mut object.status {
        status.used_by = UsedBy::default();
        status.unused_since = None;
        status.observed_generation = None;
        status.digest = None;
        for copy in &mut status.destinations {
            copy.digest = None;
            copy.copied_bytes = 0;
            copy.last_copy_time = None;
            copy.failure = None;
        }
        if let Some(origin) = &mut status.origin {
            origin.checked_at = Time(Timestamp::UNIX_EPOCH);
            origin.message = String::new();
        }
    }
}

/// Everything that happens to the objects of one kind.
fn watch<K>(
    client: &Client,
    kind: &'static str,
    prune: fn(&mut K),
) -> impl Stream<Item = watcher::Event<K>> + Unpin + use<K>
where
    K: Watched + Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    coral_runtime::watch(Api::<K>::all(client.clone()), kind, PAGE_SIZE)
        .modify(prune)
        .flat_map(|event| {
            stream::iter(match event {
                Ok(event) => vec![event],
                Err(error) if K::MAY_BE_UNKNOWN && is_unknown(&error) => {
                    vec![watcher::Event::Init, watcher::Event::InitDone]
                }
                Err(_) => Vec::new(),
            })
        })
        .boxed()
}

/// What is watched.
trait Watched {
    /// Whether there are none where the API server knows no such kind, or does not let the controller see them: an installation whose manifests
    /// are older than the controller must not stand still for want of what it did without.
    const MAY_BE_UNKNOWN: bool = false;
}

impl Watched for Prefetch {}
impl Watched for Node {}
impl Watched for NodeImages {}
impl Watched for MirroredImage {
    const MAY_BE_UNKNOWN: bool = true;
}

fn is_unknown(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(error) = error else {
        return false;
    };
    // By the code: of a group or kind that it does not know the API server says so in plain text, which has no reason.
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_kind_that_is_not_there_or_not_to_be_seen_is_unknown() {
        // What the API server says of a path that it does not serve, as the client understands it; what it says to those without the
        // right; and what is an outage.
        let cases = [
            (404, "Failed to parse error data", true),
            (404, "NotFound", true),
            (403, "Forbidden", true),
            (500, "InternalError", false),
            (401, "Unauthorized", false),
        ];
        for (code, reason, expected) in cases {
            let status = Status::failure("404 page not found", reason).with_code(code);
            let error = watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()));
            assert_eq!(is_unknown(&error), expected, "{code} {reason}");
        }
    }
}
