//! What is done outside the loop, beside looks: copies, and writes to the API server.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use coral_api::{ImageReference, Mirror, MirrorStatus, MirroredImage, MirroredImageSpec, MirroredImageStatus, keys};
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{access::Accesses, look::Target, verdict::Verdict};
use crate::{Job, Observer, Outcome};

/// Bytes to send from which on it is worth a look whether other copies have them.
const WORTH: u64 = 1024 * 1024;

/// Something that happened to a copy.
pub(super) struct Copied {
    /// Name of the object.
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) result: Result<crate::Copied, Verdict>,
}

/// A batch of copies to one destination.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) jobs: Vec<(String, ImageReference, Target)>,
    /// Copies that the registry of the destination has, with their digests: they may have what these need.
    pub(super) siblings: Vec<(ImageReference, String)>,
}

/// Tells of each image of a batch as it ends.
struct Reporter {
    ended_tx: mpsc::UnboundedSender<Copied>,
    /// By the name of the copy.
    names: BTreeMap<String, (String, Target)>,
    bytes: Arc<AtomicU64>,
}

impl Observer for Reporter {
    fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn ended(&self, outcome: &Outcome) {
        if let Some((name, target)) = self.names.get(&outcome.job.destination.to_string()) {
            let result = outcome.result.clone().map_err(|error| Verdict::from(&error));
            // The loop may have ended.
            let _ = self.ended_tx.send(Copied {
                name: name.clone(),
                target: target.clone(),
                result,
            });
        }
    }
}

/// Copies a batch. Each image is told of through the channel, whatever came of it.
pub(super) async fn copy(
    accesses: Accesses,
    batch: Batch,
    ended_tx: mpsc::UnboundedSender<Copied>,
    bytes: Arc<AtomicU64>,
) {
    let Some((_, _, first)) = batch.jobs.first() else {
        return;
    };
    let mirror = first.way().0;
    let access = match accesses.get(&first.mirror, first.index).await {
        Ok(access) => access,
        Err(verdict) => {
            for (name, _, target) in batch.jobs {
                let result = Err(verdict.clone());
                let _ = ended_tx.send(Copied { name, target, result });
            }
            return;
        }
    };
    let jobs = batch.jobs.iter().map(|(_, image, target)| Job {
        source: image.clone(),
        destination: target.reference.clone(),
    });
    let jobs = jobs.collect();
    let names = batch
        .jobs
        .into_iter()
        .map(|(name, _, target)| (target.reference.to_string(), (name, target)));
    let reporter = Arc::new(Reporter {
        ended_tx,
        names: names.collect(),
        bytes,
    });
    let prepared = access.copier.prepare(jobs).await;
    if prepared.bytes_to_send() >= WORTH {
        access.copier.recall(batch.siblings).await;
    }
    let outcomes = access.copier.carry_out(prepared, reporter).await;
    let is_refused = |outcome: &Outcome| {
        let error = outcome.result.as_ref().err();
        error.is_some_and(|error| Verdict::from(error).is_about_access)
    };
    if outcomes.iter().any(is_refused) {
        accesses.forget(&mirror).await;
    }
}

/// A write to the API server.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Image {
        name: String,
        spec: MirroredImageSpec,
    },
    ImageStatus {
        name: String,
        status: Box<MirroredImageStatus>,
    },
    DeleteImage {
        name: String,
        uid: Option<String>,
    },
    MirrorStatus {
        name: String,
        status: Box<MirrorStatus>,
    },
}

/// What the API server answered.
pub(super) enum Written {
    Image(Box<MirroredImage>),
    ImageGone(String),
    Mirror(Box<Mirror>),
}

impl Write {
    /// What it is about: nothing else about the same is written at the same time.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Image { name, .. } | Self::ImageStatus { name, .. } | Self::DeleteImage { name, .. } => {
                format!("MirroredImage {name}")
            }
            Self::MirrorStatus { name, .. } => format!("Mirror {name}"),
        }
    }

    pub(super) async fn carry_out(self, client: Client) -> Result<Written, kube::Error> {
        let images: Api<MirroredImage> = Api::all(client.clone());
        let apply = PatchParams::apply(keys::MIRROR_FIELD_MANAGER).force();
        match self {
            Self::Image { name, spec } => {
                let body = json!({
                    "apiVersion": MirroredImage::api_version(&()),
                    "kind": MirroredImage::kind(&()),
                    "metadata": {"name": name},
                    "spec": spec,
                });
                let object = images.patch(&name, &apply, &Patch::Apply(&body)).await?;
                Ok(Written::Image(Box::new(object)))
            }
            Self::ImageStatus { name, status } => {
                let body = json!({
                    "apiVersion": MirroredImage::api_version(&()),
                    "kind": MirroredImage::kind(&()),
                    "metadata": {"name": name},
                    "status": status,
                });
                let object = images.patch_status(&name, &apply, &Patch::Apply(&body)).await?;
                Ok(Written::Image(Box::new(object)))
            }
            Self::DeleteImage { name, uid } => {
                let parameters = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid,
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                match images.delete(&name, &parameters).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => {}
                    other => drop(other?),
                }
                Ok(Written::ImageGone(name))
            }
            Self::MirrorStatus { name, status } => {
                let body = json!({
                    "apiVersion": Mirror::api_version(&()),
                    "kind": Mirror::kind(&()),
                    "metadata": {"name": name},
                    "status": status,
                });
                let mirrors: Api<Mirror> = Api::all(client);
                let object = mirrors.patch_status(&name, &apply, &Patch::Apply(&body)).await?;
                Ok(Written::Mirror(Box::new(object)))
            }
        }
    }
}
