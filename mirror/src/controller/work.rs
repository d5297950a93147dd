//! What is done outside the loop: looks at registries, copies, and writes to the API server.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use coral_api::{
    FailureReason, ImageReference, Mirror, MirrorStatus, MirroredImage, MirroredImageSpec, MirroredImageStatus, keys,
};
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    access::{Access, Accesses, Way},
    verdict::Verdict,
};
use crate::{Job, Observer, Outcome};

/// One copy that is looked at.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) mirror: Arc<Mirror>,
    /// The place of the destination in the Mirror's list.
    pub(super) index: usize,
    pub(super) reference: ImageReference,
    /// What the copy is known to be.
    pub(super) digest: Option<String>,
}

impl Target {
    pub(super) fn way(&self) -> Way {
        (kube::ResourceExt::name_any(&*self.mirror), self.index)
    }
}

/// What a look has shown.
pub(super) struct Looked {
    /// The object's name.
    pub(super) name: String,
    pub(super) image: ImageReference,
    /// The digest of the original. `None`: nobody could ask, for want of a Secret.
    pub(super) origin: Option<Result<String, Verdict>>,
    pub(super) copies: Vec<(Target, Seen)>,
}

/// How a copy is.
pub(super) enum Seen {
    /// It is what the original is.
    Equal,
    /// It is what it was, but nobody knows what the original is.
    Unchanged,
    /// It is not there, or something else.
    Missing,
    /// It cannot be told.
    Unknown(Verdict),
}

/// Looks at the original once, and at each copy.
pub(super) async fn look(accesses: Accesses, name: String, image: ImageReference, targets: Vec<Target>) -> Looked {
    let mut ways: Vec<(Target, Result<Arc<Access>, Verdict>)> = Vec::with_capacity(targets.len());
    for target in targets {
        let access = accesses.get(&target.mirror, target.index).await;
        ways.push((target, access));
    }
    let origin = original(&image, &ways).await;
    let mut copies = Vec::with_capacity(ways.len());
    for (target, access) in ways {
        let expected = match &origin {
            Some(Ok(digest)) => Some(digest.clone()),
            _ => target.digest.clone(),
        };
        let is_known = matches!(origin, Some(Ok(_)));
        let seen = match (access, expected) {
            (Err(verdict), _) => Seen::Unknown(verdict),
            (Ok(_), None) => Seen::Missing,
            (Ok(access), Some(digest)) => match access.copier.has(&target.reference, &digest).await {
                Ok(true) if is_known => Seen::Equal,
                Ok(true) => Seen::Unchanged,
                Ok(false) => Seen::Missing,
                Err(error) => Seen::Unknown(Verdict::from(&error)),
            },
        };
        copies.push((target, seen));
    }
    let refused = |verdict: &Verdict| verdict.is_about_access || verdict.reason == FailureReason::PullSecretUnreadable;
    for (target, seen) in &copies {
        let is_refused = matches!(seen, Seen::Unknown(verdict) if refused(verdict))
            || matches!(&origin, Some(Err(verdict)) if refused(verdict));
        if is_refused {
            accesses.forget(&target.way().0).await;
        }
    }
    Looked {
        name,
        image,
        origin,
        copies,
    }
}

/// Asks with the credentials of one Mirror after the other, as long as other credentials may help.
async fn original(
    image: &ImageReference,
    ways: &[(Target, Result<Arc<Access>, Verdict>)],
) -> Option<Result<String, Verdict>> {
    let mut asked = BTreeMap::new();
    for (target, access) in ways {
        if let Ok(access) = access {
            asked.entry(target.way().0).or_insert(access);
        }
    }
    let mut failure: Option<Verdict> = None;
    for access in asked.into_values() {
        match access.copier.original(image).await {
            Ok(digest) => return Some(Ok(digest)),
            Err(error) => {
                let mut verdict = Verdict::from(&error);
                let goes_on = verdict.is_about_access;
                if let Some(missing) = access.missing.clone().filter(|_| goes_on) {
                    verdict = missing;
                }
                failure = Some(verdict);
                if !goes_on {
                    break;
                }
            }
        }
    }
    failure.map(Err)
}

/// Something that happened to a copy.
pub(super) struct Copied {
    /// Name of the object.
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) result: Result<crate::Copied, Verdict>,
}

/// A batch of copies to one destination.
pub(super) struct Batch {
    pub(super) jobs: Vec<(String, ImageReference, Target)>,
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
    let outcomes = access.copier.copy(jobs, reporter).await;
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
