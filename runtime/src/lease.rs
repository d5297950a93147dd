//! Who of several replicas of a controller leads.
//!
//! ```text
//!   election ──create, update──► Lease ◄──get── the others, every second
//!      │
//!      └──tenure: leads until …──► controller: plans and writes only inside it
//! ```
//!
//! # Never two writers
//!
//! A leader writes until [`renew_deadline`](LeaseOptions::renew_deadline) (10 s) after the moment at which it *began* the last renewal
//! that succeeded. At that moment it drops every write that is under way, which closes their connections, and begins no other. Others take
//! the Lease [`duration`](LeaseOptions::duration) (15 s) after they first *saw* that renewal, which is later than it was begun. So
//! 5 s lie between the last write of one leader and the first of the next, for what the API server still has in hand. No clock is
//! compared with that of another machine: everybody counts with a clock of their own that cannot be set and goes on while the machine
//! sleeps, and the times in the Lease are for people. A leader that stops writes nothing more, waits a second for the answers to what is
//! under way, and then gives the Lease away.
//!
//! The Lease itself changes hands by updates of a version that was read, so that of two candidates one fails. A server-side apply that
//! takes fields by force cannot carry such a condition without colliding with every status write of an agent, which is why the fence is
//! time. What remains is a process that is stopped between its look at the clock and the system call that sends a request. Such a write,
//! seconds old, says what the plan of that time said of one object. It cannot mix with what the new leader says, for they own the same
//! fields, and the new leader's watch shows it the difference, which its next plan takes back.
//!
//! Whoever deletes the Lease by hand gives it to the next who looks, up to one renewal before its holder notices.
//!
//! A new leader knows what the old one wrote: before its first plan it asks for the versions of all NodeImages objects and waits until its
//! cache has them, or else it would give out turns that the old leader has given already.

mod args;
mod election;
mod moment;
mod options;

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

pub use args::ElectionArgs;
pub use election::Leadership;
pub(crate) use moment::Moment;
pub use options::LeaseOptions;

/// What a candidate does about the Lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Decision {
    /// Nobody has it, or its holder has been silent for too long.
    Acquire,
    /// It is the candidate's own.
    Renew,
    /// Somebody else has it, and it may be taken at that moment unless they give a sign of life.
    Wait { until: Moment },
}

/// What to do about a Lease that has been as it is since `observed_at`. `None` is a Lease that does not exist.
fn decide(
    lease: Option<&LeaseSpec>,
    identity: &str,
    options: &LeaseOptions,
    observed_at: Moment,
    now: Moment,
) -> Decision {
    let holder = lease.and_then(|lease| lease.holder_identity.as_deref());
    let Some((lease, holder)) = lease.zip(holder.filter(|holder| !holder.is_empty())) else {
        return Decision::Acquire;
    };
    if holder == identity {
        return Decision::Renew;
    }
    // What the holder goes by counts, where it says so.
    let promised = lease
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let until = observed_at + promised.map_or(options.duration, Duration::from_secs);
    if now < until {
        Decision::Wait { until }
    } else {
        Decision::Acquire
    }
}

/// The Lease as `identity` writes it when it acquires or renews it.
fn held(previous: Option<&LeaseSpec>, identity: &str, options: &LeaseOptions, now: Timestamp) -> LeaseSpec {
    let previous = previous.cloned().unwrap_or_default();
    let is_renewal = previous.holder_identity.as_deref() == Some(identity);
    let transitions = previous.lease_transitions.unwrap_or(0);
    LeaseSpec {
        acquire_time: previous.acquire_time.filter(|_| is_renewal).or(Some(MicroTime(now))),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(options.duration.as_secs()).unwrap_or(i32::MAX)),
        lease_transitions: Some(if is_renewal {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

/// The Lease as its holder leaves it: free for whoever looks next.
fn released(previous: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        // The least that the API server admits.
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..previous.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_silent_for_long() {
        let options = LeaseOptions::new("coral-system", "coral-controller");
        let seen = Moment::of(Duration::from_secs(1_000));
        let wait = |seconds| Decision::Wait {
            until: seen + Duration::from_secs(seconds),
        };
        for (name, lease, after, expected) in [
            ("there is none", None, 0, Decision::Acquire),
            ("nobody has had it", Some(lease(None, None)), 0, Decision::Acquire),
            (
                "it was given back",
                Some(lease(Some(""), Some(1))),
                0,
                Decision::Acquire,
            ),
            ("it is our own", Some(lease(Some("me"), Some(15))), 0, Decision::Renew),
            (
                "it is our own, and old",
                Some(lease(Some("me"), Some(15))),
                90,
                Decision::Renew,
            ),
            ("just seen", Some(lease(Some("other"), Some(15))), 0, wait(15)),
            ("nearly silent", Some(lease(Some("other"), Some(15))), 14, wait(15)),
            ("silent", Some(lease(Some("other"), Some(15))), 15, Decision::Acquire),
            ("a patient holder", Some(lease(Some("other"), Some(60))), 30, wait(60)),
            (
                "a holder without a promise",
                Some(lease(Some("other"), None)),
                14,
                wait(15),
            ),
            (
                "a promise that is none",
                Some(lease(Some("other"), Some(-5))),
                14,
                wait(15),
            ),
        ] {
            let now = seen + Duration::from_secs(after);
            assert_eq!(decide(lease.as_ref(), "me", &options, seen, now), expected, "{name}");
        }
    }

    #[test]
    fn transitions_count_the_changes_of_hands() {
        let options = LeaseOptions::new("coral-system", "coral-controller");
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = held(None, "me", &options, at(1));
        assert_eq!(
            (first.lease_transitions, first.lease_duration_seconds),
            (Some(1), Some(15))
        );
        let renewed = held(Some(&first), "me", &options, at(3));
        assert_eq!(
            (renewed.lease_transitions, &renewed.acquire_time),
            (Some(1), &first.acquire_time)
        );
        assert_eq!(renewed.renew_time, Some(MicroTime(at(3))));
        let free = released(&renewed, at(4));
        assert_eq!(
            decide(
                Some(&free),
                "other",
                &options,
                Moment::of(Duration::ZERO),
                Moment::of(Duration::ZERO)
            ),
            Decision::Acquire
        );
        let taken = held(Some(&free), "other", &options, at(5));
        assert_eq!(
            (taken.lease_transitions, taken.acquire_time),
            (Some(2), Some(MicroTime(at(5))))
        );
    }

    #[test]
    fn a_leader_has_stopped_before_anybody_takes_over() {
        let options = LeaseOptions::new("coral-system", "coral-controller");
        // The others cannot see a renewal before it was begun.
        let begun = Moment::of(Duration::from_secs(1_000));
        let last_write = begun + options.renew_deadline;
        let Decision::Wait { until } = decide(
            Some(&lease(Some("leader"), Some(15))),
            "me",
            &options,
            begun,
            last_write,
        ) else {
            panic!("the Lease can be taken while its holder writes");
        };
        assert!(until - last_write >= Duration::from_secs(5));
    }
}
