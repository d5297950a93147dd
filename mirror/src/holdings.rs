//! Which repository of a registry has a blob, and who is bringing one there, over all copies that this process makes.
//!
//! What is known is a hint: a registry that does not mount from there any more says so, and gets the blob.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// Most blobs that are remembered. Those beyond are sent where they could have been mounted.
const MAX_BLOBS: usize = 20_000;

/// What registries hold. Cheap to clone; clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    known: Arc<Mutex<Known>>,
}

/// A registry, and the digest of a blob.
type Key = (String, String);

#[derive(Debug, Default)]
struct Known {
    /// A repository that has it.
    held: BTreeMap<Key, String>,
    /// When somebody has brought it, or given up.
    coming: BTreeMap<Key, watch::Receiver<()>>,
    /// Copies of which the manifests were read.
    recalled: BTreeSet<String>,
}

/// How a blob comes to one more repository of a registry.
#[derive(Debug)]
pub(crate) enum Claim {
    /// From the repository of this path.
    Held(String),
    /// Somebody is bringing it to another one. When this changes it is time to ask again.
    Coming(watch::Receiver<()>),
    /// It is for who asks to bring it.
    Yours(Bringing),
}

/// The duty to bring a blob. Others wait until it is dropped.
#[derive(Debug)]
pub(crate) struct Bringing {
    holdings: Holdings,
    key: Key,
    _done_tx: watch::Sender<()>,
}

impl Holdings {
    /// How a blob that is wanted comes there.
    pub(crate) fn claim(&self, registry: &str, digest: &str) -> Claim {
        let key = (registry.to_owned(), digest.to_owned());
        let mut known = self.lock();
        if let Some(path) = known.held.get(&key) {
            return Claim::Held(path.clone());
        }
        if let Some(done_rx) = known.coming.get(&key) {
            return Claim::Coming(done_rx.clone());
        }
        let (done_tx, done_rx) = watch::channel(());
        known.coming.insert(key.clone(), done_rx);
        Claim::Yours(Bringing {
            holdings: self.clone(),
            key,
            _done_tx: done_tx,
        })
    }

    /// A repository has a blob.
    pub(crate) fn note(&self, registry: &str, path: &str, digest: &str) {
        let mut known = self.lock();
        known
            .held
            .insert((registry.to_owned(), digest.to_owned()), path.to_owned());
        if known.held.len() > MAX_BLOBS {
            known.held.pop_first();
        }
    }

    /// A repository was believed to have a blob, and does not, or does not give it.
    pub(crate) fn forget(&self, registry: &str, path: &str, digest: &str) {
        let key = (registry.to_owned(), digest.to_owned());
        let mut known = self.lock();
        if known.held.get(&key).is_some_and(|held| held == path) {
            known.held.remove(&key);
        }
    }

    /// Whether the manifests of a copy are to be read: once.
    pub(crate) fn is_to_recall(&self, copy: &str) -> bool {
        let mut known = self.lock();
        if known.recalled.len() >= MAX_BLOBS {
            known.recalled.clear();
        }
        known.recalled.insert(copy.to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        self.holdings.lock().coming.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_brings_a_blob_and_the_others_wait() {
        let holdings = Holdings::default();
        let Claim::Yours(first) = holdings.claim("r", "sha256:1") else {
            panic!("nobody has it");
        };
        // Another registry, and another blob, are another matter.
        for (registry, digest) in [("s", "sha256:1"), ("r", "sha256:2")] {
            assert!(matches!(holdings.claim(registry, digest), Claim::Yours(_)));
        }
        let Claim::Coming(mut wait) = holdings.claim("r", "sha256:1") else {
            panic!("it is coming");
        };
        assert!(futures::poll!(std::pin::pin!(wait.changed())).is_pending());
        // The first gives up: it is the other's turn, and it gets it there.
        drop(first);
        assert!(wait.changed().await.is_err());
        let Claim::Yours(second) = holdings.claim("r", "sha256:1") else {
            panic!("nobody brings it");
        };
        holdings.note("r", "a", "sha256:1");
        drop(second);
        assert!(matches!(holdings.claim("r", "sha256:1"), Claim::Held(path) if path == "a"));
        // What is said of another repository changes nothing.
        holdings.forget("r", "b", "sha256:1");
        assert!(matches!(holdings.claim("r", "sha256:1"), Claim::Held(_)));
        holdings.forget("r", "a", "sha256:1");
        assert!(matches!(holdings.claim("r", "sha256:1"), Claim::Yours(_)));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let holdings = Holdings::default();
        for number in 0..MAX_BLOBS + 10 {
            holdings.note("r", "a", &number.to_string());
        }
        assert_eq!(holdings.lock().held.len(), MAX_BLOBS);
        assert!(holdings.is_to_recall("r/a@1") && !holdings.is_to_recall("r/a@1"));
    }
}
