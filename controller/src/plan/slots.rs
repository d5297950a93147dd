//! Which nodes pull for a Prefetch now, and since when they have made no progress.
//!
//! A node whose agent is silent must not keep the others from their turn. So a node holds a slot only as long as it makes
//! progress, and loses it when one attempt's time has passed without any.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// Nodes that hold a slot, by Prefetch (`namespace/name`) and node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slots(BTreeMap<(String, String), Slot>);

/// A turn of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slot {
    /// When the number of missing images was last seen to change.
    progress: Timestamp,
    /// Images that the node lacks.
    missing: usize,
}

impl Slots {
    /// Takes over the slot of a node, noting progress. Returns whether the node still counts against the budget.
    pub(super) fn hold(
        &mut self,
        previous: &Self,
        prefetch: &str,
        node: &str,
        missing: usize,
        timeout: SignedDuration,
        now: Timestamp,
    ) -> bool {
        let key = (prefetch.to_owned(), node.to_owned());
        let slot = match previous.0.get(&key) {
            Some(slot) if slot.missing == missing => *slot,
            _ => Slot { progress: now, missing },
        };
        self.0.insert(key, slot);
        now < slot.progress.checked_add(timeout).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_loses_its_slot_and_a_working_one_keeps_it() {
        let timeout = SignedDuration::from_mins(10);
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let hold = |previous: &Slots, missing, minutes| {
            let mut slots = Slots::default();
            let counts = slots.hold(previous, "shop/web", "node-1", missing, timeout, at(minutes));
            (slots, counts)
        };
        let (slots, counts) = hold(&Slots::default(), 3, 0);
        assert!(counts);
        let (slots, counts) = hold(&slots, 3, 9);
        assert!(counts);
        assert!(!hold(&slots, 3, 10).1);
        let (slots, counts) = hold(&slots, 2, 9);
        assert!(counts);
        assert!(hold(&slots, 2, 18).1);
    }
}
