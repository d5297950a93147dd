//! How far a copy is.

use std::{
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use coral_mirror::{Observer, Outcome, Settled};

/// Counts what the copier tells.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    moved: AtomicU64,
    sent: AtomicU64,
    mounted: AtomicU64,
    present: AtomicU64,
    /// Images that are through and have not been shown.
    news: Mutex<Vec<Outcome>>,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Bytes that are or were on their way.
    pub(crate) moved: u64,
    /// Blobs that were sent.
    pub(crate) sent: u64,
    /// Blobs that the registry had in another repository.
    pub(crate) mounted: u64,
    /// Blobs that were there.
    pub(crate) present: u64,
}

impl Tally {
    /// The counts now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            moved: self.moved.load(Relaxed),
            sent: self.sent.load(Relaxed),
            mounted: self.mounted.load(Relaxed),
            present: self.present.load(Relaxed),
        }
    }

    /// The images that are through since this was asked last.
    pub(crate) fn news(&self) -> Vec<Outcome> {
        mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Tally {
    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Relaxed);
    }

    fn moved_in_vain(&self, bytes: u64) {
        self.moved.fetch_sub(bytes, Relaxed);
    }

    fn settled(&self, how: Settled, _: u64) {
        let count = match how {
            Settled::Present => &self.present,
            Settled::Mounted => &self.mounted,
            Settled::Sent => &self.sent,
        };
        count.fetch_add(1, Relaxed);
    }

    fn ended(&self, outcome: &Outcome) {
        self.news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_in_vain_does_not_count() {
        let tally = Tally::default();
        tally.moved(10);
        tally.moved_in_vain(10);
        tally.moved(25);
        tally.settled(Settled::Sent, 25);
        tally.settled(Settled::Present, 3);
        let expected = Counts {
            moved: 25,
            sent: 1,
            mounted: 0,
            present: 1,
        };
        assert_eq!(tally.counts(), expected);
    }
}
