//! When copies that nobody needs are looked for, and when other clusters are told what this one needs.

use std::{sync::Arc, time::Instant};

use coral_api::{Mirror, MirroredImageSpec};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{
    Controller, Ended, MARK_DELAY, MARK_INTERVAL,
    collect::{self, Collected, View, collect},
    work::Write,
};
use crate::retention::Removal;

impl Controller {
    pub(super) fn start_collection(&mut self, mirrors: &[Arc<Mirror>], now: Instant, time: Timestamp) {
        if self.office.is_collecting || now < self.office.next_collection {
            return;
        }
        self.office.next_collection = now + self.options.collection_interval;
        let Some(cluster) = self.world.cluster() else { return };
        let view = View {
            mirrors: mirrors.to_vec(),
            images: self.world.images.objects().cloned().collect(),
            in_use: self.world.in_use(),
            cluster,
            now: time,
        };
        if !view.has_candidates() {
            return;
        }
        self.office.is_collecting = true;
        let collecting = collect(self.office.accesses.clone(), view);
        self.office
            .tasks
            .spawn(async move { Ended::Collected(Box::new(Box::pin(collecting).await)) });
    }

    /// Lets the Mirrors whose copies are gone no longer want them.
    pub(super) fn take_collected(&mut self, collected: &Collected) {
        let office = &mut self.office;
        office.is_collecting = false;
        for kept in &collected.plan.kept {
            tracing::debug!(copy = %kept.reference, why = %kept.why, "A copy that nobody here uses stays");
        }
        let mut failed: Vec<&Removal> = Vec::new();
        let mut removed: Vec<&Removal> = Vec::new();
        for (removal, failure) in &collected.ended {
            self.metrics.removed(failure.is_none());
            if let Some(why) = failure {
                tracing::warn!(copy = %removal.reference, why, "A copy that nobody needs could not be removed");
                failed.push(removal);
            } else {
                tracing::info!(copy = %removal.reference, "A copy that nobody needs is removed");
                removed.push(removal);
            }
        }
        for object in self.world.images.shared().cloned().collect::<Vec<_>>() {
            let name = object.name_any();
            let left = crate::retention::left(&object, &removed, &failed);
            if left.as_ref() == Some(&object.spec.requested_by) {
                continue;
            }
            let write = match left {
                Some(requested_by) => Write::Image {
                    name: name.clone(),
                    spec: MirroredImageSpec {
                        requested_by,
                        ..object.spec.clone()
                    },
                },
                None => Write::DeleteImage {
                    name: name.clone(),
                    uid: object.uid(),
                },
            };
            // Until this is answered nothing else is written about it, or what is known would bring it back.
            let subject = write.subject();
            self.office.writing.insert(subject.clone());
            let client = self.client.clone();
            self.office.tasks.spawn(async move {
                let result = Box::pin(write.carry_out(client)).await;
                Ended::Write(subject, result.map(Box::new))
            });
        }
    }

    pub(super) fn start_marks(&mut self, mirrors: &[Arc<Mirror>], now: Instant) {
        if now < self.office.next_mark {
            return;
        }
        self.office.next_mark = now + MARK_DELAY;
        let Some(cluster) = self.world.cluster() else { return };
        let office = &mut self.office;
        let images = office
            .wanted
            .values()
            .map(|wanted| (&wanted.image, wanted.requested_by.as_slice()));
        for (place, need) in collect::needs(mirrors, images) {
            let is_told = office.marks.get(&place).is_some_and(|(references, since)| {
                *references == need.references && now.duration_since(*since) < MARK_INTERVAL
            });
            if is_told || need.references.is_empty() && !office.marks.contains_key(&place) {
                continue;
            }
            let (accesses, cluster, references) = (office.accesses.clone(), cluster.clone(), need.references.clone());
            office.tasks.spawn(async move {
                let result = collect::tell(accesses, need, cluster).await;
                Ended::Marked(place, references, result)
            });
        }
    }
}
