//! Blobs on their way from one registry to another.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use coral_registry::{Repository, Upload};
use futures::{Stream, StreamExt as _};

use crate::{
    budget::Budgets,
    error::{Error, Result},
    observer::{Observer, Settled},
    plan::{Placement, Step},
    survey::Ends,
};

/// Puts a blob where it is wanted. `is_at_hand`: whether the repository that it is to be taken from got it.
pub(crate) async fn place(
    placement: &Placement,
    ends: &Ends,
    is_at_hand: bool,
    budgets: &Budgets,
    observer: &Arc<dyn Observer>,
) -> Result<Settled> {
    let Placement {
        source,
        destination,
        digest,
        size,
        step,
        ..
    } = placement;
    let what = format!("{}/{}@{digest}", destination.registry, destination.path);
    let mut upload = None;
    match step {
        Step::Present => return Ok(Settled::Present),
        Step::Mount { from } if is_at_hand => {
            let _turn = budgets.turn(&[&destination.registry]).await;
            match ends.destination.mount(digest, from).await {
                Ok(None) => return Ok(Settled::Mounted),
                Ok(place) => upload = place,
                // A registry may refuse the other repository to somebody whom it lets write this one.
                Err(error) if !error.is_transient() => {}
                Err(error) => return Err(Error::write(what)(error)),
            }
        }
        Step::Mount { .. } | Step::Send => {}
    }
    let _turn = budgets.turn(&[&source.registry, &destination.registry]).await;
    send(&ends.source, &ends.destination, upload, digest, *size, observer)
        .await
        .map_err(|error| match error {
            // Both ends can fail in here, and what they say names them.
            error if is_of(&error, &source.registry) && source.registry != destination.registry => {
                Error::read(format!("{}/{}@{digest}", source.registry, source.path))(error)
            }
            error => Error::write(what)(error),
        })?;
    Ok(Settled::Sent)
}

async fn send(
    from: &Repository,
    to: &Repository,
    upload: Option<Upload>,
    digest: &str,
    size: u64,
    observer: &Arc<dyn Observer>,
) -> coral_registry::Result<()> {
    let counted = Arc::new(AtomicU64::new(0));
    to.send_blob(upload, digest, size, || {
        let in_vain = counted.swap(0, Relaxed);
        if in_vain > 0 {
            observer.moved_in_vain(in_vain);
        }
        metered(
            from.blob(digest, size).into_stream(),
            Arc::clone(&counted),
            Arc::clone(observer),
        )
    })
    .await
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
