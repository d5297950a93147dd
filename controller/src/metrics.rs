//! What the controller counts. No metric has a label for an image or a node, and none for a Prefetch unless that is asked for: people
//! make Prefetches, and each would be a series for ever.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coral_api::{
    NodeImages, Prefetch,
    conditions::{self, READY, STALLED},
    prefetch::NodeCounts,
};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::plan::{Counts, GateOutcome};

/// The metrics of one controller. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    is_leader: Gauge,
    lease_changes: Family<ResultLabels, Counter>,
    prefetches: Family<StateLabels, Gauge>,
    nodes: Family<StateLabels, Gauge>,
    agents: Family<StateLabels, Gauge>,
    images: Family<StateLabels, Gauge>,
    prefetch_nodes: Family<PrefetchLabels, Gauge>,
    /// The Prefetches that have metrics of their own.
    labelled: Arc<Mutex<BTreeSet<(String, String)>>>,
    plan_duration: Histogram,
    ready_duration: Histogram,
    gate_duration: Histogram,
    gates: Family<OutcomeLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    writes_due: Gauge,
    events: Family<ResultLabels, Counter>,
    last_watch_event: Family<KindLabels, Gauge<f64, AtomicU64>>,
    is_ready: Arc<AtomicBool>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WriteLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PrefetchLabels {
    namespace: String,
    name: String,
    state: &'static str,
}

/// What came of something that was sent to the API server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sent {
    Success,
    Failure,
    /// It was not sent at all: there was too much of it.
    Dropped,
}

impl Sent {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Dropped => "dropped",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            is_leader: Gauge::default(),
            lease_changes: Family::default(),
            prefetches: Family::default(),
            nodes: Family::default(),
            agents: Family::default(),
            images: Family::default(),
            prefetch_nodes: Family::default(),
            labelled: Arc::default(),
            // A millisecond to 16 s.
            plan_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            // A second to 9 hours.
            ready_duration: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            gate_duration: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            gates: Family::default(),
            writes: Family::default(),
            writes_due: Gauge::default(),
            events: Family::default(),
            last_watch_event: Family::default(),
            is_ready: Arc::default(),
        };
        metrics.know_nothing();
        metrics.count_from_nothing();
        metrics
    }
}

