//! Blobs on their way from one registry to another.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use coral_registry::{Check, Upload};
use futures::{Stream, StreamExt as _};

use crate::{
    budget::Budgets,
    error::{Error, Result},
    holdings::{Claim, Holdings},
    observer::{Observer, Settled},
    plan::{Placement, Repository, Step},
    survey::Ends,
};

/// What all copies of this process share.
#[derive(Clone, Copy)]
pub(crate) struct Means<'copier> {
    pub(crate) budgets: &'copier Budgets,
    pub(crate) holdings: &'copier Holdings,
}

/// Puts a blob where it is wanted. `is_at_hand`: whether the repository that it is to be taken from got it.
pub(crate) async fn place(
    placement: &Placement,
    ends: &Ends,
    is_at_hand: bool,
    means: Means<'_>,
    observer: &Arc<dyn Observer>,
) -> Result<Settled> {
    let Placement {
        destination,
        digest,
        step,
        ..
    } = placement;
    let Means { holdings, .. } = means;
    let note = || holdings.note(&destination.registry, &destination.path, digest);
    let mut upload = None;
    match step {
        Step::Present => {
            note();
            return Ok(Settled::Present);
        }
        Step::Mount { from } if is_at_hand => match mount(placement, ends, from, means).await? {
            Mounted::Done => return Ok(Settled::Mounted),
            Mounted::Declined(place) => upload = place,
        },
        Step::Mount { .. } | Step::Send => {}
    }
    let mut bringing = None;
    while upload.is_none() {
        match holdings.claim(&destination.registry, digest) {
            Claim::Yours(duty) => {
                bringing = Some(duty);
                break;
            }
            // When it is dropped that is an answer, too.
            Claim::Coming(mut done_rx) => drop(done_rx.changed().await),
            Claim::Held(from) if from == destination.path => holdings.forget(&destination.registry, &from, digest),
            Claim::Held(from) => match mount(placement, ends, &from, means).await? {
                Mounted::Done => return Ok(Settled::Mounted),
                Mounted::Declined(place) => {
                    holdings.forget(&destination.registry, &from, digest);
                    upload = place;
                }
            },
        }
    }
    send(placement, ends, upload.map(|upload| *upload), means, observer).await?;
    note();
    drop(bringing);
    Ok(Settled::Sent)
}

/// What came of the wish that a registry take a blob from another of its repositories.
enum Mounted {
    Done,
    /// It does not; some give a place to send it to.
    Declined(Option<Box<Upload>>),
}

async fn mount(placement: &Placement, ends: &Ends, from: &str, means: Means<'_>) -> Result<Mounted> {
    let Placement {
        destination, digest, ..
    } = placement;
    let _turn = means.budgets.turn(&[&destination.registry]).await;
    match ends.destination.mount(digest, from).await {
        Ok(None) => Ok(Mounted::Done),
        Ok(place) => Ok(Mounted::Declined(place.map(Box::new))),
        // A registry may refuse the other repository to somebody whom it lets write this one.
        Err(error) if !error.is_transient() => Ok(Mounted::Declined(None)),
        Err(error) => Err(Error::write(name(destination, digest))(error)),
    }
}

async fn send(
    placement: &Placement,
    ends: &Ends,
    upload: Option<Upload>,
    means: Means<'_>,
    observer: &Arc<dyn Observer>,
) -> Result<()> {
    let Placement {
        source,
        destination,
        digest,
        size,
        ..
    } = placement;
    let _turn = means.budgets.turn(&[&source.registry, &destination.registry]).await;
    let counted = Arc::new(AtomicU64::new(0));
    let check = Check::new(digest);
    let content = |offset: u64| {
        // What the destination has of an upload that was cut stays counted.
        let in_vain = counted.swap(offset, Relaxed).saturating_sub(offset);
        if in_vain > 0 {
            observer.moved_in_vain(in_vain);
        }
        let blob = ends.source.blob_from(digest, *size, offset, &check);
        metered(blob.into_stream(), Arc::clone(&counted), Arc::clone(observer))
    };
    let sent = ends.destination.send_blob(upload, digest, *size, content).await;
    sent.map_err(|error| match error {
        // Both ends can fail in here, and what they say names them.
        error if is_of(&error, &source.registry) && source.registry != destination.registry => {
            Error::read(name(source, digest))(error)
        }
        error => Error::write(name(destination, digest))(error),
    })
}

/// A blob, as people are told of it.
fn name(repository: &Repository, digest: &str) -> String {
    format!("{}/{}@{digest}", repository.registry, repository.path)
}

fn metered(
    content: impl Stream<Item = coral_registry::Result<Bytes>> + Send + 'static,
    counted: Arc<AtomicU64>,
    observer: Arc<dyn Observer>,
) -> impl Stream<Item = coral_registry::Result<Bytes>> + Send + 'static {
    content.inspect(move |piece| {
        if let Ok(piece) = piece {
            let bytes = piece.len() as u64;
            counted.fetch_add(bytes, Relaxed);
            observer.moved(bytes);
        }
    })
}

/// Whether it was this registry that failed.
fn is_of(error: &coral_registry::Error, registry: &str) -> bool {
    error
        .host()
        .is_some_and(|host| host == registry || (registry == "docker.io" && host.ends_with(".docker.io")))
}
