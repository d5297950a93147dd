//! What the controller counts. No metric has a label for an image, and registries are told apart up to a bound: people name them.

use std::{
    collections::BTreeMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use coral_api::{FailureReason, Mirror, MirrorStatus};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::tally::{Tally, mirror_word};

/// The metrics of one controller. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    looks: Family<ResultLabels, Counter>,
    copies: Family<CopyLabels, Counter>,
    removals: Family<ResultLabels, Counter>,
    marks: Family<ResultLabels, Counter>,
    writes: Family<ResultLabels, Counter>,
    mirrors: Gauges<StateLabels>,
    originals: Gauges<OriginalLabels>,
    copies_by_state: Gauges<StateLabels>,
    failing_copies: Gauges<FailingLabels>,
    looks_due: Gauge,
    look_delay: Gauge<f64, AtomicU64>,
    last_plan: Gauge<f64, AtomicU64>,
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
struct CopyLabels {
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct OriginalLabels {
    registry: String,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct FailingLabels {
    registry: String,
    reason: &'static str,
}

const fn labels(is_success: bool) -> ResultLabels {
    ResultLabels {
        result: if is_success { "success" } else { "failure" },
    }
}

const fn copy_labels(failure: Option<FailureReason>) -> CopyLabels {
    CopyLabels {
        result: labels(failure.is_none()).result,
        reason: match failure {
            Some(reason) => reason.as_str(),
            None => "",
        },
    }
}

const MIRROR_STATES: [&str; 4] = ["Ready", "Reconciling", "Stalled", "Suspended"];

/// Gauges of which those go that are not spoken of any more.
#[derive(Clone, Debug)]
struct Gauges<L> {
    family: Family<L, Gauge>,
    known: Arc<Mutex<BTreeMap<L, i64>>>,
}

impl<L: Clone + Eq + Hash> Default for Gauges<L> {
    fn default() -> Self {
        Self {
            family: Family::default(),
            known: Arc::default(),
        }
    }
}

impl<L: Clone + Eq + Hash + Ord> Gauges<L> {
    fn are(&self, numbers: BTreeMap<L, i64>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for labels in known.keys().filter(|labels| !numbers.contains_key(labels)) {
            self.family.remove(labels);
        }
        for (labels, number) in &numbers {
            self.family.get_or_create(labels).set(*number);
        }
        *known = numbers;
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            looks: Family::default(),
            copies: Family::default(),
            removals: Family::default(),
            marks: Family::default(),
            writes: Family::default(),
            mirrors: Gauges::default(),
            originals: Gauges::default(),
            copies_by_state: Gauges::default(),
            failing_copies: Gauges::default(),
            looks_due: Gauge::default(),
            look_delay: Gauge::default(),
            last_plan: Gauge::default(),
            leads: Gauge::default(),
            moved: Counter::default(),
            bytes: Arc::default(),
            is_ready: Arc::default(),
        };
        metrics.know_nothing();
        metrics.count_from_nothing();
        metrics
    }
}

impl Metrics {
    /// A registry with these metrics, under the prefix `coral_mirror`.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("coral_mirror");
        self.register_state(&mut registry);
        self.register_work(&mut registry);
        registry
    }

    /// What there is.
    fn register_state(&self, registry: &mut Registry) {
        registry.register("leads", "Whether this replica works", self.leads.clone());
        registry.register(
            "mirrors",
            "Mirrors by state: Ready, Reconciling, Stalled or Suspended",
            self.mirrors.family.clone(),
        );
        registry.register(
            "originals",
            "Originals, by their registry and how they were when they were last looked at",
            self.originals.family.clone(),
        );
        registry.register(
            "copies_by_state",
            "Copies, by where they stand",
            self.copies_by_state.family.clone(),
        );
        registry.register(
            "failing_copies",
            "Copies that could not be made or renewed although their original was to be had, by their registry and the reason",
            self.failing_copies.family.clone(),
        );
        registry.register(
            "looks_due",
            "Images that are to be looked at and wait for their turn",
            self.looks_due.clone(),
        );
        registry.register_with_unit(
            "look_delay",
            "How long the image whose turn was first has been waiting to be looked at",
            Unit::Seconds,
            self.look_delay.clone(),
        );
        registry.register_with_unit(
            "last_plan_timestamp",
            "When this controller last thought about what is to be done, since the epoch; 0 while it does not lead",
            Unit::Seconds,
            self.last_plan.clone(),
        );
    }

    /// What is done.
    fn register_work(&self, registry: &mut Registry) {
        registry.register("looks", "Looks at originals, by result", self.looks.clone());
        registry.register(
            "copies",
            "Copies that were made, by result and the reason of a failure",
            self.copies.clone(),
        );
        registry.register(
            "removals",
            "Tags that were removed because nobody needs them, by result",
            self.removals.clone(),
        );
        registry.register(
            "marks",
            "Times that other clusters were told which copies this one needs, by result",
            self.marks.clone(),
        );
        registry.register("writes", "Writes to the API server, by result", self.writes.clone());
        registry.register_with_unit(
            "moved",
            "What was taken from originals' registries for copies",
            Unit::Bytes,
            self.moved.clone(),
        );
    }

    /// Makes every series that will be counted, at 0: without a first value, nobody sees the first increase.
    fn count_from_nothing(&self) {
        for family in [&self.looks, &self.removals, &self.marks, &self.writes] {
            for is_success in [true, false] {
                drop(family.get_or_create(&labels(is_success)));
            }
        }
        drop(self.copies.get_or_create(&copy_labels(None)));
        for reason in FailureReason::ALL {
            drop(self.copies.get_or_create(&copy_labels(Some(reason))));
        }
    }

    /// Nothing of the cluster. Who does not lead says so, and a sum over all replicas is what the leader knows.
    fn know_nothing(&self) {
        self.images_are(Tally::default());
        self.mirrors_are(std::iter::empty());
        self.looks_wait(0, SignedDuration::ZERO);
        self.last_plan.set(0.0);
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
        if !leads {
            self.know_nothing();
        }
    }

    pub(super) fn looked(&self, is_success: bool) {
        self.looks.get_or_create(&labels(is_success)).inc();
    }

    pub(super) fn copied(&self, failure: Option<FailureReason>) {
        self.copies.get_or_create(&copy_labels(failure)).inc();
    }

    pub(super) fn removed(&self, is_success: bool) {
        self.removals.get_or_create(&labels(is_success)).inc();
    }

    pub(super) fn marked(&self, is_success: bool) {
        self.marks.get_or_create(&labels(is_success)).inc();
    }

    pub(super) fn written(&self, is_success: bool) {
        self.writes.get_or_create(&labels(is_success)).inc();
    }

    /// Takes up what was moved since the last time.
    pub(super) fn count_bytes(&self) {
        self.moved.inc_by(self.bytes.swap(0, Ordering::Relaxed));
    }

    pub(super) fn planned(&self, now: Timestamp) {
        self.last_plan
            .set(now.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
    }

    /// So many images wait to be looked at, the first of them for so long.
    pub(super) fn looks_wait(&self, number: usize, longest: SignedDuration) {
        self.looks_due.set(i64::try_from(number).unwrap_or(i64::MAX));
        self.look_delay.set(longest.as_secs_f64());
    }

    pub(super) fn images_are(&self, tally: Tally) {
        let Tally {
            originals,
            copies,
            failing,
        } = tally;
        let originals = originals.into_iter();
        self.originals.are(
            originals
                .map(|((registry, state), number)| (OriginalLabels { registry, state }, number))
                .collect(),
        );
        let copies = copies.into_iter();
        self.copies_by_state
            .are(copies.map(|(state, number)| (StateLabels { state }, number)).collect());
        let failing = failing.into_iter();
        self.failing_copies.are(
            failing
                .map(|((registry, reason), number)| (FailingLabels { registry, reason }, number))
                .collect(),
        );
    }

    pub(super) fn mirrors_are<'a>(&self, mirrors: impl Iterator<Item = (&'a Mirror, &'a MirrorStatus)>) {
        let mut numbers: BTreeMap<StateLabels, i64> = MIRROR_STATES
            .map(|state| (StateLabels { state }, 0))
            .into_iter()
            .collect();
        for (mirror, status) in mirrors {
            let state = mirror_word(mirror, status);
            *numbers.entry(StateLabels { state }).or_default() += 1;
        }
        self.mirrors.are(numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
        text
    }

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        metrics.leads(true);
        metrics.copied(None);
        metrics.copied(Some(FailureReason::NoSpace));
        metrics.marked(false);
        metrics.planned(Timestamp::from_second(7).unwrap());
        metrics.looks_wait(3, SignedDuration::from_secs(9));
        metrics.bytes.store(5, Ordering::Relaxed);
        metrics.count_bytes();
        let of = |word| (("r.lan".to_owned(), word), 2);
        metrics.images_are(Tally {
            originals: [of("Unreachable")].into(),
            copies: [("Present", 2)].into(),
            failing: [of("NoSpace")].into(),
        });
        let told = text(&metrics);
        for line in [
            "coral_mirror_leads 1",
            r#"coral_mirror_mirrors{state="Stalled"} 0"#,
            r#"coral_mirror_originals{registry="r.lan",state="Unreachable"} 2"#,
            r#"coral_mirror_copies_by_state{state="Present"} 2"#,
            r#"coral_mirror_failing_copies{registry="r.lan",reason="NoSpace"} 2"#,
            "coral_mirror_looks_due 3",
            "coral_mirror_look_delay_seconds 9.0",
            "coral_mirror_last_plan_timestamp_seconds 7.0",
            r#"coral_mirror_looks_total{result="failure"} 0"#,
            r#"coral_mirror_copies_total{result="success",reason=""} 1"#,
            r#"coral_mirror_copies_total{result="failure",reason="NoSpace"} 1"#,
            r#"coral_mirror_copies_total{result="failure",reason="Timeout"} 0"#,
            r#"coral_mirror_removals_total{result="failure"} 0"#,
            r#"coral_mirror_marks_total{result="failure"} 1"#,
            r#"coral_mirror_writes_total{result="success"} 0"#,
            "coral_mirror_moved_bytes_total 5",
        ] {
            assert!(told.contains(line), "{line} is missing in:\n{told}");
        }
    }

    #[test]
    fn who_does_not_lead_knows_nothing() {
        let metrics = Metrics::default();
        metrics.leads(true);
        metrics.planned(Timestamp::from_second(7).unwrap());
        metrics.looks_wait(3, SignedDuration::from_secs(9));
        metrics.images_are(Tally {
            originals: [(("r.lan".to_owned(), "Unreachable"), 1)].into(),
            ..Tally::default()
        });
        metrics.leads(false);
        let told = text(&metrics);
        assert!(!told.contains("r.lan"), "{told}");
        for line in [
            "coral_mirror_leads 0",
            "coral_mirror_looks_due 0",
            "coral_mirror_look_delay_seconds 0.0",
            "coral_mirror_last_plan_timestamp_seconds 0.0",
        ] {
            assert!(told.contains(line), "{line} is missing in:\n{told}");
        }
    }
}
