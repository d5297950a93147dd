//! What the agent counts. No metric has a label for an image: there are too many, and their names are nobody else's business.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use coral_api::{
    FailureReason, NodeImagesStatus,
    node_images::{ImageState, ImageStatus},
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

use crate::{classify::Failure, filesystem::Space, runtime::HeldImage};

/// The metrics of one agent. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    pulls: Family<PullLabels, Counter>,
    pull_duration: Histogram,
    pull_size: Histogram,
    images: Family<StateLabels, Gauge>,
    is_paused: Gauge,
    is_runtime_up: Gauge,
    waiting_for_space: Gauge,
    is_image_filesystem_visible: Gauge,
    image_filesystem_free: Gauge,
    removals: Family<ResultLabels, Counter>,
    status_writes: Family<ResultLabels, Counter>,
    last_watch_event: Gauge<f64, AtomicU64>,
    is_ready: Arc<AtomicBool>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PullLabels {
    result: &'static str,
    reason: &'static str,
}

impl PullLabels {
    const SUCCESS: Self = Self {
        result: "success",
        reason: "",
    };

    const fn failure(reason: FailureReason) -> Self {
        Self {
            result: "failure",
            reason: reason.as_str(),
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

/// Every state, so that one without images is 0 and not missing.
const STATES: [(ImageState, &str); 5] = [
    (ImageState::Present, "Present"),
    (ImageState::Pulling, "Pulling"),
    (ImageState::Waiting, "Waiting"),
    (ImageState::Failed, "Failed"),
    (ImageState::Absent, "Absent"),
];

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            pulls: Family::default(),
            // A tenth of a second to about an hour.
            pull_duration: Histogram::new(exponential_buckets(0.1, 2.0, 16)),
            // 1 MiB to 32 GiB.
            pull_size: Histogram::new(exponential_buckets(1_048_576.0, 2.0, 16)),
            images: Family::default(),
            is_paused: Gauge::default(),
            is_runtime_up: Gauge::default(),
            waiting_for_space: Gauge::default(),
            is_image_filesystem_visible: Gauge::default(),
            image_filesystem_free: Gauge::default(),
            removals: Family::default(),
            status_writes: Family::default(),
            last_watch_event: Gauge::default(),
            is_ready: Arc::default(),
        };
        metrics.count_from_nothing();
        metrics
    }
}

impl Metrics {
    /// Makes every counter be there with 0: a rate needs a value before the first event, and an alert must not miss it.
    fn count_from_nothing(&self) {
        let _ = self.pulls.get_or_create(&PullLabels::SUCCESS);
        for reason in FailureReason::ALL {
            let _ = self.pulls.get_or_create(&PullLabels::failure(reason));
        }
        for result in ["success", "failure"] {
            let _ = self.status_writes.get_or_create(&ResultLabels { result });
        }
        for result in ["success", "refused", "failure"] {
            let _ = self.removals.get_or_create(&ResultLabels { result });
        }
        for (_, state) in STATES {
            let _ = self.images.get_or_create(&StateLabels { state });
        }
    }

