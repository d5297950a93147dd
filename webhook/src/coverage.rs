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
        .backoff(coral_runtime::watch_backoff())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mutate::{Options, mutate};

    fn prefetch(name: &str, images: &[&str], pull_policy: &str) -> Prefetch {
        serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"images": images, "pullPolicy": pull_policy},
        }))
        .unwrap()
    }

    /// The warnings about a pod with this image.
    fn warnings(named: &Named, image: &str) -> Vec<String> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"annotations": {"image.stvz.io/inject": "selectors,pull-policy"}},
            "spec": {"containers": [{"name": "a", "image": image}]},
        });
        let options = Options {
            coverage: Some(&named.coverage()),
            ..Options::default()
        };
        mutate(&pod, &options).unwrap().warnings
    }

    #[test]
    fn only_what_prefetches_name_makes_a_difference() {
        let mut named = Named::default();
        assert!(!named.take(Event::Init));
        assert!(!named.take(Event::InitApply(prefetch("one", &["nginx:1.29"], "IfNotPresent"))));
        assert!(named.take(Event::InitDone));
        assert_eq!(warnings(&named, "docker.io/library/nginx:1.29"), Vec::<String>::new());
        assert_eq!(warnings(&named, "redis:8").len(), 1);

        assert!(!named.take(Event::Apply(prefetch("one", &["nginx:1.29"], "IfNotPresent"))));
        assert!(named.take(Event::Apply(prefetch("two", &["redis:8", "busybox"], "IfNotPresent"))));
        assert_eq!(warnings(&named, "redis:8"), Vec::<String>::new());
        assert_eq!(warnings(&named, "busybox").len(), 1, "its tag moves");
        assert!(named.take(Event::Apply(prefetch("two", &["redis:8", "busybox"], "Always"))));
        assert_eq!(warnings(&named, "busybox"), Vec::<String>::new());

        // A list that begins anew takes nothing away before it is complete.
        assert!(!named.take(Event::Init));
        assert_eq!(warnings(&named, "redis:8"), Vec::<String>::new());
        assert!(!named.take(Event::InitApply(prefetch("two", &["busybox"], "Always"))));
        assert!(named.take(Event::InitDone));
        assert_eq!(warnings(&named, "nginx:1.29").len(), 1);
        assert!(named.take(Event::Delete(prefetch("two", &["busybox"], "Always"))));
        assert!(!named.take(Event::Delete(prefetch("two", &["busybox"], "Always"))));
        assert_eq!(warnings(&named, "busybox").len(), 2);
    }
}
