//! What went wrong, from the words of the container runtime.
//!
//! CRI has no error codes for pulls: containerd answers `Unknown` to most failed ones, and CRI-O to all, so the text
//! decides. The words are in one table, and the messages they were taken from stand beside it.
//!
//! ```text
//!   Status ──code, transport──► the runtime itself
//!      └─────text──► table ──► reason
//!      └─────text──► message: without what is said beside it, credentials, and the middle of a long one
//! ```

mod message;
mod table;

use std::error::Error as _;

use coral_api::FailureReason;
use tonic::{Code, TimeoutExpired};

/// Why an attempt failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// A sentence for people; at most [`coral_api::node_images::MAX_MESSAGE_LENGTH`] characters.
    pub message: String,
}

/// The failure that a runtime's answer to a call means.
#[must_use]
pub fn classify(status: &tonic::Status) -> Failure {
    of_the_runtime(status).unwrap_or_else(|| Failure {
        reason: table::reason(status.message()).unwrap_or_else(|| of_code(status.code())),
        message: message::shown(status.message()),
    })
}

/// The reason that the words of a runtime mean.
#[must_use]
pub fn classify_text(text: &str) -> FailureReason {
    table::reason(text).unwrap_or(FailureReason::Unknown)
}

/// A failure of the call rather than of what was asked for.
fn of_the_runtime(status: &tonic::Status) -> Option<Failure> {
    let text = status.message();
    // tonic reports a socket that is not there, or a connection that breaks, with an error of its transport as source.
    if let Some(source) = status.source() {
        let reason = if source.is::<TimeoutExpired>() {
            FailureReason::Timeout
        } else {
            FailureReason::RuntimeUnavailable
        };
        let message = format!("the container runtime does not answer: {}", innermost(source));
        return Some(Failure {
            reason,
            message: message::shown(&message),
        });
    }
    let message = match status.code() {
        Code::Unimplemented => format!(
            "the container runtime does not speak CRI v1: it is older than containerd 1.6, or containerd's CRI plugin is \
             disabled ({text})"
        ),
        // The runtime's limit comes as ResourceExhausted, and tonic's own as OutOfRange.
        Code::ResourceExhausted | Code::OutOfRange if table::is_too_large(text) => {
            format!("the answer of the container runtime is too large ({text})")
        }
        _ => return None,
    };
    Some(Failure {
        reason: FailureReason::RuntimeUnavailable,
        message: message::shown(&message),
    })
}

/// What a code means whose text means nothing. containerd gives registries' errors codes, too, so that the text has the first word.
const fn of_code(code: Code) -> FailureReason {
    match code {
        Code::Unavailable => FailureReason::RuntimeUnavailable,
        Code::DeadlineExceeded | Code::Cancelled => FailureReason::Timeout,
        Code::NotFound => FailureReason::NotFound,
        _ => FailureReason::Unknown,
    }
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
