//! Copies of images: those that Coral keeps for a cluster, and those that the command makes itself.
//!
//! ```text
//!   command line ──request──► Mirror ──wait──► ready, or why not
//!   MirroredImage ──overview──► table, failures      ──verdict──► why a pod uses a copy, or does not
//!
//!   command line ──jobs──► Copier ──► registries
//!   Docker's configuration ──logins──┘   └──tally──► display (stderr), report (stdout)
//! ```

pub(crate) mod advice;
pub(crate) mod collection;
pub(crate) mod display;
pub(crate) mod failure;
pub(crate) mod jobs;
pub(crate) mod logins;
pub(crate) mod overview;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod tally;
pub(crate) mod verdict;
pub(crate) mod wait;

use std::{path::PathBuf, time::Duration};

use coral_api::InvalidReference;
use coral_mirror::InvalidName;
use coral_registry::{InvalidAuthorities, InvalidProxy};

use self::failure::chain;
use crate::{exit, human};

/// Where to look when nothing happens to a Mirror at all.
const UNSEEN_HINT: &str = "Does Coral's mirror controller run? kubectl -n coral-system get deployment coral-mirror";

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
    #[error("{registry} is to be reached in two ways")]
    TwoWays { registry: String },
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
    #[error("failed to apply mirror {name}: {message}")]
    Conflict { name: String, message: String },
    #[error("no Mirror has copied {}", quoted(.images))]
    Unknown { images: Vec<String>, near: Vec<String> },
    #[error("mirror {name} will not become ready without help:\n{why}")]
    Stalled { name: String, why: String },
    #[error("timed out after {} waiting for mirror {name}: {waiting}", human::duration(*after))]
    TimedOut {
        name: String,
        after: Duration,
        waiting: String,
    },
    #[error("nothing was removed, because nobody agreed to it")]
    NotConfirmed,
    #[error("failed to remove {failed} of {all} copies")]
    NotRemoved { failed: usize, all: usize },
    #[error("interrupted; mirror {name} stays, and goes on")]
    Interrupted { name: String },
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::OneName { destination } => Some(format!(
                "a place for several ends with a slash, and each copy keeps its name below it: {}/",
                destination.trim_end_matches('/')
            )),
            Self::TwoWays { .. } => {
                Some("--source-ca names one Secret for a registry, and --source-plain-http does without".to_owned())
            }
            Self::Name(_) => Some("--naming flat makes names of one level".to_owned()),
            Self::Proxy(_) => {
                Some("only HTTP proxies are supported; NO_PROXY lists what is reached without".to_owned())
            }
            Self::Images { hint, .. } => hint.clone(),
            Self::Conflict { .. } => Some(
                "somebody else manages these fields: change them there, or make a Mirror of your own with another --name"
                    .to_owned(),
            ),
            Self::Unknown { near, .. } if near.is_empty() => {
                Some("`kubectl coral mirror check IMAGE` says why; `kubectl coral mirror status` lists those that are there".to_owned())
            }
            Self::Unknown { near, .. } => Some(format!("did you mean {}?", near.join(" or "))),
            Self::TimedOut { name, .. } | Self::Interrupted { name } => {
                Some(format!("follow it with `kubectl coral mirror status --mirror {name}`"))
            }
            Self::NotConfirmed => Some("--yes agrees to it".to_owned()),
            Self::NotRemoved { .. } => Some("a registry that answers 405 does not allow to delete: see its settings".to_owned()),
            _ => None,
        }
    }

    /// The code that scripts see.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            // Nothing was asked of anybody.
            Self::Place { .. } | Self::OneName { .. } | Self::Digest { .. } | Self::Name(_) | Self::TwoWays { .. } => {
                exit::USAGE
            }
            Self::Stalled { .. } => exit::IMAGES_FAILED,
            Self::TimedOut { .. } => exit::TIMED_OUT,
            Self::Interrupted { .. } => exit::INTERRUPTED,
            _ => exit::ERROR,
        }
    }
}

fn quoted(images: &[String]) -> String {
    images
        .iter()
        .map(|image| format!("{image:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}
