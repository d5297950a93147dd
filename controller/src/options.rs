//! What may be chosen about a controller.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

/// What may be chosen about a [`Controller`](crate::Controller).
#[derive(Clone, Debug)]
pub struct Options {
    /// Most nodes that pull at the same time, over all Prefetches; none is no limit.
    pub max_pulling_nodes: Option<NonZeroUsize>,
    /// How long a node keeps its startup taint when the Prefetches that gate it do not become ready.
    pub gate_timeout: Duration,
    /// How to be elected. Without it the controller leads from the beginning: then it must be the only one.
    pub lease: Option<LeaseOptions>,
    /// Who this is: the holder in the Lease, and the reporter of Events. No two controllers have the same.
    pub identity: String,
    /// Most writes to the API server per second, over any longer time; twice as many at once after a pause.
    pub max_writes_per_second: NonZeroU32,
    /// Whether there are metrics for each Prefetch, labelled with its namespace and name.
    pub metrics_per_prefetch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pulling_nodes: None,
            gate_timeout: Duration::from_mins(5),
            lease: None,
            identity: "coral-controller".to_owned(),
            max_writes_per_second: NonZeroU32::new(100).unwrap_or(NonZeroU32::MIN),
            metrics_per_prefetch: false,
        }
    }
}

/// How a controller is elected.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// How long the others wait for a sign of life before they take over.
    pub duration: Duration,
    /// How long after its last sign of life a leader still writes. The difference to `duration` is what a write may be under way.
    pub renew_deadline: Duration,
    /// How often a leader gives a sign of life. The others look twice as often, so that a released Lease is taken at once.
    pub retry_period: Duration,
}

impl LeaseOptions {
    /// The Lease of that name, with the times that Kubernetes' own controllers use.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}
