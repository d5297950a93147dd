//! Copies between registries that behave, and from and to those that do not.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod blobs;
mod exact;
mod trouble;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use coral_mirror::{Copied, Copier, Error, Job, Observer, Options, Outcome, State};
use coral_registry::{
    Client, Error as RegistryError, Keyring, Patience, RedirectRefusal,
    fake::{Asked, Behaviour, Fault, Image, Index, Registry},
};

/// A copier that is patient, but not for long.
pub(crate) fn copier(options: Options, keyring: Keyring) -> Copier {
    let client = Client::new(coral_registry::Options {
        timeout: Duration::from_secs(20),
        patience: Patience {
            attempts: 4,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_secs(2),
        },
        ..coral_registry::Options::default()
    });
    Copier::new(client.unwrap(), Arc::new(keyring), options)
}

/// Bytes that count at the end.
#[derive(Default)]
pub(crate) struct Moved(pub(crate) AtomicU64);

impl Observer for Moved {
    fn moved(&self, bytes: u64) {
        self.0.fetch_add(bytes, SeqCst);
    }

    fn moved_in_vain(&self, bytes: u64) {
        self.0.fetch_sub(bytes, SeqCst);
    }
}

pub(crate) async fn registries() -> (Registry, Registry) {
    let start = || Registry::start(Behaviour::default());
    (start().await, start().await)
}

pub(crate) fn job(from: &Registry, source: &str, to: &Registry, destination: &str) -> Job {
    Job {
        source: format!("{}/{source}", from.host()).parse().unwrap(),
        destination: format!("{}/{destination}", to.host()).parse().unwrap(),
    }
}

pub(crate) async fn copy_with(options: Options, jobs: Vec<Job>) -> Vec<Outcome> {
    let copier = copier(options, Keyring::default());
    let copying = Box::pin(copier.copy(jobs, Arc::new(coral_mirror::Silent)));
    // A test that hangs must end.
    tokio::time::timeout(Duration::from_mins(2), copying).await.unwrap()
}

pub(crate) async fn copy(jobs: Vec<Job>) -> Vec<Outcome> {
    copy_with(Options::default(), jobs).await
}

/// The digest and the state of an image that was copied.
pub(crate) fn copied(outcome: &Outcome) -> (String, State) {
    let Copied { digest, state, .. } = outcome.result.clone().unwrap();
    (digest, state)
}

pub(crate) fn failure(outcomes: &[Outcome]) -> &RegistryError {
    outcomes[0].result.as_ref().unwrap_err().registry_error().unwrap()
}

pub(crate) fn lines(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(Asked::line).collect()
}
