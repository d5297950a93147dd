//! What the controller counts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use coral_api::{MirroredImageStatus, mirrored_image::CopyState};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The metrics of one controller. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    looks: Family<ResultLabels, Counter>,
    copies: Family<ResultLabels, Counter>,
    removals: Family<ResultLabels, Counter>,
    writes: Family<ResultLabels, Counter>,
    copies_by_state: Family<StateLabels, Gauge>,
    leads: Gauge,
    moved: Counter,
    pub(super) bytes: Arc<AtomicU64>,
    is_ready: Arc<AtomicBool>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    state: &'static str,
}

const fn labels(is_success: bool) -> ResultLabels {
    ResultLabels {
        result: if is_success { "success" } else { "failure" },
    }
}

impl Metrics {
    /// The registry for `/metrics`.
    #[must_use]
    pub fn registry(&self) -> Registry {
        for family in [&self.looks, &self.copies, &self.removals, &self.writes] {
            for is_success in [true, false] {
                drop(family.get_or_create(&labels(is_success)));
            }
        }
        let mut registry = Registry::with_prefix("coral_mirror");
        registry.register("looks", "Looks at originals, by result", self.looks.clone());
        registry.register("copies", "Copies that were made, by result", self.copies.clone());
        registry.register(
            "removals",
            "Tags that were removed because nobody needs them, by result",
            self.removals.clone(),
        );
        registry.register("writes", "Writes to the API server, by result", self.writes.clone());
        registry.register(
            "copies_by_state",
            "Copies, by where they stand",
            self.copies_by_state.clone(),
        );
        registry.register("leads", "Whether this replica works", self.leads.clone());
        registry.register_with_unit(
            "moved",
            "What was taken from originals' registries for copies",
            Unit::Bytes,
            self.moved.clone(),
        );
        registry
    }

    /// Whether the cluster is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    pub(super) fn ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    pub(super) fn looked(&self, is_success: bool) {
        self.looks.get_or_create(&labels(is_success)).inc();
    }

    pub(super) fn copied(&self, is_success: bool) {
        self.copies.get_or_create(&labels(is_success)).inc();
    }

    pub(super) fn removed(&self, is_success: bool) {
        self.removals.get_or_create(&labels(is_success)).inc();
    }

    pub(super) fn written(&self, is_success: bool) {
        self.writes.get_or_create(&labels(is_success)).inc();
    }

    /// Takes up what was moved since the last time.
    pub(super) fn count_bytes(&self) {
        self.moved.inc_by(self.bytes.swap(0, Ordering::Relaxed));
    }

    pub(super) fn copies_are<'a>(&self, statuses: impl Iterator<Item = &'a MirroredImageStatus>) {
        let states = [
            (CopyState::Pending, "Pending"),
            (CopyState::Copying, "Copying"),
            (CopyState::Present, "Present"),
            (CopyState::Failed, "Failed"),
        ];
        let mut counts = [0_i64; 4];
        for copy in statuses.flat_map(|status| &status.destinations) {
            if let Some(place) = states.iter().position(|(state, _)| *state == copy.state) {
                counts[place] += 1;
            }
        }
        for ((_, state), count) in states.into_iter().zip(counts) {
            self.copies_by_state.get_or_create(&StateLabels { state }).set(count);
        }
    }
}