impl Metrics {
    /// A registry with these metrics, under the prefix `coral_controller`.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("coral_controller");
        self.register_state(&mut registry);
        self.register_work(&mut registry);
        registry
    }

    /// What there is.
    fn register_state(&self, registry: &mut Registry) {
        registry.register("leader", "1 while this controller leads", self.is_leader.clone());
        registry.register(
            "prefetches",
            "Prefetches by state: Ready, Reconciling, Stalled or Suspended",
            self.prefetches.clone(),
        );
        registry.register(
            "nodes",
            "Nodes, those that may be asked for images, that pull, that wait for their turn, that keep their startup taint, that are \
             silent",
            self.nodes.clone(),
        );
        registry.register(
            "agents",
            "Nodes that are asked for images, by what their agent says: Ready, NotReady, or Behind if it has not said anything of the \
             newest request",
            self.agents.clone(),
        );
        registry.register(
            "images",
            "Images of all Prefetches on all their nodes, by state: desired, available, pulling, failed",
            self.images.clone(),
        );
        registry.register(
            "prefetch_nodes",
            "Nodes of a Prefetch by state: desired, ready, pulling, failed; only with --metrics-per-prefetch",
            self.prefetch_nodes.clone(),
        );
    }

    /// What is done.
    fn register_work(&self, registry: &mut Registry) {
        registry.register(
            "lease_changes",
            "How often this controller began (acquired) or ceased (lost, released) to lead",
            self.lease_changes.clone(),
        );
        registry.register_with_unit(
            "plan_duration",
            "How long a plan takes",
            Unit::Seconds,
            self.plan_duration.clone(),
        );
        registry.register_with_unit(
            "prefetch_ready_duration",
            "Time from the creation of a Prefetch until it is Ready for the first time",
            Unit::Seconds,
            self.ready_duration.clone(),
        );
        registry.register_with_unit(
            "gate_duration",
            "How long nodes kept their startup taint",
            Unit::Seconds,
            self.gate_duration.clone(),
        );
        registry.register(
            "gates",
            "Startup taints removed, by outcome: Ready, TimedOut, NothingToWaitFor",
            self.gates.clone(),
        );
        registry.register("writes", "Writes, by kind and result", self.writes.clone());
        registry.register(
            "writes_due",
            "Writes that wait to be carried out",
            self.writes_due.clone(),
        );
        registry.register("events", "Events for people, by result", self.events.clone());
        registry.register_with_unit(
            "last_watch_event_timestamp",
            "When the watch of a kind last said something, since the epoch",
            Unit::Seconds,
            self.last_watch_event.clone(),
        );
    }

    /// Whether the controller knows the cluster, leader or not.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// Whether the controller leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_leader.get() == 1
    }

    pub(crate) fn ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Nothing of the cluster. Who does not lead says so, and a sum over all replicas is what the leader knows.
    fn know_nothing(&self) {
        self.planned_nodes(Counts::default());
        self.agents_are(std::iter::empty());
        self.prefetches_are(std::iter::empty(), false);
        self.writes_due.set(0);
    }

    /// Makes every series that will be counted, at 0: without a first value, nobody sees the first increase.
    fn count_from_nothing(&self) {
        for result in ["acquired", "lost", "released"] {
            let _ = self.lease_changes.get_or_create(&ResultLabels { result });
        }
        for outcome in GATE_OUTCOMES {
            let _ = self.gates.get_or_create(&OutcomeLabels { outcome });
        }
        for sent in [Sent::Success, Sent::Failure] {
            for kind in WRITE_KINDS {
                let result = sent.as_str();
                let _ = self.writes.get_or_create(&WriteLabels { kind, result });
            }
        }
        for sent in [Sent::Success, Sent::Failure, Sent::Dropped] {
            let _ = self.events.get_or_create(&ResultLabels { result: sent.as_str() });
        }
        // Nothing has been said since now.
        for kind in ["Prefetch", "Node", "NodeImages"] {
            self.watch_spoke(kind, Timestamp::now());
        }
    }

    pub(crate) fn leads(&self, leads: bool, result: &'static str) {
        self.is_leader.set(leads.into());
        self.lease_changes.get_or_create(&ResultLabels { result }).inc();
        if !leads {
            self.know_nothing();
        }
    }

    pub(crate) fn watch_spoke(&self, kind: &'static str, now: Timestamp) {
        let gauge = self.last_watch_event.get_or_create(&KindLabels { kind });
        gauge.set(now.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
    }

    pub(crate) fn planned(&self, took: Duration, counts: Counts, due: usize) {
        self.plan_duration.observe(took.as_secs_f64());
        self.planned_nodes(counts);
        self.writes_due(due);
    }

    fn planned_nodes(&self, counts: Counts) {
        let Counts {
            nodes,
            eligible_nodes,
            pulling_nodes,
            waiting_nodes,
            gated_nodes,
            silent_nodes,
        } = counts;
        for (state, number) in [
            ("All", nodes),
            ("Eligible", eligible_nodes),
            ("Pulling", pulling_nodes),
            ("Waiting", waiting_nodes),
            ("Gated", gated_nodes),
            ("Silent", silent_nodes),
        ] {
            self.nodes.get_or_create(&StateLabels { state }).set(gauge(number));
        }
    }

    pub(crate) fn writes_due(&self, due: usize) {
        self.writes_due.set(gauge(due));
    }

    pub(crate) fn agents_are<'a>(&self, objects: impl Iterator<Item = &'a NodeImages>) {
        let mut by_state = [("Ready", 0), ("NotReady", 0), ("Behind", 0)];
        for object in objects {
            by_state[agent_state(object)].1 += 1;
        }
        for (state, number) in by_state {
            self.agents.get_or_create(&StateLabels { state }).set(number);
        }
    }

    pub(crate) fn prefetches_are<'a>(&self, objects: impl Iterator<Item = &'a Prefetch>, labelled: bool) {
        let mut by_state = [("Ready", 0), ("Reconciling", 0), ("Stalled", 0), ("Suspended", 0)];
        let mut images = [("desired", 0), ("available", 0), ("pulling", 0), ("failed", 0)];
        let mut seen = BTreeSet::new();
        for object in objects {
            by_state[prefetch_state(object)].1 += 1;
            let Some(status) = &object.status else { continue };
            for image in &status.images {
                let counts = [image.desired, image.available, image.pulling, image.failed];
                for ((_, sum), count) in images.iter_mut().zip(counts) {
                    *sum += i64::from(count);
                }
            }
            if labelled {
                let metadata = &object.metadata;
                let namespace = metadata.namespace.clone().unwrap_or_default();
                let name = metadata.name.clone().unwrap_or_default();
                self.label_prefetch(&namespace, &name, status.nodes);
                seen.insert((namespace, name));
            }
        }
        for (state, number) in by_state {
            self.prefetches.get_or_create(&StateLabels { state }).set(number);
        }
        for (state, number) in images {
            self.images.get_or_create(&StateLabels { state }).set(number);
        }
        let mut known = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, name) in known.difference(&seen) {
            for state in NODE_STATES {
                self.prefetch_nodes.remove(&PrefetchLabels {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    state,
                });
            }
        }
        *known = seen;
    }

    fn label_prefetch(&self, namespace: &str, name: &str, nodes: NodeCounts) {
        let counts = [nodes.desired, nodes.ready, nodes.pulling, nodes.failed];
        for (state, count) in NODE_STATES.into_iter().zip(counts) {
            let labels = PrefetchLabels {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                state,
            };
            self.prefetch_nodes.get_or_create(&labels).set(count.into());
        }
    }

    pub(crate) fn became_ready(&self, after: SignedDuration) {
        self.ready_duration.observe(after.as_secs_f64().max(0.0));
    }

    pub(crate) fn gate_opened(&self, outcome: &GateOutcome, waited: SignedDuration) {
        let outcome = match outcome {
            GateOutcome::Ready => "Ready",
            GateOutcome::TimedOut { .. } => "TimedOut",
            GateOutcome::NothingToWaitFor => "NothingToWaitFor",
        };
        self.gates.get_or_create(&OutcomeLabels { outcome }).inc();
        self.gate_duration.observe(waited.as_secs_f64().max(0.0));
    }

    pub(crate) fn write_ended(&self, kind: &'static str, sent: Sent) {
        let result = sent.as_str();
        self.writes.get_or_create(&WriteLabels { kind, result }).inc();
    }

    pub(crate) fn event_ended(&self, sent: Sent) {
        let result = sent.as_str();
        self.events.get_or_create(&ResultLabels { result }).inc();
    }
}

const GATE_OUTCOMES: [&str; 3] = ["Ready", "TimedOut", "NothingToWaitFor"];
const WRITE_KINDS: [&str; 6] = [
    "NodeImages",
    "DeleteNodeImages",
    "NodeLabels",
    "RemoveStartupTaint",
    "PrefetchStatus",
    "DeletePrefetch",
];
const NODE_STATES: [&str; 4] = ["desired", "ready", "pulling", "failed"];

/// Index of the state of a node's agent among `Ready`, `NotReady` and `Behind`.
fn agent_state(object: &NodeImages) -> usize {
    match &object.status {
        Some(status) if status.observed_generation == object.metadata.generation => {
            usize::from(!conditions::is_true(&status.conditions, READY))
        }
        _ => 2,
    }
}

/// Index of the state of a Prefetch among `Ready`, `Reconciling`, `Stalled` and `Suspended`.
fn prefetch_state(object: &Prefetch) -> usize {
    let is = |kind| {
        let status = object.status.as_ref();
        status.is_some_and(|status| conditions::is_true(&status.conditions, kind))
    };
    if is(STALLED) {
        2
    } else if is(READY) {
        0
    } else if object.spec.suspend {
        3
    } else {
        1
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
