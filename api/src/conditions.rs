//! Conditions as the Kubernetes API conventions and kstatus want them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// `Ready` on a Prefetch: every image is on every selected node. On `NodeImages`: the agent is at work.
pub const READY: &str = "Ready";
/// `Reconciling` on a Prefetch: something is still under way (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// `Stalled` on a Prefetch: it will not become ready without somebody's help (kstatus).
pub const STALLED: &str = "Stalled";
/// `Accepting` on `NodeImages`: false while the node is under pressure and nothing is pulled.
pub const ACCEPTING: &str = "Accepting";

/// `Pinning` on `NodeImages`, where a pin is wanted: false where the container runtime has no way for a client to pin an image.
pub const PINNING: &str = "Pinning";

/// The condition of type `kind`, if it is there.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of type `kind` is there with status `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// A condition whose transition time is that of `previous` as long as its status stays what it was.
#[must_use]
pub fn condition(
    previous: &[Condition],
    kind: &str,
    status: bool,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let last_transition_time = find(previous, kind)
        .filter(|condition| condition.status == status)
        .map_or_else(|| time(now), |condition| condition.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time,
    }
}

/// A time as the API has it: whole seconds, so that what is read back equals what was written.
#[must_use]
pub fn time(timestamp: Timestamp) -> Time {
    Time(Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first = Timestamp::from_second(1_000).unwrap();
        let later = Timestamp::from_second(2_000).unwrap();
        let ready = condition(&[], READY, true, "AllPresent", "…".into(), Some(1), first);
        let same = condition(
            std::slice::from_ref(&ready),
            READY,
            true,
            "AllPresent",
            "other words".into(),
            Some(2),
            later,
        );
        assert_eq!(same.last_transition_time, Time(first));
        let lost = condition(&[ready], READY, false, "Pulling", "…".into(), Some(2), later);
        assert_eq!(lost.last_transition_time, Time(later));
    }
}
