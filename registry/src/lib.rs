//! A client of registries that speak the OCI distribution specification.
//!
//! ```text
//!   Secrets ──Keyring──► Credential ─┐                ┌─► proxy ─┐
//!   ImageReference ──────────────────┴─► Client ──HTTPS┴──────────┴─► registry ──► manifests, blobs, lists
//! ```
//!
//! A registry is not trusted with more than the credentials that are meant for it. What it sends is bounded in size and time, a
//! manifest that was asked for by digest has that digest, and where it redirects to is looked at first (`address`).
//!
//! A client asks once, or has [`Patience`]: then it asks again where a registry fails for the moment, and waits as long as it wants.
//!
//! # Certificate authorities
//!
//! Registries are held against the authorities of the system (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or the usual paths), or, where
//! there are none, as in an image that is made from scratch, against those of Mozilla's list at the time of the build. Others
//! are named in [`Options::authorities`], or for one registry in [`Options::authorities_of`].

mod address;
mod blob;
mod challenge;
mod client;
mod connector;
mod credential;
mod digest;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod listing;
mod manifest;
mod origin;
mod patience;
mod platform;
#[cfg(test)]
mod properties;
mod proxy;
mod repository;
mod size;
#[cfg(test)]
mod test_server;
mod tls;
mod token;
mod transport;
mod upload;

pub use blob::{Blob, Check};
pub use client::{Client, Options};
pub use credential::{Credential, Keyring, Malformed};
pub use digest::{digest, is_digest};
pub use error::{Error, RedirectRefusal, Result};
pub use manifest::{Descriptor, Document, Manifest, ManifestHead};
pub use patience::Patience;
pub use platform::{InvalidPlatform, Platform};
pub use proxy::{InvalidProxy, Proxies, is_proxied};
pub use repository::Repository;
pub use size::ImageSize;
pub use tls::{InvalidAuthorities, check_authorities};
pub use upload::Upload;
