//! Writes notices down as Events, beside everything else: no Event holds a plan up, and none is worth a flood.
//!
//! ```text
//!   controller ──notice──► recorder ──create, patch──► Event
//! ```
//!
//! The first notice about something is written at once. What follows about the same is counted, and written once a minute at most, as a
//! series of the same Event with the newest words. A queue that is full, and a rate, bound the rest.

mod series;

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod},
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::Instrument as _;

use crate::{
    metrics::{Metrics, Sent},
    notice::{Notice, label_lost},
    rate::Rate,
};
use series::{Due, Log};

/// Who reports.
const REPORTER: &str = "image.stvz.io/coral-controller";
/// Notices that wait to be written.
const QUEUE: usize = 512;
/// Events that are written per second, over any longer time.
const EVENTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(5).expect("five is not zero");
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;
/// Longest part of an object's name in the name of an Event.
const MAX_NAME: usize = 200;

/// Where notices go. Ends with its owner.
pub(crate) struct Recorder {
    told_tx: mpsc::Sender<Told>,
    metrics: Metrics,
    _task: JoinSet<()>,
}

/// What the recorder is told.
enum Told {
    Notice(About, Notice),
    LabelsLost { node: String, labels: Vec<LostLabel> },
}

/// Which object a notice is about.
pub(crate) type About = Box<ObjectReference>;

/// The label of an image that a node has lost.
pub(crate) struct LostLabel {
    pub(crate) label: String,
    /// The Prefetch that wants the image.
    pub(crate) about: About,
    /// The image as the Prefetch names it.
    pub(crate) image: String,
}

impl Recorder {
    /// Starts a recorder that writes in the name of `identity`.
    pub(crate) fn start(client: Client, identity: String, metrics: Metrics) -> Self {
        let (told_tx, told_rx) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            identity,
            metrics: metrics.clone(),
            log: Log::default(),
            rate: Rate::new(EVENTS_PER_SECOND, Instant::now()),
        };
        let mut task = JoinSet::new();
        task.spawn(writer.run(told_rx).instrument(tracing::info_span!("events")));
        Self {
            told_tx,
            metrics,
            _task: task,
        }
    }

    /// Lets a notice be written when there is time for it.
    pub(crate) fn tell(&self, about: About, notice: Notice) {
        self.send(Told::Notice(about, notice));
    }

    /// Lets those be told whose pods on the node need labels that it has lost.
    pub(crate) fn labels_lost(&self, node: String, labels: Vec<LostLabel>) {
        self.send(Told::LabelsLost { node, labels });
    }

    fn send(&self, told: Told) {
        if self.told_tx.try_send(told).is_err() {
            self.metrics.event_ended(Sent::Dropped);
        }
    }
}

struct Writer {
    client: Client,
    identity: String,
    metrics: Metrics,
    log: Log,
    rate: Rate,
}

impl Writer {
    async fn run(mut self, mut told_rx: mpsc::Receiver<Told>) {
        loop {
            let now = Instant::now();
            let wake = match self.log.next() {
                Some(time) if time <= now => {
                    if self.rate.take(now) {
                        if let Some(due) = self.log.due(now) {
                            self.write(due).await;
                        }
                        continue;
                    }
                    Some(self.rate.next())
                }
                other => other,
            };
            let later = async {
                match wake {
                    Some(time) => tokio::time::sleep_until(time.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = told_rx.recv() => match told {
                    Some(Told::Notice(about, notice)) => self.take(about, notice),
                    Some(Told::LabelsLost { node, labels }) => self.look_for_pods(&node, labels).await,
                    None => return,
                },
                () = later => {}
            }
        }
    }

    fn take(&mut self, about: About, notice: Notice) {
        if !self.log.take(about, notice, Instant::now()) {
            self.metrics.event_ended(Sent::Dropped);
        }
    }

    /// Asks which pods are on the node, and tells whose need the labels.
    async fn look_for_pods(&mut self, node: &str, labels: Vec<LostLabel>) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        // As the API server's own cache has it: what a pod selects never changes.
        let parameters = ListParams::default()
            .fields(&format!("spec.nodeName={node}"))
            .match_any();
        let pods = match tokio::time::timeout(TIMEOUT, pods.list(&parameters)).await {
            Ok(Ok(pods)) => pods.items,
            Ok(Err(error)) => {
                tracing::debug!(node, error = %error, "The pods of a node could not be read");
                return;
            }
            Err(_) => {
                tracing::debug!(node, "The pods of a node could not be read in time");
                return;
            }
        };
        for LostLabel { label, about, image } in labels {
            if let Some(notice) = label_lost(&image, &label, node, &pods) {
                self.take(about, notice);
            }
        }
    }

    async fn write(&mut self, due: Due) {
        let sent = match tokio::time::timeout(TIMEOUT, self.send(&due)).await {
            Ok(Ok(())) => Sent::Success,
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "An Event could not be written");
                Sent::Failure
            }
            Err(_) => Sent::Failure,
        };
        self.metrics.event_ended(sent);
    }

    async fn send(&self, due: &Due) -> Result<(), kube::Error> {
        // Events of objects without a namespace are in this one.
        let namespace = due.about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = MicroTime(Timestamp::now());
        if due.count > 1 {
            let series = EventSeries {
                count: due.count,
                last_observed_time: now.clone(),
            };
            let patch = Patch::Merge(json!({"series": series, "note": note(&due.notice)}));
            match api.patch(&due.name, &PatchParams::default(), &patch).await {
                // The API server forgets Events after an hour.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => return other.map(|_| ()),
            }
        }
        let event = self.event(due, namespace, now);
        api.create(&PostParams::default(), &event).await.map(|_| ())
    }

    fn event(&self, due: &Due, namespace: &str, now: MicroTime) -> Event {
        let Notice {
            is_warning,
            reason,
            action,
            ..
        } = due.notice;
        Event {
            metadata: ObjectMeta {
                name: Some(due.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(if is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.to_owned()),
            action: Some(action.to_owned()),
            note: Some(note(&due.notice)),
            regarding: Some((*due.about).clone()),
            event_time: Some(now),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(self.identity.chars().take(128).collect()),
            ..Event::default()
        }
    }
}

/// The sentence, as long as the API server takes it.
fn note(notice: &Notice) -> String {
    let end = notice.note.floor_char_boundary(MAX_NOTE);
    notice.note[..end].to_owned()
}

/// A name for a new Event.
fn name(about: &ObjectReference, number: u64) -> String {
    let object = about.name.as_deref().unwrap_or("coral");
    let object = &object[..object.floor_char_boundary(MAX_NAME)];
    // The time keeps it apart from those of other processes.
    let time = Timestamp::now().as_nanosecond();
    format!("{object}.{time:x}{number:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        let notice = Notice {
            is_warning: false,
            reason: "Ready",
            action: "Prefetched",
            topic: String::new(),
            note: "ä".repeat(1000),
        };
        assert_eq!(note(&notice).len(), MAX_NOTE);
    }

    #[test]
    fn names_differ() {
        let about = ObjectReference {
            name: Some("n".repeat(253)),
            ..ObjectReference::default()
        };
        assert_ne!(name(&about, 1), name(&about, 2));
        assert!(name(&about, u64::MAX).len() <= 253);
    }
}
