//! Which images are being prefetched, for the warnings. Nothing depends on it: without it, or with what was true a while ago,
//! admissions are answered all the same.
//!
//! A watch of one's own, and not kube's `watcher`, because that one keeps to itself when the API server says that nothing has changed. Here this
//! is what counts: an old list may be as good as new, or a warning from it may be wrong.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use coral_api::{ImageReference, Prefetch, prefetch::PullPolicy};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
    core::{DeserializeGuard, Status},
};
use tokio::time::{Instant, timeout};

use crate::{metrics::Metrics, mutate::Coverage};

/// For how long what is known is used without word from the API server that it is true still. Then no image is said to be covered by no
/// Prefetch any more: somebody may have made one since.
pub(crate) const TRUSTED: Duration = Duration::from_mins(5);
/// How long a watch may be silent. The API server says every minute how far it is.
const SILENCE: Duration = Duration::from_secs(150);
/// How long one watch lasts; then everything is listed again.
const WATCH_SECONDS: u32 = 290;
/// Prefetches in one page of a list: some have thousands of lines of status, and are in memory all at once.
const PAGE: u32 = 50;

/// The newest coverage, if any. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownCoverage(Arc<RwLock<Option<Known>>>);

#[derive(Debug)]
struct Known {
    coverage: Arc<Coverage>,
    /// When the API server last said that it is so.
    confirmed: Instant,
}

impl KnownCoverage {
    /// What is known at this time; nothing where it may not be true any more.
    pub(crate) fn get(&self, now: Instant) -> Option<Arc<Coverage>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Known { coverage, confirmed } = known.as_ref()?;
        (now.saturating_duration_since(*confirmed) <= TRUSTED).then(|| Arc::clone(coverage))
    }

    fn set(&self, coverage: Coverage) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Known {
            coverage: Arc::new(coverage),
            confirmed: Instant::now(),
        });
    }

    /// What is known is true still.
    fn confirm(&self) {
        if let Some(known) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            known.confirmed = Instant::now();
        }
    }
}

/// Why a watch is over.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("failed to list the Prefetches")]
    List(#[source] kube::Error),
    #[error("failed to begin the watch")]
    Begin(#[source] kube::Error),
    #[error("failed to go on with the watch")]
    Watch(#[source] kube::Error),
    #[error("the API server ends the watch: {}", .0.message)]
    Told(Box<Status>),
    #[error("the API server has said nothing for {} s", SILENCE.as_secs())]
    Silent,
}

type Images = (Vec<ImageReference>, bool);

/// A Prefetch, or one that this version cannot read and that covers nothing.
type Guarded = DeserializeGuard<Prefetch>;

/// What every Prefetch names. Their statuses change all the time, what they name hardly ever.
#[derive(Debug, Default)]
struct Named {
    by_prefetch: HashMap<(String, String), Images>,
}

impl Named {
    fn insert(&mut self, prefetch: &Guarded) -> bool {
        let images = images(prefetch);
        self.by_prefetch.insert(key(prefetch), images.clone()) != Some(images)
    }

    /// Takes an event in. Returns whether anything is different now.
    fn take(&mut self, event: WatchEvent<Guarded>) -> Result<bool, Broken> {
        match event {
            WatchEvent::Added(prefetch) | WatchEvent::Modified(prefetch) => Ok(self.insert(&prefetch)),
            WatchEvent::Deleted(prefetch) => Ok(self.by_prefetch.remove(&key(&prefetch)).is_some()),
            WatchEvent::Bookmark(_) => Ok(false),
            WatchEvent::Error(status) => Err(Broken::Told(status)),
        }
    }

    fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for (images, is_refreshed) in self.by_prefetch.values() {
            for image in images {
                coverage.insert(image.clone(), *is_refreshed);
            }
        }
        coverage
    }
}

fn key(prefetch: &Guarded) -> (String, String) {
    (prefetch.namespace().unwrap_or_default(), prefetch.name_any())
}

fn images(prefetch: &Guarded) -> Images {
    let Ok(Prefetch { spec, .. }) = &prefetch.0 else {
        return Images::default();
    };
    let images = spec.images.iter().filter_map(|image| image.parse().ok());
    (images.collect(), spec.pull_policy == PullPolicy::Always)
}

/// Keeps `known` up to date, for ever.
pub(crate) async fn follow(client: Client, known: KnownCoverage, metrics: Metrics) -> Infallible {
    let api: Api<Guarded> = Api::all(client);
    metrics.prefetches_are_known();
    let mut pauses = coral_runtime::watch_backoff();
    loop {
        let began = Instant::now();
        if let Err(broken) = once(&api, &known, &metrics).await {
            let cause = std::error::Error::source(&broken).map(ToString::to_string);
            tracing::warn!(error = %broken, cause, "The watch of Prefetches broke; it is begun again");
        }
        if began.elapsed() >= SILENCE {
            pauses = coral_runtime::watch_backoff();
        }
        // Also behind one that ended in good order: it may have done so at once.
        tokio::time::sleep(pauses.next().unwrap_or(SILENCE)).await;
    }
}

/// Lists all Prefetches, and watches them until the API server ends the watch in good order.
async fn once(api: &Api<Guarded>, known: &KnownCoverage, metrics: &Metrics) -> Result<(), Broken> {
    let mut named = Named::default();
    let mut page = ListParams::default().limit(PAGE);
    let version = loop {
        let list = timeout(SILENCE, api.list(&page)).await.map_err(|_| Broken::Silent)?;
        let list = list.map_err(Broken::List)?;
        for prefetch in &list.items {
            named.insert(prefetch);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => break list.metadata.resource_version.unwrap_or_default(),
        }
    };
    known.set(named.coverage());
    metrics.prefetches_are_known();
    let parameters = WatchParams::default().timeout(WATCH_SECONDS);
    let begun = timeout(SILENCE, api.watch(&parameters, &version)).await;
    let events = begun.map_err(|_| Broken::Silent)?.map_err(Broken::Begin)?;
    let mut events = pin!(events);
    while let Some(event) = timeout(SILENCE, events.next()).await.map_err(|_| Broken::Silent)? {
        if named.take(event.map_err(Broken::Watch)?)? {
            known.set(named.coverage());
        } else {
            known.confirm();
        }
        metrics.prefetches_are_known();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
