//! What may be chosen about an election.

use std::time::Duration;

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
