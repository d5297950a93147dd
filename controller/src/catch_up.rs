//! Whether the cache has what was written before.
//!
//! A watch is a moment behind. That is no harm as long as the controller knows its own writes from their answers. Of what its predecessor
//! wrote, and of a write of its own that was never answered, it knows nothing: a plan on such a cache could give out turns that are given
//! already. So it asks once for the versions that the API server has, and plans when the watch has brought them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use coral_api::NodeImages;
use coral_runtime::Cache;
use kube::{Api, Client, ResourceExt as _, api::ListParams};

/// How long the watch may take. After that, what is missing has been deleted since, or the watch is broken and will begin with a list.
const PATIENCE: Duration = Duration::from_secs(5);
/// Objects in one page of a list.
const PAGE_SIZE: u32 = 1_000;

/// How long a list may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why it is not known what the cache must have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to list the versions of NodeImages")]
    Api { source: kube::Error },
    #[error("failed to list the versions of NodeImages: the API server gave no answer in {} s", TIMEOUT.as_secs())]
    Timeout,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Versions of the NodeImages objects, by name.
pub(crate) type Versions = BTreeMap<String, u128>;

/// How far the cache has caught up.
#[derive(Debug, Default)]
pub(crate) enum CatchUp {
    /// It has.
    #[default]
    Done,
    /// Nobody knows yet what it must have.
    Due,
    /// The API server is being asked.
    Asking,
    /// These versions are not there yet.
    Waiting { versions: Versions, until: Instant },
}

impl CatchUp {
    pub(crate) fn wait_for(versions: Versions, now: Instant) -> Self {
        Self::Waiting {
            versions,
            until: now + PATIENCE,
        }
    }

    /// Takes in what the cache has. Returns whether that is all.
    pub(crate) fn look(&mut self, cache: &Cache<NodeImages>, now: Instant) -> bool {
        if let Self::Waiting { versions, until } = self {
            versions.retain(|name, version| {
                let known = cache.version(&(None, name.clone()));
                known.is_none_or(|known| known < *version)
            });
            if versions.is_empty() || now >= *until {
                *self = Self::Done;
            }
        }
        matches!(self, Self::Done)
    }

    /// When looking again is worth while although the watch has said nothing.
    pub(crate) const fn until(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until, .. } => Some(*until),
            _ => None,
        }
    }
}

/// The versions that the API server has, of all NodeImages objects.
pub(crate) async fn versions(client: Client) -> Result<Versions> {
    match tokio::time::timeout(TIMEOUT, list(client)).await {
        Ok(result) => result.map_err(|source| Error::Api { source }),
        Err(_) => Err(Error::Timeout),
    }
}

async fn list(client: Client) -> Result<Versions, kube::Error> {
    let api: Api<NodeImages> = Api::all(client);
    let mut parameters = ListParams::default().limit(PAGE_SIZE);
    let mut versions = Versions::new();
    loop {
        let page = api.list_metadata(&parameters).await?;
        let known = page.items.iter().filter_map(|object| {
            let version = object.metadata.resource_version.as_ref()?.parse().ok()?;
            Some((object.name_any(), version))
        });
        versions.extend(known);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(versions),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node_images(name: &str, version: &str) -> NodeImages {
        serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "NodeImages",
            "metadata": {"name": name, "uid": name, "resourceVersion": version},
            "spec": {},
        }))
        .unwrap()
    }

    #[test]
    fn it_waits_for_what_was_there_and_not_for_ever() {
        let now = Instant::now();
        let begin = || CatchUp::wait_for(Versions::from([("a".to_owned(), 7), ("b".to_owned(), 9)]), now);
        let mut cache = Cache::default();
        cache.insert(node_images("a", "8"));
        let mut catch_up = begin();
        assert!(!catch_up.look(&cache, now));
        cache.insert(node_images("b", "8"));
        assert!(!catch_up.look(&cache, now));
        cache.insert(node_images("b", "9"));
        assert!(catch_up.look(&cache, now));

        let mut catch_up = begin();
        assert!(!catch_up.look(&Cache::default(), now));
        assert!(catch_up.look(&Cache::default(), now + PATIENCE));
    }

    #[test]
    fn what_was_never_asked_is_not_known() {
        let cache = Cache::default();
        assert!(CatchUp::Done.look(&cache, Instant::now()));
        assert!(!CatchUp::Due.look(&cache, Instant::now()));
        assert!(!CatchUp::Asking.look(&cache, Instant::now()));
    }
}
