//! Which images are looked at and copied now, and what came of it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use coral_api::{
    ImageReference, Mirror, MirroredImageStatus,
    mirrored_image::{CopyState, CopyStatus},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{
    BATCH, Controller, Ended, IN_HAND, LOOKS,
    access::Way,
    desired::Wanted,
    image_status,
    look::{Looked, look},
    schedule,
    turn::{self, Turn, turn},
    work::{Batch, Copied, copy},
};

/// How long nobody doubts the copies of a registry once more.
const DOUBT: Duration = Duration::from_mins(1);
/// Most copies whose manifests are read, once, to know which blobs need not be sent.
const MAX_SIBLINGS: usize = 1_000;

impl Controller {
    /// Starts the looks that are due. Returns when the next will be.
    pub(super) fn start_looks(&mut self, mirrors: &[Arc<Mirror>], now: Timestamp) -> Option<Timestamp> {
        let office = &mut self.office;
        let mut due: Vec<(Timestamp, String)> = Vec::new();
        let mut wake: Option<Timestamp> = None;
        for (name, wanted) in &office.wanted {
            if office.in_hand.contains_key(name) {
                continue;
            }
            let Some(status) = office.statuses.get(name) else {
                continue;
            };
            let keepers = keepers(mirrors, wanted);
            let time = if office.forced.contains(name) && !keepers.is_empty() {
                Some(Timestamp::UNIX_EPOCH)
            } else {
                schedule::look_at(name, status, &keepers)
            };
            match time {
                Some(time) if time <= now => due.push((time, name.clone())),
                Some(time) => wake = Some(wake.map_or(time, |wake| wake.min(time))),
                None => {}
            }
        }
        // Who has waited longest is first.
        due.sort();
        let free = (LOOKS.saturating_sub(office.looks)).min(IN_HAND.saturating_sub(office.in_hand.len()));
        // The end of another look wakes the loop.
        let waiting = due.split_off(free.min(due.len()));
        // Where it is not known since when, its time was the beginning of time.
        let first = waiting
            .iter()
            .map(|(time, _)| *time)
            .find(|time| *time > Timestamp::UNIX_EPOCH);
        let longest = first.map_or(SignedDuration::ZERO, |first| now.duration_since(first));
        self.metrics.looks_wait(waiting.len(), longest);
        for (_, name) in due {
            let (Some(wanted), Some(status)) = (office.wanted.get(&name), office.statuses.get(&name)) else {
                continue;
            };
            let keepers: Vec<Arc<Mirror>> = mirrors
                .iter()
                .filter(|mirror| wanted.kept_by.contains(&mirror.name_any()))
                .cloned()
                .collect();
            let targets = image_status::targets(wanted, &keepers, status, now);
            let turn = if office.forced.remove(&name) {
                Turn::Everybody
            } else {
                turn(status, &keepers.iter().map(|mirror| &**mirror).collect::<Vec<_>>(), now)
            };
            office.in_hand.insert(name.clone(), 1);
            office.looks += 1;
            let looking = look(office.accesses.clone(), name, wanted.image.clone(), targets, turn);
            office
                .tasks
                .spawn(async move { Ended::Looked(Box::new(looking.await)) });
        }
        wake
    }

    pub(super) fn take_looked(&mut self, looked: &Looked) {
        let now = Timestamp::now();
        let office = &mut self.office;
        office.looks -= 1;
        self.metrics.looked(looked.is_success());
        let (before, to_copy) = match office.statuses.get_mut(&looked.name) {
            Some(status) => {
                let mirrors: Vec<&Mirror> = looked.copies.iter().map(|(target, _)| &*target.mirror).collect();
                let before = status.clone();
                let to_copy = image_status::looked(status, looked, schedule::interval(&mirrors), now);
                (Some(before), to_copy)
            }
            None => (None, Vec::new()),
        };
        if let Some(ends) = office.in_hand.get_mut(&looked.name) {
            *ends += to_copy.len();
        }
        office.release(&looked.name);
        for target in to_copy {
            let (_, batch) = office
                .batches
                .entry(target.way())
                .or_insert_with(|| (Instant::now(), Batch::default()));
            batch.jobs.push((looked.name.clone(), looked.image.clone(), target));
        }
        office.has_news();
        if let Some(before) = before {
            if let Some(status) = office.statuses.get(&looked.name) {
                let lost = turn::lost(&before, status);
                self.doubt(&lost);
            }
            self.tell(&looked.name, &before);
        }
    }

    /// Lets all copies at these registries be looked at: one that was there is there no more.
    fn doubt(&mut self, registries: &BTreeSet<String>) {
        let office = &mut self.office;
        let now = Instant::now();
        for registry in registries {
            let doubted = office.doubted.get(registry);
            if doubted.is_some_and(|since| now.duration_since(*since) < DOUBT) {
                continue;
            }
            office.doubted.insert(registry.clone(), now);
            let is_there = |copy: &CopyStatus| copy.state == CopyState::Present && turn::registry(copy) == registry;
            for (name, status) in &office.statuses {
                if status.destinations.iter().any(is_there) {
                    office.forced.insert(name.clone());
                }
            }
        }
    }

    /// Starts the copies of destinations for which enough has been gathered.
    pub(super) fn start_batches(&mut self, now: Instant) {
        let office = &mut self.office;
        let is_last = office.looks == 0;
        let due: Vec<Way> = office
            .batches
            .iter()
            .filter(|(_, (since, _))| is_last || now >= *since + BATCH)
            .map(|(way, _)| way.clone())
            .collect();
        for way in due {
            if let Some((_, mut batch)) = office.batches.remove(&way) {
                batch.siblings = siblings(&batch, office.statuses.values());
                let copying = copy(
                    office.accesses.clone(),
                    batch,
                    self.copied_tx.clone(),
                    Arc::clone(&self.metrics.bytes),
                );
                office.tasks.spawn(async move {
                    Box::pin(copying).await;
                    Ended::Batch
                });
            }
        }
    }

    pub(super) fn take_copied(&mut self, copied: &Copied) {
        self.metrics
            .copied(copied.result.as_ref().err().map(|verdict| verdict.reason));
        let office = &mut self.office;
        office.release(&copied.name);
        office.has_news();
        let Some(status) = office.statuses.get_mut(&copied.name) else {
            return;
        };
        let before = status.clone();
        let interval = schedule::interval(&[&*copied.target.mirror]);
        image_status::copied(status, copied, interval, Timestamp::now());
        self.tell(&copied.name, &before);
    }
}

/// The Mirrors that keep the copies of an image up to date.
fn keepers<'a>(mirrors: &'a [Arc<Mirror>], wanted: &Wanted) -> Vec<&'a Mirror> {
    let keeps = |mirror: &&Arc<Mirror>| wanted.kept_by.contains(&mirror.name_any());
    mirrors.iter().filter(keeps).map(|mirror| &**mirror).collect()
}

/// The copies that are in the registry to which a batch goes.
fn siblings<'a>(
    batch: &Batch,
    statuses: impl Iterator<Item = &'a MirroredImageStatus>,
) -> Vec<(ImageReference, String)> {
    let Some((_, _, target)) = batch.jobs.first() else {
        return Vec::new();
    };
    statuses
        .flat_map(|status| &status.destinations)
        .filter(|copy| copy.state == CopyState::Present && turn::registry(copy) == target.reference.registry())
        .filter_map(|copy| Some((copy.reference.parse().ok()?, copy.digest.clone()?)))
        .take(MAX_SIBLINGS)
        .collect()
}
