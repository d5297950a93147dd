//! Which images are being prefetched, for the warnings. Nothing depends on it: without it, or with what was true a while ago,
//! admissions are answered all the same.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use coral_api::{ImageReference, Prefetch, prefetch::PullPolicy};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use crate::mutate::Coverage;

/// The newest coverage, if any. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownCoverage(Arc<RwLock<Option<Arc<Coverage>>>>);

impl KnownCoverage {
    pub(crate) fn get(&self) -> Option<Arc<Coverage>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, coverage: Coverage) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(coverage));
    }
}

type Images = (Vec<ImageReference>, bool);

/// What every Prefetch names. Their statuses change all the time, what they name hardly ever.
#[derive(Debug, Default)]
struct Named {
    by_prefetch: HashMap<(String, String), Images>,
    /// A list that is not complete yet must not replace one that was.
    listing: Option<HashMap<(String, String), Images>>,
}

impl Named {
    /// Takes an event in. Returns whether anything is different now.
    fn take(&mut self, event: Event<Prefetch>) -> bool {
        match event {
            Event::Init => self.listing = Some(HashMap::new()),
            Event::InitApply(prefetch) => {
                self.listing
                    .get_or_insert_default()
                    .insert(key(&prefetch), images(&prefetch));
            }
            Event::InitDone => {
                self.by_prefetch = self.listing.take().unwrap_or_default();
                return true;
            }
            Event::Apply(prefetch) => {
                let images = images(&prefetch);
                return self.by_prefetch.insert(key(&prefetch), images.clone()) != Some(images);
            }
            Event::Delete(prefetch) => return self.by_prefetch.remove(&key(&prefetch)).is_some(),
        }
        false
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

fn key(prefetch: &Prefetch) -> (String, String) {
    (prefetch.namespace().unwrap_or_default(), prefetch.name_any())
}

fn images(prefetch: &Prefetch) -> Images {
    let images = prefetch.spec.images.iter().filter_map(|image| image.parse().ok());
    (images.collect(), prefetch.spec.pull_policy == PullPolicy::Always)
}

/// Keeps `known` up to date, for ever.
pub(crate) async fn follow(client: Client, known: KnownCoverage) {
    let mut events = watcher(Api::<Prefetch>::all(client), watcher::Config::default())
        .default_backoff()
        .boxed();
    let mut named = Named::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if named.take(event) {
                    known.set(named.coverage());
                }
            }
            Err(error) => tracing::warn!(error = %error, "The watch of Prefetches broke; it is begun again"),
        }
    }
}
