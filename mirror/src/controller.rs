//! The mirror controller: finds out which images are to have copies, looks at them in turn, copies, removes, and says how it is.
//!
//! ```text
//!   Mirror, Pod, …  ──watch──► world ──desired (pure)──► MirroredImage.spec
//!                                │
//!   MirroredImage.status ──schedule (pure)──► looks ──► copies ──► MirroredImage.status ──► Mirror.status
//! ```
//!
//! One task owns the state. Looks, copies and writes are tasks that report back to it. While it leads, what it knows of an image is
//! ahead of what is written; a leader that comes after it begins with what was written and with what the registries have.

mod access;
mod cleaning;
mod collect;
mod desired;
mod image_status;
mod look;
mod looking;
mod metrics;
mod mirror_status;
mod notice;
mod office;
mod pattern;
mod schedule;
mod tally;
mod turn;
mod verdict;
mod work;
mod world;
mod writing;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use coral_api::{Mirror, MirroredImage, mirrored_image};
use coral_runtime::{Leadership, LeaseOptions};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Client, ResourceExt as _,
    runtime::events::{Recorder, Reporter},
};
use tokio::sync::mpsc;

pub use self::metrics::Metrics;
use self::{
    collect::Collected,
    desired::{Cluster, desired},
    look::Looked,
    mirror_status::{Entry, mirror_status},
    office::Office,
    work::{Copied, Written},
    world::{World, events},
};
use crate::Args;

/// How long the loop gathers events before it plans.
const GATHER: Duration = Duration::from_millis(200);
/// How often it plans although nothing happens.
const TICK: Duration = Duration::from_secs(5);
/// How long copies to one destination are gathered while others are still looked at: what is copied together is sent once.
const BATCH: Duration = Duration::from_secs(1);
/// Images that are looked at at the same time.
const LOOKS: usize = 16;
/// Images that are looked at or copied at the same time.
const IN_HAND: usize = 256;
/// Writes to the API server at the same time.
const WRITES: usize = 8;
/// Pause after a write that failed, for its object.
const WRITE_PAUSE: Duration = Duration::from_secs(2);
/// Least time between two writes about an image that nobody waits for: who uses it changes all the time.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);
/// Least time between two writes of the status of a Mirror whose conditions stay as they are.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// How soon other clusters are told of what this one needs, and how often although nothing changed.
const MARK_DELAY: Duration = Duration::from_secs(15);
const MARK_INTERVAL: Duration = Duration::from_hours(12);
/// How long a stop waits for the answers to what is being written.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// Who reports Events.
const REPORTER: &str = "image.stvz.io/coral-mirror";

/// What may be chosen about a [`Controller`].
#[derive(Clone, Debug)]
pub struct Options {
    /// How to be elected. Without it the controller leads from the beginning: then it must be the only one.
    pub lease: Option<LeaseOptions>,
    /// Who this is: the holder in the Lease, and the reporter of Events.
    pub identity: String,
    /// Namespace of the Secrets that destinations name.
    pub namespace: String,
    /// Registries of originals that are spoken to in plain HTTP, as references name them. Those on this machine always are.
    pub plain_http: BTreeSet<String>,
    /// Requests at the same time at each registry.
    pub parallel: usize,
    /// How often it is looked for copies that nobody needs.
    pub collection_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: None,
            identity: "coral-mirror".to_owned(),
            namespace: coral_api::keys::SYSTEM_NAMESPACE.to_owned(),
            plain_http: BTreeSet::new(),
            parallel: 6,
            collection_interval: Duration::from_mins(10),
        }
    }
}

/// Runs the controller until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let options = args.options();
    let Args { http, client, .. } = args;
    let shutdown = coral_runtime::shutdown()?;
    let client = coral_runtime::client(&client).await?;
    tracing::info!(identity = options.identity, "The mirror controller starts");
    let controller = Controller::new(client, options);
    let metrics = controller.metrics();
    let registry = metrics.registry();
    coral_runtime::serve(&http, registry, move || metrics.is_ready()).await?;
    controller.run(shutdown).await;
    tracing::info!("The mirror controller ends as asked");
    Ok(())
}

