//! Why an image was not copied.

use std::{error::Error as StdError, sync::Arc};

/// Result of a step of a copy.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image was not copied. One blob may fail for several images, so that it can be cloned.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The original is not to be had.
    #[error("failed to read {what}")]
    Read {
        /// Repository, and tag or digest.
        what: String,
        /// What the registry says.
        #[source]
        source: Arc<coral_registry::Error>,
    },
    /// The destination does not take the copy.
    #[error("failed to write {what}")]
    Write {
        /// Repository, and tag or digest.
        what: String,
        /// What the registry says.
        #[source]
        source: Arc<coral_registry::Error>,
    },
    /// What the reference names is not an image, or not one that makes sense.
    #[error("failed to read {what}: {why}")]
    NotAnImage {
        /// Repository, and tag or digest.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The image has none of the platforms that were asked for.
    #[error("failed to choose platforms: {image} has none of those that were asked for")]
    NoPlatform {
        /// The image.
        image: String,
    },
    /// The copy of a blob ended without a word.
    #[error("failed to copy {what}: it was given up")]
    Abandoned {
        /// The blob.
        what: String,
    },
}

impl Error {
    pub(crate) fn read(what: impl Into<String>) -> impl FnOnce(coral_registry::Error) -> Self {
        let what = what.into();
        |source| Self::Read {
            what,
            source: Arc::new(source),
        }
    }

    pub(crate) fn write(what: impl Into<String>) -> impl FnOnce(coral_registry::Error) -> Self {
        let what = what.into();
        |source| Self::Write {
            what,
            source: Arc::new(source),
        }
    }

    /// What the registry said, if it was one.
    #[must_use]
    pub fn registry_error(&self) -> Option<&coral_registry::Error> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether it was the destination that did not do its part.
    #[must_use]
    pub const fn is_about_destination(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

/// An error and what caused it, in one line.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some errors say what caused them by themselves.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
