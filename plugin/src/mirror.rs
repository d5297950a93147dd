//! Copies of images from one registry to another, without a cluster.
//!
//! ```text
//!   command line ──jobs──► Copier ──► registries
//!   Docker's configuration ──logins──┘   └──tally──► display (stderr), report (stdout)
//! ```

pub(crate) mod display;
pub(crate) mod failure;
pub(crate) mod jobs;
pub(crate) mod logins;
pub(crate) mod report;
pub(crate) mod tally;

use std::path::PathBuf;

use coral_api::InvalidReference;
use coral_mirror::InvalidName;
use coral_registry::{InvalidAuthorities, InvalidProxy};

use self::failure::chain;

/// Why images were not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{destination:?} is not a place for copies: {}", .source.reason)]
    Place {
        destination: String,
        source: InvalidReference,
    },
    #[error("several images cannot be copied to one name, {destination:?}")]
    OneName { destination: String },
    #[error("{destination:?} has a digest, but the digest of a copy is that of its original")]
    Digest { destination: String },
    #[error("{}", chain(.0))]
    Name(#[from] InvalidName),
    #[error("failed to read {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("failed to read {}: {error}", path.display())]
    Authorities { path: PathBuf, error: InvalidAuthorities },
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    #[error("failed to start: {0}")]
    Client(InvalidAuthorities),
    #[error("failed to get credentials from {program}: {reason}")]
    Helper { program: String, reason: String },
    #[error("failed to copy {failed} of {all} images")]
    Images {
        failed: usize,
        all: usize,
        hint: Option<String>,
    },
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::OneName { destination } => Some(format!(
                "a place for several ends with a slash, and each copy keeps its name below it: {}/",
                destination.trim_end_matches('/')
            )),
            Self::Name(_) => Some("--naming flat makes names of one level".to_owned()),
            Self::Proxy(_) => {
                Some("only HTTP proxies are supported; NO_PROXY lists what is reached without".to_owned())
            }
            Self::Images { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    /// Whether the command line is at fault, so that nothing was asked of anybody.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Place { .. } | Self::OneName { .. } | Self::Digest { .. } | Self::Name(_)
        )
    }
}