    /// A registry with these metrics, under the prefix `coral_agent`.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("coral_agent");
        registry.register(
            "pulls",
            "Attempts at a pull, by result and the reason of a failure",
            self.pulls.clone(),
        );
        registry.register_with_unit(
            "pull_duration",
            "How long successful pulls took",
            Unit::Seconds,
            self.pull_duration.clone(),
        );
        registry.register_with_unit(
            "pull_size",
            "Size on the node of images that were pulled",
            Unit::Bytes,
            self.pull_size.clone(),
        );
        registry.register(
            "images",
            "Images that the node is asked for, by state",
            self.images.clone(),
        );
        registry.register("paused", "1 while the node is to pull nothing", self.is_paused.clone());
        registry.register(
            "runtime_up",
            "1 while the container runtime answers",
            self.is_runtime_up.clone(),
        );
        registry.register(
            "pulls_waiting_for_space",
            "Images that are not pulled because the image filesystem has no room for them",
            self.waiting_for_space.clone(),
        );
        registry.register(
            "image_filesystem_visible",
            "1 while the agent sees how much room there is for images",
            self.is_image_filesystem_visible.clone(),
        );
        registry.register_with_unit(
            "image_filesystem_free",
            "Free bytes of the image filesystem; 0 where the agent does not see it",
            Unit::Bytes,
            self.image_filesystem_free.clone(),
        );
        registry.register(
            "removals",
            "Attempts to take an image away, by result",
            self.removals.clone(),
        );
        registry.register(
            "status_writes",
            "Writes of the node's status, by result",
            self.status_writes.clone(),
        );
        registry.register_with_unit(
            "last_watch_event_timestamp",
            "When the watch of the node's object last said something, since the epoch",
            Unit::Seconds,
            self.last_watch_event.clone(),
        );
        registry
    }

    /// Whether the agent has heard of the API server and of the runtime.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    pub(crate) fn pull_ended(&self, result: &Result<HeldImage, Failure>, took: SignedDuration) {
        let labels = match result {
            Ok(held) => {
                self.pull_duration.observe(took.as_secs_f64());
                #[expect(clippy::cast_precision_loss, reason = "a histogram's buckets are coarser")]
                self.pull_size.observe(held.size_bytes as f64);
                PullLabels::SUCCESS
            }
            Err(failure) => PullLabels::failure(failure.reason),
        };
        self.pulls.get_or_create(&labels).inc();
    }

    pub(crate) fn pulls_wait_for_space(&self, number: usize) {
        self.waiting_for_space.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    pub(crate) fn image_filesystem_has(&self, space: Option<Space>) {
        self.is_image_filesystem_visible.set(space.is_some().into());
        self.image_filesystem_free.set(space.map_or(0, |space| space.free));
    }

    pub(crate) fn removal_ended(&self, result: &Result<(), Failure>) {
        let result = match result {
            Ok(()) => "success",
            Err(failure) if failure.reason == FailureReason::RemovalRefused => "refused",
            Err(_) => "failure",
        };
        self.removals.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn watch_spoke(&self, now: Timestamp) {
        self.last_watch_event
            .set(now.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
        self.is_ready.store(true, Ordering::Relaxed);
    }

    pub(crate) fn status_written(&self, is_written: bool) {
        let result = if is_written { "success" } else { "failure" };
        self.status_writes.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn runtime_answered(&self, answered: bool) {
        self.is_runtime_up.set(answered.into());
    }

    pub(crate) fn node_is(&self, status: &NodeImagesStatus, is_paused: bool) {
        for (state, name) in STATES {
            let has_state = |image: &&ImageStatus| image.state == state;
            let number = status.images.iter().filter(has_state).count();
            let gauge = self.images.get_or_create(&StateLabels { state: name });
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        self.is_paused.set(is_paused.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        let registry = metrics.registry();
        let failure = Failure {
            reason: FailureReason::RateLimited,
            message: "hidden".into(),
        };
        metrics.pull_ended(&Err(failure), SignedDuration::from_secs(1));
        metrics.pull_ended(&Ok(HeldImage::default()), SignedDuration::from_secs(1));
        metrics.node_is(&NodeImagesStatus::default(), true);
        metrics.runtime_answered(true);
        metrics.status_written(true);
        metrics.removal_ended(&Ok(()));
        metrics.pulls_wait_for_space(2);
        metrics.image_filesystem_has(Some(Space { free: 7, capacity: 9 }));
        metrics.watch_spoke(Timestamp::UNIX_EPOCH);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"coral_agent_pulls_total{result="failure",reason="RateLimited"} 1"#,
            r#"coral_agent_pulls_total{result="success",reason=""} 1"#,
            "coral_agent_pull_duration_seconds_count 1",
            "coral_agent_pull_size_bytes_count 1",
            r#"coral_agent_images{state="Present"} 0"#,
            r#"coral_agent_images{state="Failed"} 0"#,
            r#"coral_agent_pulls_total{result="failure",reason="NoSpace"} 0"#,
            r#"coral_agent_removals_total{result="refused"} 0"#,
            r#"coral_agent_status_writes_total{result="failure"} 0"#,
            "coral_agent_paused 1",
            "coral_agent_runtime_up 1",
            "coral_agent_pulls_waiting_for_space 2",
            "coral_agent_image_filesystem_visible 1",
            "coral_agent_image_filesystem_free_bytes 7",
            r#"coral_agent_removals_total{result="success"} 1"#,
            r#"coral_agent_status_writes_total{result="success"} 1"#,
            "coral_agent_last_watch_event_timestamp_seconds 0.0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(metrics.is_ready());
    }
}
