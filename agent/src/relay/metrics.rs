//! What the relay counts.

use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{text, upstream::Body};

/// Media type of the `OpenMetrics` text format, version 1.0.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one relay.
#[derive(Debug)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    registry: Registry,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        // Every counter is there with 0: a rate needs a value before the first event.
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            let _ = requests.get_or_create(&labels(status));
        }
        let mut registry = Registry::with_prefix("coral_relay");
        registry.register(
            "requests",
            "Answers to clients of the node, by whether the registry gave, refused or failed",
            requests.clone(),
        );
        Self { requests, registry }
    }
}

impl Metrics {
    pub(super) fn answered(&self, status: StatusCode) {
        self.requests.get_or_create(&labels(status)).inc();
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut metrics = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut metrics, &self.registry);
        let mut response = text(metrics);
        let kind = HeaderValue::from_static(OPEN_METRICS);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

fn labels(status: StatusCode) -> RequestLabels {
    RequestLabels {
        result: if status.is_server_error() {
            "failure"
        } else if status.is_client_error() {
            "refused"
        } else {
            "success"
        },
    }
}
