//! The loop: takes in what the watches say, plans while it leads, and carries out what the plan lacks.
//!
//! Watching goes on whether it leads or not, so that whoever takes over knows the cluster already. A plan is made only when no write is
//! under way: what is being written is in no cache, and a plan that does not know of it could give the same turn to somebody else.

use std::{
    collections::BTreeMap,
    error::Error as _,
    time::{Duration, Instant},
};

use coral_api::{MirroredImage, NodeImages, Prefetch, PrefetchStatus};
use coral_runtime::{Cache, Clock, Leadership};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::{Client, ResourceExt as _};

use crate::{
    catch_up::{self, CatchUp, Versions},
    metrics::{Metrics, Sent},
    news::{Aftermath, Labels, tell},
    notice::time_to_ready,
    options::Options,
    plan::{Cluster, Limits, Memory, Plan, Write, plan},
    queue::{Queue, Subject},
    rate::Rate,
    recorder::Recorder,
    watch::{self, Event, events},
    write::{self, Written, carry_out},
};

/// Writes that are under way at the same time.
const PARALLEL_WRITES: usize = 16;
/// How long the loop gathers events before it plans: a burst becomes one plan.
const GATHER: Duration = Duration::from_millis(50);
/// How often the loop plans although nothing happened: refreshes, silent nodes and expiry depend on the time alone.
const TICK: Duration = Duration::from_secs(5);
/// How long the writes of one plan go on when something has happened since: what is left of them is planned anew.
const BATCH: Duration = Duration::from_millis(500);
/// Least time between two writes of one Prefetch's status whose conditions stay the same.
const STATUS_INTERVAL: SignedDuration = SignedDuration::from_secs(2);
/// Pause after the API server did not say what it has.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// How long a stop waits for the answers to what is under way.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The controller. Several may run in one process.
pub struct Controller {
    client: Client,
    options: Options,
    metrics: Metrics,
    prefetches: Cache<Prefetch>,
    nodes: Cache<Node>,
    node_images: Cache<NodeImages>,
    mirrored_images: Cache<MirroredImage>,

    /// Which time in office it is, while the controller leads.
    tenure: Option<u64>,
    catch_up: CatchUp,
    memory: Memory,
    queue: Queue,
    rate: Rate,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// When the status of a Prefetch was last written.
    status_times: BTreeMap<(String, String), Timestamp>,
    clock: Clock,
    /// Who writes Events down, once the controller runs.
    recorder: Option<Recorder>,
    labels: Labels,
    /// Since when something is known that no plan has seen.
    news: Option<Instant>,
    /// When to plan although nothing happens.
    next_plan: Instant,
    /// How long the last plan took.
    plan_took: Duration,
    /// When the writes of the last plan have had their time.
    batch_end: Instant,
}

/// What ended.
enum Ended {
    Write {
        subject: Subject,
        kind: &'static str,
        aftermath: Option<Aftermath>,
        result: Result<Written, write::Error>,
    },
    Versions(catch_up::Result<Versions>),
}

