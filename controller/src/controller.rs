//! The loop: takes in what the watches say, and carries out what the plan lacks.

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use coral_api::{NodeImages, Prefetch, PrefetchStatus};
use futures::{Stream, StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};

use crate::{
    cache::Cache,
    plan::{Cluster, Slots, Write, plan},
    write::{self, Written, carry_out},
};

/// Writes that are under way at the same time.
const PARALLEL_WRITES: usize = 16;
/// How long the loop gathers events before it plans: a burst becomes one plan.
const GATHER: Duration = Duration::from_millis(50);
/// How often the loop plans although nothing happened: refreshes, silent nodes and expiry depend on the time alone.
const TICK: Duration = Duration::from_secs(5);
/// Least time between two writes of one Prefetch's status whose conditions stay the same.
const STATUS_INTERVAL: SignedDuration = SignedDuration::from_secs(2);
/// Pause after a write that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The controller.
pub(crate) struct Controller {
    client: Client,
    prefetches: Cache<Prefetch>,
    nodes: Cache<Node>,
    node_images: Cache<NodeImages>,
    slots: Slots,
    /// When the status of a Prefetch was last written.
    status_times: BTreeMap<(String, String), Timestamp>,
}

/// Something that a watch says.
enum Event {
    Prefetch(Box<watcher::Event<Prefetch>>),
    Node(Box<watcher::Event<Node>>),
    NodeImages(Box<watcher::Event<NodeImages>>),
}

impl Controller {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            prefetches: Cache::default(),
            nodes: Cache::default(),
            node_images: Cache::default(),
            slots: Slots::default(),
            status_times: BTreeMap::new(),
        }
    }

    /// Works until `shutdown` completes.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut events = stream::select(
            watch::<Prefetch>(&self.client, "prefetches", drop_managed_fields)
                .map(|event| Event::Prefetch(Box::new(event))),
            stream::select(
                watch::<Node>(&self.client, "nodes", crate::node::prune).map(|event| Event::Node(Box::new(event))),
                watch::<NodeImages>(&self.client, "nodeimages", drop_managed_fields)
                    .map(|event| Event::NodeImages(Box::new(event))),
            ),
        );
        let mut shutdown = std::pin::pin!(shutdown);
        let mut pause = TICK;
        loop {
            tokio::select! {
                // The watchers' streams have no end.
                Some(event) = events.next() => self.take(event),
                () = tokio::time::sleep(pause) => {}
                () = &mut shutdown => return,
            }
            let gathered = tokio::time::sleep(GATHER);
            let mut gathered = std::pin::pin!(gathered);
            loop {
                tokio::select! {
                    Some(event) = events.next() => self.take(event),
                    () = &mut gathered => break,
                }
            }
            pause = tokio::select! {
                pause = self.act() => pause,
                () = &mut shutdown => return,
            };
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Prefetch(event) => self.prefetches.take(*event),
            Event::Node(event) => self.nodes.take(*event),
            Event::NodeImages(event) => self.node_images.take(*event),
        }
    }

    /// Carries out what the plan lacks. Returns how long to wait, at most, before the next plan.
    async fn act(&mut self) -> Duration {
        // What is not listed yet must not pass for deleted.
        if !(self.prefetches.is_complete() && self.nodes.is_complete() && self.node_images.is_complete()) {
            return TICK;
        }
        let now = Timestamp::now();
        let (writes, slots) = plan(
            Cluster {
                prefetches: &self.prefetches.objects().collect::<Vec<_>>(),
                nodes: &self.nodes.objects().collect::<Vec<_>>(),
                node_images: &self.node_images.objects().collect::<Vec<_>>(),
            },
            &self.slots,
            now,
        );
        self.slots = slots;
        let prefetches = &self.prefetches;
        self.status_times
            .retain(|(namespace, name), _| prefetches.contains(&(Some(namespace.clone()), name.clone())));
        let mut pause = TICK;
        let mut due = Vec::new();
        for write in writes {
            match self.status_time(&write, now) {
                Some(time) if time > now => {
                    let wait = Duration::try_from(time.duration_since(now)).unwrap_or_default();
                    pause = pause.min(wait);
                }
                _ => due.push(write),
            }
        }
        let client = self.client.clone();
        let mut results = stream::iter(due)
            .map(|write| carry_out(&client, write))
            .buffer_unordered(PARALLEL_WRITES);
        while let Some(result) = results.next().await {
            match result {
                Ok(written) => self.note(written, now),
                Err(error) => {
                    if is_worth_a_word(&error) {
                        let cause = error.source().map(ToString::to_string);
                        tracing::warn!(error = %error, cause, "A write failed; it will be tried again");
                    }
                    pause = pause.min(FAILURE_PAUSE);
                }
            }
        }
        pause
    }

    /// When a write of a status may be carried out: at once when a condition changes, else a while after the last one.
    fn status_time(&self, write: &Write, now: Timestamp) -> Option<Timestamp> {
        let Write::PrefetchStatus {
            namespace,
            name,
            status,
        } = write
        else {
            return None;
        };
        let known = self
            .prefetches
            .objects()
            .find(|prefetch| prefetch.namespace().as_ref() == Some(namespace) && prefetch.name_any() == *name)
            .and_then(|prefetch| prefetch.status.as_ref());
        if known.is_none_or(|known| !has_same_conditions(known, status)) {
            return Some(now);
        }
        let last = self.status_times.get(&(namespace.clone(), name.clone()))?;
        Some(*last + STATUS_INTERVAL)
    }

    /// Takes in what came of a write, so that the next plan starts from it.
    fn note(&mut self, written: Written, now: Timestamp) {
        match written {
            Written::NodeImages(object) => self.node_images.insert(*object),
            Written::NodeImagesGone(name) => self.node_images.remove(&(None, name)),
            Written::Node(object) => self.nodes.insert(*object),
            Written::Prefetch(object) => {
                let key = (object.namespace().unwrap_or_default(), object.name_any());
                self.status_times.insert(key, now);
                self.prefetches.insert(*object);
            }
            Written::PrefetchGone { namespace, name } => {
                self.status_times.remove(&(namespace.clone(), name.clone()));
                self.prefetches.remove(&(Some(namespace), name));
            }
        }
    }
}

/// An object that vanished while it was written is no news.
fn is_worth_a_word(error: &write::Error) -> bool {
    !matches!(error, write::Error::Api { source: kube::Error::Api(status), .. } if status.is_not_found())
}

fn has_same_conditions(known: &PrefetchStatus, status: &PrefetchStatus) -> bool {
    let of = |status: &PrefetchStatus| -> Vec<(String, String, String, Option<i64>)> {
        let conditions = status.conditions.iter();
        conditions
            .map(|condition| {
                (
                    condition.type_.clone(),
                    condition.status.clone(),
                    condition.reason.clone(),
                    condition.observed_generation,
                )
            })
            .collect()
    };
    of(known) == of(status)
}

fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Everything that happens to the objects of one kind, for ever. A watch that breaks is begun again, with growing pauses.
fn watch<K>(
    client: &Client,
    kind: &'static str,
    prune: fn(&mut K),
) -> impl Stream<Item = watcher::Event<K>> + Unpin + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(prune)
        .filter_map(move |event| async move {
            event
                .inspect_err(|error| tracing::warn!(kind, error = %error, "A watch broke; it is begun again"))
                .ok()
        })
        .boxed()
}
