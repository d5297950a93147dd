//! What may be chosen about a controller.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use coral_runtime::LeaseOptions;

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
    ///
    /// Priority and fairness keep the API server from being overrun, and no more than 16 writes are ever under way; this bounds what a controller may
    /// write that goes in circles. A rollout is 2 to 3 writes a node: a cluster of 1,000 nodes must not wait for its controller.
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
            max_writes_per_second: NonZeroU32::new(400).unwrap_or(NonZeroU32::MIN),
            metrics_per_prefetch: false,
        }
    }
}
