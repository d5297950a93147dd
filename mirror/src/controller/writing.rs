//! Which objects differ from what is known, and are written.

use std::time::{Duration, Instant};

use coral_api::MirroredImageSpec;
use kube::ResourceExt as _;

use super::{
    COUNT_INTERVAL, Controller, Ended, STATUS_INTERVAL, WRITE_PAUSE, WRITES, image_status, mirror_status,
    work::{Write, Written},
};

impl Controller {
    /// Writes what differs from what is there. Returns whether something has to wait.
    pub(super) fn write(&mut self, now: Instant) -> bool {
        let mut writes: Vec<Write> = Vec::new();
        let mut is_waiting = false;
        let office = &self.office;
        for (name, wanted) in &office.wanted {
            let object = self.world.images.get(&(None, name.clone()));
            let spec = MirroredImageSpec {
                image: wanted.image.identity(),
                requested_by: wanted.requested_by.clone(),
                rewrite: wanted.rewrite,
            };
            let Some(object) = object.filter(|object| object.spec == spec) else {
                writes.push(Write::Image {
                    name: name.clone(),
                    spec,
                });
                continue;
            };
            let Some(status) = office.statuses.get(name) else {
                continue;
            };
            if object.status.as_ref() == Some(status) {
                continue;
            }
            let write = Write::ImageStatus {
                name: name.clone(),
                status: Box::new(status.clone()),
            };
            if self.is_over(&write, STATUS_INTERVAL, now) || image_status::is_news(object.status.as_ref(), status) {
                writes.push(write);
            } else {
                is_waiting = true;
            }
        }
        for object in self.world.images.objects() {
            let name = object.name_any();
            if !office.wanted.contains_key(&name) {
                writes.push(Write::DeleteImage {
                    name,
                    uid: object.uid(),
                });
            }
        }
        for (name, status) in &office.mirrors {
            let object = self.world.mirrors.get(&(None, name.clone()));
            let Some(object) = object.filter(|object| object.status.as_ref() != Some(status)) else {
                continue;
            };
            let write = Write::MirrorStatus {
                name: name.clone(),
                status: Box::new(status.clone()),
            };
            if self.is_over(&write, COUNT_INTERVAL, now) || mirror_status::is_news(object.status.as_ref(), status) {
                writes.push(write);
            } else {
                is_waiting = true;
            }
        }
        for write in writes {
            let subject = write.subject();
            let is_paused = self.office.pauses.get(&subject).is_some_and(|until| *until > now);
            if is_paused || self.office.writing.contains(&subject) || self.office.writing.len() >= WRITES {
                is_waiting = true;
                continue;
            }
            if matches!(write, Write::ImageStatus { .. } | Write::MirrorStatus { .. }) {
                self.office.written.insert(subject.clone(), now);
            }
            self.office.writing.insert(subject.clone());
            let client = self.client.clone();
            self.office.tasks.spawn(async move {
                let result = Box::pin(write.carry_out(client)).await;
                Ended::Write(subject, result.map(Box::new))
            });
        }
        is_waiting
    }

    /// Whether the last status of the object was written so long ago.
    fn is_over(&self, write: &Write, interval: Duration, now: Instant) -> bool {
        let last = self.office.written.get(&write.subject());
        last.is_none_or(|last| now.duration_since(*last) >= interval)
    }

    pub(super) fn take_written(&mut self, subject: String, result: Result<Box<Written>, kube::Error>) {
        self.metrics.written(result.is_ok());
        self.office.writing.remove(&subject);
        self.office.pauses.remove(&subject);
        self.office.has_news();
        match result.map(|written| *written) {
            Ok(Written::Image(object)) => {
                self.world.images.insert(*object);
            }
            Ok(Written::ImageGone(name)) => {
                self.office.written.remove(&subject);
                self.world.images.remove(&(None, name));
            }
            Ok(Written::Mirror(object)) => {
                self.world.mirrors.insert(*object);
            }
            Err(error) => {
                // What has gone in the meantime is not there to be written to; the watch will say so.
                if !matches!(&error, kube::Error::Api(status) if status.is_not_found()) {
                    tracing::warn!(subject, error = %error, "A write failed; it will be tried again");
                }
                self.office.pauses.insert(subject, Instant::now() + WRITE_PAUSE);
            }
        }
    }
}
