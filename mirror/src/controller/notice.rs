//! What people are told by Events of a Mirror.

use coral_api::{ImageReference, MirroredImageStatus, mirrored_image};
use kube::{
    Resource as _,
    runtime::events::{Event as Notice, EventType},
};

use super::{Controller, Ended};

impl Controller {
    /// Tells of copies that failed, and of those that work again.
    pub(super) fn tell(&mut self, name: &str, before: &MirroredImageStatus) {
        let (Some(status), Some(wanted)) = (self.office.statuses.get(name), self.office.wanted.get(name)) else {
            return;
        };
        let about = self
            .world
            .images
            .get(&(None, name.to_owned()))
            .map(|object| object.object_ref(&()));
        for (mirror, type_, reason, note) in notices(&wanted.image, before, status) {
            let Some(regarding) = self
                .world
                .mirrors
                .get(&(None, mirror))
                .map(|mirror| mirror.object_ref(&()))
            else {
                continue;
            };
            let notice = Notice {
                type_,
                reason: reason.to_owned(),
                note: Some(note),
                action: "Copy".to_owned(),
                secondary: about.clone(),
            };
            let recorder = self.recorder.clone();
            self.office.tasks.spawn(async move {
                if let Err(error) = recorder.publish(&notice, &regarding).await {
                    tracing::debug!(error = %error, "An Event could not be written");
                }
                Ended::Told
            });
        }
    }
}

/// What people are told of an image: copies that fail for the first time, and copies that do so no longer.
fn notices(
    image: &ImageReference,
    before: &MirroredImageStatus,
    after: &MirroredImageStatus,
) -> Vec<(String, EventType, &'static str, String)> {
    let mut notices = Vec::new();
    for copy in &after.destinations {
        let same =
            |other: &&mirrored_image::CopyStatus| other.mirror == copy.mirror && other.reference == copy.reference;
        let old = before.destinations.iter().find(same);
        let old_reason = old.and_then(|old| old.failure.as_ref()).map(|failure| failure.reason);
        match &copy.failure {
            Some(failure) if old_reason != Some(failure.reason) => {
                let note = format!("{} is not copied: {}", image.familiar(), failure.message);
                notices.push((copy.mirror.clone(), EventType::Warning, failure.reason.as_str(), note));
            }
            None if old_reason.is_some() => {
                let note = format!("{} is copied again, as {}", image.familiar(), copy.reference);
                notices.push((copy.mirror.clone(), EventType::Normal, "Recovered", note));
            }
            _ => {}
        }
    }
    notices
}