impl Controller {
    /// A controller that works through `client`.
    #[must_use]
    pub fn new(client: Client, options: Options) -> Self {
        let now = Instant::now();
        Self {
            rate: Rate::new(options.max_writes_per_second, now),
            client,
            options,
            metrics: Metrics::default(),
            prefetches: Cache::default(),
            nodes: Cache::default(),
            node_images: Cache::default(),
            mirrored_images: Cache::default(),
            tenure: None,
            catch_up: CatchUp::Done,
            memory: Memory::default(),
            queue: Queue::default(),
            under_way: FuturesUnordered::new(),
            status_times: BTreeMap::new(),
            clock: Clock::new(),
            recorder: None,
            labels: Labels::default(),
            news: None,
            next_plan: now,
            plan_took: Duration::ZERO,
            batch_end: now,
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
        let identity = self.options.identity.clone();
        self.recorder = Some(Recorder::start(self.client.clone(), identity, self.metrics.clone()));
        let mut events = events(&self.client);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let wake = self.act(leadership.tenure());
            tokio::select! {
                // Whether it may write comes before everything that would make it write.
                biased;
                () = &mut shutdown => break,
                () = leadership.is_other_than(self.tenure) => {}
                Some(ended) = self.under_way.next() => self.take_ended(ended),
                // The watchers' streams have no end.
                Some(event) = events.next() => self.take(event),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        self.queue.clear();
        let last_writes = async { while self.under_way.next().await.is_some() {} };
        tokio::select! {
            () = leadership.is_other_than(self.tenure) => {}
            _ = tokio::time::timeout(LAST_WRITES, last_writes) => {}
        }
        self.under_way.clear();
        if self.tenure.is_some() {
            self.metrics.leads(false, "released");
        }
        leadership.release().await;
    }

    /// Takes in what a watch says.
    fn take(&mut self, event: Event) {
        self.metrics.watch_spoke(event.kind(), Timestamp::now());
        let is_new = match event {
            Event::Prefetch(event) => {
                self.labels.forget();
                self.prefetches.take(*event)
            }
            Event::Node(event) => self.nodes.take(*event),
            Event::NodeImages(event) => self.node_images.take(*event),
            Event::MirroredImage(event) => self.mirrored_images.take(*event),
        };
        if is_new {
            self.news.get_or_insert_with(Instant::now);
        }
    }

    /// Starts what is due. Returns when something will be due again although nothing happens.
    fn act(&mut self, tenure: Option<u64>) -> Instant {
        let now = Instant::now();
        if tenure != self.tenure {
            self.tenure_changed(tenure, now);
        }
        // What is not listed yet must not pass for deleted.
        let is_complete = self.prefetches.is_complete()
            && self.nodes.is_complete()
            && self.node_images.is_complete()
            && self.mirrored_images.is_complete();
        if !is_complete {
            return now + TICK;
        }
        self.metrics.ready();
        if self.tenure.is_none() {
            return now + TICK;
        }
        if let Some(wake) = self.catch_up(now) {
            return wake;
        }
        if self.news.is_some() && now >= self.batch_end {
            self.queue.clear();
        }
        if self.queue.len() == 0 && self.under_way.is_empty() && now >= self.plan_time() {
            self.plan(now);
        }
        let next_token = self.start_writes(now);
        match (self.queue.len(), self.under_way.len()) {
            (0, 0) => self.plan_time(),
            // Its end wakes the loop.
            (0, _) => now + TICK,
            _ => {
                let batch_end = self.news.map(|_| self.batch_end);
                batch_end.into_iter().chain(next_token).fold(now + TICK, Instant::min)
            }
        }
    }

    /// Begins or ceases to lead. What was planned before is void, and so is what was remembered.
    fn tenure_changed(&mut self, tenure: Option<u64>, now: Instant) {
        // Drops the connections of what is under way.
        self.under_way.clear();
        self.queue.clear();
        self.memory = Memory::default();
        let is_elected = self.options.lease.is_some();
        self.catch_up = if tenure.is_some() && is_elected {
            CatchUp::Due
        } else {
            CatchUp::Done
        };
        self.next_plan = now;
        self.tenure = tenure;
        let result = if tenure.is_some() { "acquired" } else { "lost" };
        self.metrics.leads(tenure.is_some(), result);
    }

    /// Sees to it that the cache has what was written before. Returns when to look again, as long as it has not.
    fn catch_up(&mut self, now: Instant) -> Option<Instant> {
        let is_due = matches!(self.catch_up, CatchUp::Due) && self.under_way.is_empty();
        if is_due && now < self.next_plan {
            return Some(self.next_plan);
        }
        if is_due {
            self.catch_up = CatchUp::Asking;
            let versions = catch_up::versions(self.client.clone()).map(Ended::Versions);
            self.under_way.push(versions.boxed());
        }
        let is_done = self.catch_up.look(&self.node_images, now);
        (!is_done).then(|| self.catch_up.until().unwrap_or(now + TICK))
    }

    /// When the next plan is to be made: soon after something happened, but not all the time.
    fn plan_time(&self) -> Instant {
        let gather = GATHER.max(2 * self.plan_took);
        self.news
            .map_or(self.next_plan, |news| self.next_plan.min(news + gather))
    }

    /// Plans, and puts what is due into the queue.
    fn plan(&mut self, began: Instant) {
        if let Some(set_back) = self.clock.set_back() {
            tracing::warn!(by = set_back.by().as_secs(), "The clock was set back");
            // As with whoever begins to lead: every node has its time anew.
            self.memory = Memory::default();
            self.status_times.clear();
        }
        let now = Timestamp::now();
        let limits = Limits {
            max_pulling_nodes: self.options.max_pulling_nodes.map(Into::into),
            gate_timeout: SignedDuration::try_from(self.options.gate_timeout).unwrap_or(SignedDuration::MAX),
        };
        let Plan { writes, memory, counts } = plan(
            Cluster {
                prefetches: &self.prefetches.objects().collect::<Vec<_>>(),
                nodes: &self.nodes.objects().collect::<Vec<_>>(),
                node_images: &self.node_images.objects().collect::<Vec<_>>(),
                mirrored_images: &self.mirrored_images.objects().collect::<Vec<_>>(),
            },
            &self.memory,
            &limits,
            now,
        );
        self.memory = memory;
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
        let retry = self.queue.fill(due, began);
        let ended = Instant::now();
        self.news = None;
        self.next_plan = retry.map_or(ended + pause, |retry| retry.min(ended + pause));
        self.batch_end = ended + BATCH;
        self.plan_took = ended - began;
        self.metrics.planned(self.plan_took, counts, self.queue.len());
        self.metrics.agents_are(self.node_images.objects());
        let labelled = self.options.metrics_per_prefetch;
        self.metrics.prefetches_are(self.prefetches.objects(), labelled);
    }

    /// Starts as many writes as may be under way. Returns when another may be started, if the rate is what holds it back.
    fn start_writes(&mut self, now: Instant) -> Option<Instant> {
        while self.under_way.len() < PARALLEL_WRITES && self.queue.len() > 0 {
            if !self.rate.take(now) {
                return Some(self.rate.next());
            }
            let Some(write) = self.queue.next() else { break };
            let (subject, kind, aftermath) = (
                Subject::of(&write),
                kind(&write),
                Aftermath::of(&write, &self.prefetches),
            );
            let client = self.client.clone();
            let write = async move {
                let result = carry_out(&client, write).await;
                Ended::Write {
                    subject,
                    kind,
                    aftermath,
                    result,
                }
            };
            self.under_way.push(write.boxed());
            self.metrics.writes_due(self.queue.len());
        }
        None
    }

    /// Takes in what became of something that was under way.
    fn take_ended(&mut self, ended: Ended) {
        let now = Instant::now();
        match ended {
            Ended::Versions(Ok(versions)) => self.catch_up = CatchUp::wait_for(versions, now),
            Ended::Versions(Err(error)) => {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(error = %error, cause, "Nothing is planned until the API server says what it has");
                self.catch_up = CatchUp::Due;
                self.next_plan = now + FAILURE_PAUSE;
            }
            Ended::Write {
                subject,
                kind,
                aftermath,
                result,
            } => {
                let sent = if result.is_ok() { Sent::Success } else { Sent::Failure };
                self.metrics.write_ended(kind, sent);
                let retry = self.queue.ended(subject, result.is_ok(), now);
                self.next_plan = retry.map_or(self.next_plan, |retry| retry.min(self.next_plan));
                match result {
                    Ok(written) => {
                        if let Some(aftermath) = aftermath {
                            self.tell(&written, aftermath);
                        }
                        self.note(written);
                    }
                    Err(error) => self.take_failure(&error, now),
                }
            }
        }
    }

    fn take_failure(&mut self, error: &write::Error, now: Instant) {
        if may_have_arrived(error) {
            self.catch_up = CatchUp::Due;
            self.queue.clear();
            self.next_plan = now;
        }
        if !is_of_something_gone(error) {
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(error = %error, cause, "A write failed; it will be tried again");
        }
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
        let known = self.prefetches.get(&(Some(namespace.clone()), name.clone()));
        let known = known.and_then(|prefetch| prefetch.status.as_ref());
        if known.is_none_or(|known| !has_same_conditions(known, status)) {
            return Some(now);
        }
        let last = self.status_times.get(&(namespace.clone(), name.clone()))?;
        Some(*last + STATUS_INTERVAL)
    }

    /// Lets people know what a write has changed.
    fn tell(&mut self, written: &Written, aftermath: Aftermath) {
        match (&aftermath, written) {
            (Aftermath::Status { old }, Written::Prefetch(object)) => {
                let created = object.creation_timestamp();
                let after = created
                    .zip(object.status.as_ref())
                    .and_then(|(created, new)| time_to_ready(old.as_deref(), new, created.0));
                if let Some(after) = after {
                    self.metrics.became_ready(after);
                }
            }
            (Aftermath::Gate { outcome, waited, .. }, _) => self.metrics.gate_opened(outcome, *waited),
            _ => {}
        }
        if let Some(recorder) = &self.recorder {
            tell(recorder, written, aftermath, &self.prefetches, &mut self.labels);
        }
    }

    /// Takes in what came of a write, so that the next plan starts from it.
    fn note(&mut self, written: Written) {
        match written {
            Written::NodeImages(mut object) => {
                watch::prune_node_images(&mut object);
                self.node_images.insert(*object);
            }
            Written::NodeImagesGone(name) => self.node_images.remove(&(None, name)),
            Written::Node(object) => {
                self.nodes.insert(*object);
            }
            Written::Prefetch(mut object) => {
                watch::prune(&mut *object);
                let key = (object.namespace().unwrap_or_default(), object.name_any());
                self.status_times.insert(key, Timestamp::now());
                self.prefetches.insert(*object);
            }
            Written::PrefetchGone { namespace, name } => {
                self.status_times.remove(&(namespace.clone(), name.clone()));
                self.prefetches.remove(&(Some(namespace), name));
            }
        }
        // The watch shows what is known already, and so tells nothing new.
        self.news.get_or_insert_with(Instant::now);
    }
}

/// What a write is called in metrics.
const fn kind(write: &Write) -> &'static str {
    match write {
        Write::NodeImages { .. } => "NodeImages",
        Write::DeleteNodeImages { .. } => "DeleteNodeImages",
        Write::NodeLabels { .. } => "NodeLabels",
        Write::RemoveStartupTaint { .. } => "RemoveStartupTaint",
        Write::PrefetchStatus { .. } => "PrefetchStatus",
        Write::DeletePrefetch { .. } => "DeletePrefetch",
    }
}

/// Whether a write that failed may have changed something all the same.
fn may_have_arrived(error: &write::Error) -> bool {
    match error {
        // The API server said no; with a server's error it may not know.
        write::Error::Api {
            source: kube::Error::Api(status),
            ..
        } => status.code >= 500,
        write::Error::Api { .. } | write::Error::Timeout { .. } => true,
    }
}

/// An object that vanished while it was written is no news.
fn is_of_something_gone(error: &write::Error) -> bool {
    matches!(error, write::Error::Api { source: kube::Error::Api(status), .. } if status.is_not_found())
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

#[cfg(test)]
mod tests;
