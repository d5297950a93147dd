//! What the webhook counts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coral_admission::{
    mutate::Kind,
    review::{Malformed, Reviewed},
};
use jiff::Timestamp;
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

/// The metrics of one webhook. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    admissions: Family<AdmissionLabels, Counter>,
    duration: Histogram,
    failed_requests: Family<RequestLabels, Counter>,
    failed_handshakes: Counter,
    connections: Gauge,
    expiry: Gauge<f64, AtomicU64>,
    prefetches_known: Gauge<f64, AtomicU64>,
    rewritten_images: Counter,
    copies_known: Gauge<f64, AtomicU64>,
    has_certificate: Arc<AtomicBool>,
    is_ending: Arc<AtomicBool>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AdmissionLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    code: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            admissions: Family::default(),
            // 50 µs to 0.2 s: an admission is no more than reading and writing JSON.
            duration: Histogram::new(exponential_buckets(0.000_05, 2.0, 13)),
            failed_requests: Family::default(),
            failed_handshakes: Counter::default(),
            connections: Gauge::default(),
            expiry: Gauge::default(),
            prefetches_known: Gauge::default(),
            rewritten_images: Counter::default(),
            copies_known: Gauge::default(),
            has_certificate: Arc::default(),
            is_ending: Arc::default(),
        }
    }
}

impl Metrics {
    /// The registry for `/metrics`.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("coral_webhook");
        registry.register(
            "admissions",
            "Admissions, by kind of object and result",
            self.admissions.clone(),
        );
        registry.register_with_unit(
            "admission_duration",
            "Time from the whole request to the answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "failed_requests",
            "Requests that were answered with an error of HTTP, by its code",
            self.failed_requests.clone(),
        );
        registry.register(
            "failed_handshakes",
            "TLS handshakes that came to nothing",
            self.failed_handshakes.clone(),
        );
        registry.register("connections", "Connections that are open", self.connections.clone());
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate that is served expires, since the epoch",
            Unit::Seconds,
            self.expiry.clone(),
        );
        registry.register_with_unit(
            "prefetches_known_timestamp",
            "When the API server last said which Prefetches there are, since the epoch; 0 where they are not watched",
            Unit::Seconds,
            self.prefetches_known.clone(),
        );
        registry.register(
            "rewritten_images",
            "Images of new pods that were replaced by copies",
            self.rewritten_images.clone(),
        );
        registry.register_with_unit(
            "copies_known_timestamp",
            "When the API server last said which copies there are, since the epoch; 0 where they are not watched",
            Unit::Seconds,
            self.copies_known.clone(),
        );
        registry
    }

    /// Whether admissions can be answered, and more of them are welcome.
    pub(crate) fn is_ready(&self) -> bool {
        self.has_certificate.load(Ordering::Relaxed) && !self.is_ending.load(Ordering::Relaxed)
    }

    /// What is known of Prefetches is true now.
    pub(crate) fn prefetches_are_known(&self) {
        self.prefetches_known.set(now());
    }

    /// What is known of copies is true now.
    pub(crate) fn copies_are_known(&self) {
        self.copies_known.set(now());
    }

    pub(crate) fn certificate_is(&self, not_after: Timestamp) {
        self.expiry
            .set(not_after.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
        self.has_certificate.store(true, Ordering::Relaxed);
    }

    pub(crate) fn ends(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, result: &Result<Reviewed, Malformed>, took: Duration) {
        let labels = match result {
            Ok(reviewed) => AdmissionLabels {
                kind: reviewed.kind.map_or("", Kind::as_str),
                result: reviewed.verdict.as_str(),
            },
            Err(_) => AdmissionLabels {
                kind: "",
                result: "malformed",
            },
        };
        self.admissions.get_or_create(&labels).inc();
        if let Ok(Reviewed { rewritten, .. }) = result {
            self.rewritten_images.inc_by(*rewritten as u64);
        }
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn request_failed(&self, code: u16) {
        self.failed_requests.get_or_create(&RequestLabels { code }).inc();
    }

    pub(crate) fn handshake_failed(&self) {
        self.failed_handshakes.inc();
    }

    pub(crate) fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    Timestamp::now().duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

/// Counts a connection for as long as it is there.
pub(crate) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        assert!(!metrics.is_ready());
        metrics.certificate_is(Timestamp::from_second(1_000).unwrap());
        assert!(metrics.is_ready());
        metrics.answered(&Err(Malformed::NoRequest), Duration::from_millis(1));
        metrics.request_failed(413);
        metrics.handshake_failed();
        let _connected = metrics.connected();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
        for line in [
            r#"coral_webhook_admissions_total{kind="",result="malformed"} 1"#,
            "coral_webhook_admission_duration_seconds_count 1",
            r#"coral_webhook_failed_requests_total{code="413"} 1"#,
            "coral_webhook_failed_handshakes_total 1",
            "coral_webhook_connections 1",
            "coral_webhook_certificate_expiry_timestamp_seconds 1000.0",
            "coral_webhook_prefetches_known_timestamp_seconds 0.0",
            "coral_webhook_rewritten_images_total 0",
            "coral_webhook_copies_known_timestamp_seconds 0.0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        metrics.ends();
        assert!(!metrics.is_ready());
    }

    /// Alerts and panels are about metrics that exist. Those of the other parts are looked at in `tests/tests/manifests`.
    #[test]
    fn alerts_and_dashboard_name_only_metrics_that_exist() {
        let metrics = Metrics::default();
        metrics.answered(&Err(Malformed::NoRequest), Duration::from_millis(1));
        metrics.request_failed(413);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
        let known: std::collections::BTreeSet<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let rules = include_str!("../../deploy/components/monitoring/prometheus-rule.yaml");
        let dashboard = include_str!("../../deploy/components/monitoring/dashboard.json");
        let words = [rules, dashboard].map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
        let mut named = 0;
        for name in words
            .into_iter()
            .flatten()
            .filter(|word| word.starts_with("coral_webhook_"))
        {
            assert!(known.contains(name), "there is no {name}");
            named += 1;
        }
        assert!(named > 8, "{named}");
        let refused = format!("result=\"{}\"", coral_admission::review::Verdict::Refused.as_str());
        assert!(rules.contains(&refused));
    }
}
