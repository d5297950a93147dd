//! What the agent has others do: each of these starts a task that ends with a [`Done`].

use std::time::Duration;

use coral_api::{
    ImageReference,
    node_images::{RuntimeInfo, SecretReference},
};
use jiff::{SignedDuration, Timestamp};
use tracing::Instrument as _;

use super::{Agent, Chore, Done, Look, is_containerd};
use crate::{
    classify::Failure,
    containerd::{Containerd, Pins},
    removal::{Wishes, remove},
    runtime::Runtime,
    space::{Need, needed},
};

/// How often the agent asks how far running pulls are.
const PROGRESS_INTERVAL: SignedDuration = SignedDuration::from_secs(2);
/// How long the runtime may take to tell of progress, or to change a protection.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(10);

impl Agent {
    /// Looks at what the runtime holds.
    pub(super) fn look(&mut self, began: Timestamp) {
        self.under_way.insert(Chore::Look);
        let runtime = self.runtime.clone();
        self.tasks.spawn(async move {
            let result = async {
                let version = runtime.version().await?;
                Ok(Look {
                    // First, so that what is pinned meanwhile is not taken for pinned without effect.
                    pins: pins(&runtime, &version).await,
                    inventory: runtime.inventory().await?,
                    filesystem: runtime.filesystem().await?,
                    runtime: version,
                })
            }
            .await;
            Done::Look { began, result }
        });
    }

    /// Asks how far the running pulls are, when it is time and the runtime tells.
    pub(super) fn ask_progress(&mut self, now: Timestamp) {
        let tells = self.situation.runtime.as_ref().is_some_and(is_containerd);
        if self.pulling.is_empty() || self.under_way.contains(&Chore::Progress) || self.next_progress > now || !tells {
            return;
        }
        self.under_way.insert(Chore::Progress);
        self.next_progress = now + PROGRESS_INTERVAL;
        let is_running = |image: &String| self.pulling.contains_key(image);
        let images: Vec<ImageReference> = self
            .situation
            .wanted
            .iter()
            .filter(|wanted| is_running(&wanted.entry.image))
            .filter_map(|wanted| wanted.reference.clone().ok())
            .collect();
        let containerd = self.runtime.containerd();
        self.tasks.spawn(async move {
            let answer = tokio::time::timeout(RUNTIME_TIMEOUT, containerd.progress(&images)).await;
            Done::Progress(answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))))
        });
    }

    /// Takes an image away, one after the other.
    pub(super) fn remove(&mut self, image: String, identity: String) {
        if !self.under_way.insert(Chore::Remove) {
            return;
        }
        let wishes = Wishes::of(&self.situation);
        let runtime = self.runtime.clone();
        let span = tracing::info_span!("remove", image = identity);
        let task = async move {
            let result = remove(&runtime, &identity, &wishes).await;
            match &result {
                Ok(()) => tracing::info!("The image is gone"),
                Err(failure) => {
                    tracing::warn!(reason = %failure.reason, cause = failure.message, "The image stays for now");
                }
            }
            Done::Removal { image, result }
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Changes the protection of an image, one after the other.
    pub(super) fn pin<F>(&mut self, change: impl FnOnce(Containerd) -> F)
    where
        F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
    {
        if self.under_way.contains(&Chore::Pin) {
            return;
        }
        self.under_way.insert(Chore::Pin);
        let change = change(self.runtime.containerd());
        self.tasks.spawn(async move {
            let answer = tokio::time::timeout(RUNTIME_TIMEOUT, change).await;
            Done::Pins(answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))))
        });
    }

    /// Asks for the size of an image. The pull is decided on when the answer is there.
    pub(super) fn measure(&mut self, image: String, reference: ImageReference, secrets: Vec<SecretReference>) {
        let puller = self.puller.clone();
        let keeps_compressed = self.situation.keeps_compressed();
        let span = tracing::info_span!("size", image = %reference);
        let name = image.clone();
        let task = async move {
            let size = puller.compressed_size(&reference, &secrets).await;
            let need = size.map_or(Need::Unknown, |size| {
                Need::Bytes(needed(i64::try_from(size).unwrap_or(i64::MAX), keeps_compressed))
            });
            Done::Measured { image, need }
        };
        self.pulling.insert(name, self.tasks.spawn(task.instrument(span)));
    }

    /// Begins a pull.
    pub(super) fn pull(
        &mut self,
        image: String,
        reference: ImageReference,
        secrets: Vec<SecretReference>,
        timeout: Duration,
    ) {
        let puller = self.puller.clone();
        let span = tracing::info_span!("pull", image = %reference);
        let name = image.clone();
        let task = async move {
            tracing::info!("The pull begins");
            let result = tokio::time::timeout(timeout, puller.pull(&reference, &secrets))
                .await
                .unwrap_or_else(|_| {
                    Err(Failure {
                        reason: coral_api::FailureReason::Timeout,
                        message: format!("the pull took longer than {}", kube::core::Duration::from(timeout)),
                    })
                });
            match &result {
                Ok(None) => tracing::warn!("The image is gone again"),
                Ok(Some(held)) => tracing::info!(digest = held.digest, bytes = held.size_bytes, "The image is there"),
                Err(failure) => tracing::warn!(reason = %failure.reason, cause = failure.message, "The pull failed"),
            }
            Done::Pull { image, result }
        };
        self.pulling.insert(name, self.tasks.spawn(task.instrument(span)));
    }
}

/// What Coral has pinned; none where the runtime cannot pin, or does not say: pulls do not depend on it.
async fn pins(runtime: &Runtime, version: &RuntimeInfo) -> Option<Pins> {
    if !is_containerd(version) {
        return None;
    }
    match tokio::time::timeout(RUNTIME_TIMEOUT, runtime.containerd().pins()).await {
        Ok(Ok(pins)) => Some(pins),
        Ok(Err(status)) => {
            tracing::warn!(cause = status.message(), "The runtime does not tell what is pinned");
            None
        }
        Err(_) => {
            tracing::warn!("The runtime does not tell in time what is pinned");
            None
        }
    }
}
