//! What is asked of the API server, counted at the client's end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use hyper::{Method, Request};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::util::MapRequestLayer;

/// Counts the writes of the clients that it made. All clones are one tally.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tally {
    /// A client whose writes are counted here.
    pub fn client(&self, config: &Config) -> Result<Client> {
        let tally = self.clone();
        let count = MapRequestLayer::new(move |request: Request<Body>| {
            tally.note(request.method(), request.uri().path());
            request
        });
        let builder = ClientBuilder::try_from(config.clone()).context("make a client")?;
        Ok(builder.with_layer(&count).build())
    }

    fn note(&self, method: &Method, path: &str) {
        if !matches!(*method, Method::GET | Method::HEAD) {
            *self.lock().entry(path.to_owned()).or_default() += 1;
        }
    }

    /// All writes so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.lock().values().sum()
    }

    /// The writes to paths that end with `end`: to the objects of this name with `/name`, to their status with
    /// `/name/status`.
    #[must_use]
    pub fn writes_to(&self, end: &str) -> usize {
        let lock = self.lock();
        lock.iter()
            .filter(|(path, _)| path.ends_with(end))
            .map(|(_, count)| count)
            .sum()
    }

    /// How often each path was written.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, usize> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_count_each_with_its_path() {
        let tally = Tally::default();
        tally.note(&Method::GET, "/api/v1/nodes/a");
        tally.note(&Method::PATCH, "/api/v1/nodes/a");
        tally.note(&Method::PATCH, "/api/v1/nodes/a/status");
        tally.note(&Method::DELETE, "/api/v1/nodes/aa");
        assert_eq!(tally.writes(), 3);
        assert_eq!(tally.writes_to("/a"), 1);
        assert_eq!(tally.writes_to("/a/status"), 1);
    }
}
