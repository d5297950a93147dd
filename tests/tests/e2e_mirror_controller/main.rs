//! The mirror controller against a real API server and two real registries: with the rights that it is deployed with, in this process, so
//! that it can be killed.
//!
//! The originals are in the open registry, the copies behind TLS and a password. Pods do not run: templates and Prefetches use images, too.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod copies;
mod full;
mod site;
mod sources;
mod trouble;
