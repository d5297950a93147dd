//! Which images are being prefetched, for the warnings. Nothing depends on it: without it, or with what was true a while ago,
//! admissions are answered all the same. When it may not be true any more, no image is said to be covered by no Prefetch: somebody may have
//! made one since.

use std::{collections::HashMap, convert::Infallible};

use coral_admission::mutate::Coverage;
use coral_api::{ImageReference, Prefetch, prefetch::PullPolicy};
use kube::{Client, ResourceExt as _};

use crate::{
    metrics::Metrics,
    watched::{self, Guarded, Known, Lesson},
};

/// The newest coverage, if any. Clones share it.
pub(crate) type KnownCoverage = Known<Coverage>;

type Images = (Vec<ImageReference>, bool);

/// What every Prefetch names. One that this version cannot read covers nothing.
#[derive(Debug, Default)]
struct Named {
    by_prefetch: HashMap<(String, String), Images>,
}

impl Lesson for Named {
    type Object = Prefetch;
    type Knowledge = Coverage;
    const OBJECTS: &'static str = "Prefetches";

    fn learn(&mut self, prefetch: &Guarded<Prefetch>) -> bool {
        let images = images(prefetch);
        self.by_prefetch.insert(key(prefetch), images.clone()) != Some(images)
    }

    fn forget(&mut self, prefetch: &Guarded<Prefetch>) -> bool {
        self.by_prefetch.remove(&key(prefetch)).is_some()
    }

    fn knowledge(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for (images, is_refreshed) in self.by_prefetch.values() {
            for image in images {
                coverage.insert(image.clone(), *is_refreshed);
            }
        }
        coverage
    }
}

fn key(prefetch: &Guarded<Prefetch>) -> (String, String) {
    (prefetch.namespace().unwrap_or_default(), prefetch.name_any())
}

fn images(prefetch: &Guarded<Prefetch>) -> Images {
    let Ok(Prefetch { spec, .. }) = &prefetch.0 else {
        return Images::default();
    };
    let images = spec.images.iter().filter_map(|image| image.parse().ok());
    (images.collect(), spec.pull_policy == PullPolicy::Always)
}

/// Keeps `known` up to date, for ever.
pub(crate) async fn follow(client: Client, known: KnownCoverage, metrics: Metrics) -> Infallible {
    watched::follow::<Named>(client, known, || metrics.prefetches_are_known()).await
}

#[cfg(test)]
mod tests;
