//! What a leader knows and does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use coral_api::{MirrorStatus, MirroredImageStatus};
use kube::Client;
use tokio::task::JoinSet;

use super::{
    Ended, GATHER, Options,
    access::{Accesses, Way},
    desired::Wanted,
    work::Batch,
};

/// What a leader knows and does, and forgets when it leads no longer.
pub(super) struct Office {
    pub(super) accesses: Accesses,
    pub(super) tasks: JoinSet<Ended>,
    /// Statuses of images, by the name of the object; ahead of what is written.
    pub(super) statuses: BTreeMap<String, MirroredImageStatus>,
    /// Mirrors as their status was last made, by name.
    pub(super) mirrors: BTreeMap<String, MirrorStatus>,
    /// What each image is, since the last plan.
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// Images that are looked at or copied, with how many ends are awaited.
    pub(super) in_hand: BTreeMap<String, usize>,
    pub(super) looks: usize,
    /// Images that are to be looked at although their time has not come.
    pub(super) forced: BTreeSet<String>,
    /// Registries of whose copies one was found gone, and when.
    pub(super) doubted: BTreeMap<String, Instant>,
    /// Copies that wait for others to the same destination, and since when.
    pub(super) batches: BTreeMap<Way, (Instant, Batch)>,
    /// What is being written.
    pub(super) writing: BTreeSet<String>,
    /// When an object may be written again.
    pub(super) pauses: BTreeMap<String, Instant>,
    /// When a status was last written, by the kind and name of the object.
    pub(super) written: BTreeMap<String, Instant>,
    pub(super) next_collection: Instant,
    pub(super) is_collecting: bool,
    /// What other clusters were told, by place, and when.
    pub(super) marks: BTreeMap<String, (BTreeSet<String>, Instant)>,
    pub(super) next_mark: Instant,
    pub(super) news: Option<Instant>,
    pub(super) next_plan: Instant,
    pub(super) plan_took: Duration,
}

impl Office {
    pub(super) fn new(client: Client, options: &Options) -> Self {
        let now = Instant::now();
        Self {
            accesses: Accesses::new(client, options),
            tasks: JoinSet::new(),
            statuses: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            wanted: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            looks: 0,
            forced: BTreeSet::new(),
            doubted: BTreeMap::new(),
            batches: BTreeMap::new(),
            writing: BTreeSet::new(),
            pauses: BTreeMap::new(),
            written: BTreeMap::new(),
            next_collection: now + options.collection_interval.min(Duration::from_mins(1)),
            is_collecting: false,
            marks: BTreeMap::new(),
            next_mark: now,
            news: Some(now),
            next_plan: now,
            plan_took: Duration::ZERO,
        }
    }

    /// When the next plan is to be made: soon after something happened, but not all the time.
    pub(super) fn plan_time(&self) -> Instant {
        let gather = GATHER.max(2 * self.plan_took);
        self.news
            .map_or(self.next_plan, |news| self.next_plan.min(news + gather))
    }

    /// One of the ends of an image has come.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(ends) = self.in_hand.get_mut(name) {
            *ends -= 1;
            if *ends == 0 {
                self.in_hand.remove(name);
            }
        }
    }

    pub(super) fn has_news(&mut self) {
        self.news.get_or_insert_with(Instant::now);
    }
}