/// The controller.
pub struct Controller {
    client: Client,
    options: Options,
    metrics: Metrics,
    world: World,
    recorder: Recorder,
    tenure: Option<u64>,
    /// What is known since this controller leads; empty while it does not.
    office: Office,
    copied_tx: mpsc::UnboundedSender<Copied>,
    copied_rx: mpsc::UnboundedReceiver<Copied>,
}

/// What ended.
enum Ended {
    Looked(Box<Looked>),
    Batch,
    Write(String, Result<Box<Written>, kube::Error>),
    Collected(Box<Collected>),
    Marked(String, BTreeSet<String>, Result<(), String>),
    Told,
}

impl Controller {
    /// A controller that works through `client`.
    #[must_use]
    pub fn new(client: Client, options: Options) -> Self {
        let (copied_tx, copied_rx) = mpsc::unbounded_channel();
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(options.identity.clone()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            office: Office::new(client.clone(), &options),
            client,
            options,
            metrics: Metrics::default(),
            world: World::default(),
            tenure: None,
            copied_tx,
            copied_rx,
        }
    }

    /// What the controller counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Works until `shutdown` completes, and then gives the Lease away. Whoever drops this future ends it as a crash would.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut leadership = match self.options.lease.clone() {
            Some(lease) => Leadership::elected(self.client.clone(), lease, self.options.identity.clone()),
            None => Leadership::unquestioned(),
        };
        let mut events = events(&self.client);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let wake = self.act(leadership.tenure());
            tokio::select! {
                // Whether it may write comes before everything that would make it write.
                biased;
                () = &mut shutdown => break,
                () = leadership.is_other_than(self.tenure) => {}
                Some(ended) = self.office.tasks.join_next() => self.take_ended(ended),
                Some(copied) = self.copied_rx.recv() => self.take_copied(&copied),
                // The watchers' streams have no end.
                Some(event) = events.next() => if self.world.take(event) {
                    self.office.has_news();
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        if self.tenure.is_some() {
            // What is being copied is given up: whoever comes next finds what has arrived.
            let last_writes = async {
                while !self.office.writing.is_empty() {
                    let Some(ended) = self.office.tasks.join_next().await else {
                        break;
                    };
                    if let Ok(Ended::Write(subject, _)) = ended {
                        self.office.writing.remove(&subject);
                    }
                }
            };
            tokio::select! {
                () = leadership.is_other_than(self.tenure) => {}
                _ = tokio::time::timeout(LAST_WRITES, last_writes) => {}
            }
            self.metrics.leads(false);
        }
        self.office.tasks.shutdown().await;
        leadership.release().await;
    }

    /// Starts what is due. Returns when something will be due again although nothing happens.
    fn act(&mut self, tenure: Option<u64>) -> Instant {
        let now = Instant::now();
        if tenure != self.tenure {
            // Ends what is under way, and forgets what is not written.
            self.office = Office::new(self.client.clone(), &self.options);
            while self.copied_rx.try_recv().is_ok() {}
            self.tenure = tenure;
            self.metrics.leads(tenure.is_some());
        }
        if !self.world.is_complete() {
            return now + TICK;
        }
        self.metrics.ready();
        if self.tenure.is_none() {
            return now + TICK;
        }
        if now >= self.office.plan_time() {
            self.plan(now);
        }
        self.start_batches(now);
        let batch = self.office.batches.values().map(|(since, _)| *since + BATCH).min();
        batch.into_iter().fold(self.office.plan_time(), Instant::min)
    }

    fn plan(&mut self, began: Instant) {
        let now = Timestamp::now();
        self.office.news = None;
        let mirrors: Vec<Arc<Mirror>> = self.world.mirrors.shared().cloned().collect();
        let images = {
            let users = self.world.users();
            let known: Vec<&MirroredImage> = self.world.images.objects().collect();
            desired(&Cluster {
                mirrors: &mirrors.iter().map(|mirror| &**mirror).collect::<Vec<_>>(),
                users: &users,
                namespaces: &self.world.namespaces(),
                images: &known,
            })
        };
        self.office.wanted = images
            .into_values()
            .map(|wanted| (mirrored_image::name(&wanted.image), wanted))
            .collect();
        self.fit(&mirrors, now);
        let wake = self.start_looks(&mirrors, now);
        self.make_mirror_statuses(&mirrors, now);
        let is_waiting = self.write(began);
        self.start_collection(&mirrors, began, now);
        self.start_marks(&mirrors, began);
        self.count(&mirrors, now);
        let ended = Instant::now();
        let pause = wake.map_or(TICK, |wake| {
            Duration::try_from(wake.duration_since(now))
                .unwrap_or_default()
                .clamp(GATHER, TICK)
        });
        let pause = if is_waiting { pause.min(WRITE_PAUSE) } else { pause };
        self.office.next_plan = ended + pause;
        self.office.plan_took = ended - began;
    }

    /// Makes the statuses fit what is wanted.
    fn fit(&mut self, mirrors: &[Arc<Mirror>], now: Timestamp) {
        let all: Vec<&Mirror> = mirrors.iter().map(|mirror| &**mirror).collect();
        let Office {
            statuses,
            wanted,
            forced,
            mirrors: known,
            ..
        } = &mut self.office;
        statuses.retain(|name, _| wanted.contains_key(name));
        for mirror in mirrors {
            let name = mirror.name_any();
            let seen = known.get(&name).or(mirror.status.as_ref());
            // Somebody has changed it: that may have been to mend what failed.
            if seen.and_then(|status| status.observed_generation) != mirror.metadata.generation {
                let of_mirror = wanted.iter().filter(|(_, wanted)| wanted.requested_by.contains(&name));
                forced.extend(of_mirror.map(|(name, _)| name.clone()));
            }
        }
        for (name, wanted) in wanted {
            let object = self.world.images.get(&(None, name.clone()));
            let old = statuses
                .get(name)
                .or_else(|| object.and_then(|object| object.status.as_ref()));
            let generation = object.and_then(|object| object.metadata.generation);
            let fitted = image_status::fitted(wanted, &all, old, generation, now);
            statuses.insert(name.clone(), fitted);
        }
    }

    fn take_ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let ended = match ended {
            Ok(ended) => ended,
            // Nobody aborts single tasks, and one that panics must not be missed in silence.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match ended {
            Ended::Looked(looked) => self.take_looked(&looked),
            Ended::Batch | Ended::Told => {}
            Ended::Write(subject, result) => self.take_written(subject, result),
            Ended::Collected(collected) => self.take_collected(&collected),
            Ended::Marked(place, references, result) => {
                self.metrics.marked(result.is_ok());
                if let Err(why) = result {
                    tracing::warn!(
                        place,
                        why,
                        "Other clusters could not be told which copies this one needs"
                    );
                    self.office.marks.remove(&place);
                } else {
                    self.office.marks.insert(place, (references, Instant::now()));
                }
            }
        }
    }

    fn make_mirror_statuses(&mut self, mirrors: &[Arc<Mirror>], now: Timestamp) {
        let office = &mut self.office;
        office.mirrors.clear();
        for mirror in mirrors {
            let name = mirror.name_any();
            let entries: Vec<Entry<'_>> = office
                .wanted
                .iter()
                .filter(|(_, wanted)| wanted.requested_by.contains(&name))
                .filter_map(|(key, wanted)| {
                    Some(Entry {
                        image: &wanted.image,
                        status: office.statuses.get(key)?,
                    })
                })
                .collect();
            let status = mirror_status(mirror, &entries, now);
            office.mirrors.insert(name, status);
        }
    }
}
