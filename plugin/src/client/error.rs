//! What the API server, or the way to it, refused: sorted by what a person can do about it.

use std::{error::Error as StdError, io, time::Duration};

use coral_api::keys;
use kube::core::Status;

use crate::human;

/// What to do where Coral's resources are unknown to the API server.
const INSTALL_HINT: &str = "Coral is not installed in this cluster: `kubectl coral install` does that";

/// A request that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("failed to reach the Kubernetes API server at {server}: {reason}")]
    Unreachable {
        server: String,
        reason: String,
        hint: String,
    },
    #[error("failed to get an answer from the Kubernetes API server at {server} within {}", human::limit(*after))]
    NoAnswer { server: String, after: Duration },
    #[error("the Kubernetes API server at {server} does not accept your credentials: {message}")]
    Unauthorized { server: String, message: String },
    #[error("{message}")]
    Forbidden { message: String },
    #[error("the server has no resource type prefetches.{}", keys::GROUP)]
    NotInstalled,
    #[error("namespace {namespace:?} does not exist")]
    NoNamespace { namespace: String },
    #[error("{message}")]
    NotFound {
        message: String,
        /// What was looked for, as `kubectl get` names it; empty where the server does not say.
        kind: String,
    },
    #[error("{message}")]
    Invalid { message: String },
    #[error("{message}")]
    Conflict { message: String },
    #[error("the Kubernetes API server at {server} is too busy: {message}")]
    Busy { server: String, message: String },
    #[error("the Kubernetes API server at {server} answered with an error: {message}")]
    Server { server: String, message: String },
    #[error("failed to understand the answer of the Kubernetes API server at {server}: {reason}")]
    Answer { server: String, reason: String },
}

impl RequestError {
    /// Sorts an error of the client library.
    pub(super) fn sort(error: &kube::Error, server: &str) -> Self {
        let server = server.to_owned();
        match error {
            kube::Error::Api(status) => Self::from_status(status, server),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Answer {
                server,
                reason: error.to_string(),
            },
            other => {
                let (reason, hint) = unreachable_because(other);
                Self::Unreachable { server, reason, hint }
            }
        }
    }

    fn from_status(status: &Status, server: String) -> Self {
        let message = sentence(status);
        match status.code {
            401 => Self::Unauthorized { server, message },
            403 => Self::Forbidden { message },
            // The body of an unknown path is text, so the library has no details of it.
            404 if status.details.is_none() && message.contains("page not found") => Self::NotInstalled,
            404 => match &status.details {
                Some(details) if details.kind == "namespaces" => Self::NoNamespace {
                    namespace: details.name.clone(),
                },
                details => Self::NotFound {
                    message,
                    kind: details.as_ref().map(|details| details.kind.clone()).unwrap_or_default(),
                },
            },
            409 => Self::Conflict { message },
            400 | 422 => Self::Invalid {
                message: causes(status).unwrap_or(message),
            },
            429 | 503 | 504 => Self::Busy { server, message },
            _ => Self::Server { server, message },
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { hint, .. } => Some(hint.clone()),
            Self::NoAnswer { .. } => {
                Some("--request-timeout gives it longer; `kubectl get --raw /readyz` asks it how it is".to_owned())
            }
            Self::Unauthorized { .. } => {
                Some("log in again, or check the user of this context: `kubectl auth whoami`".to_owned())
            }
            Self::Forbidden { message } if message.contains(keys::GROUP) => Some(format!(
                "ask for the right; `kubectl auth can-i --list | grep {}` shows what you may do",
                keys::GROUP
            )),
            Self::Forbidden { .. } => {
                Some("ask for the right; `kubectl auth can-i --list` shows what you may do".to_owned())
            }
            Self::NotInstalled => Some(INSTALL_HINT.to_owned()),
            Self::NoNamespace { namespace } => Some(format!("kubectl create namespace {namespace}")),
            Self::Busy { .. } => Some("try again in a moment".to_owned()),
            Self::NotFound { kind, .. } if !kind.is_empty() => Some(format!(
                "`kubectl get {kind} -A` lists those that are there, of all namespaces"
            )),
            Self::NotFound { .. }
            | Self::Invalid { .. }
            | Self::Conflict { .. }
            | Self::Server { .. }
            | Self::Answer { .. } => None,
        }
    }
}

/// The server's own words, or its code where it has none.
fn sentence(status: &Status) -> String {
    match (status.message.trim(), status.reason.as_str()) {
        ("", "") => format!("HTTP status {}", status.code),
        ("", reason) => reason.to_owned(),
        (message, _) => message.to_owned(),
    }
}

/// What is wrong with an object, field by field, without the remark that other rules were not looked at.
fn causes(status: &Status) -> Option<String> {
    let details = status.details.as_ref()?;
    let causes = details
        .causes
        .iter()
        .filter(|cause| !matches!(cause.field.as_str(), "" | "<nil>"));
    let causes: Vec<String> = causes
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    let kind = details.kind.to_lowercase();
    (!causes.is_empty()).then(|| format!("{kind} {:?} is invalid: {}", details.name, causes.join("; ")))
}

/// Why the server was not reached, and what to do, from the chain of causes.
fn unreachable_because(error: &kube::Error) -> (String, String) {
    let is_up = "is the cluster running, and is the server of this context right? `kubectl cluster-info`";
    let mut innermost = error.to_string();
    let mut cause: Option<&dyn StdError> = Some(error);
    while let Some(current) = cause {
        let text = current.to_string();
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return (
                "no such host".to_owned(),
                "check the server of this context: `kubectl config view --minify`".to_owned(),
            );
        }
        if let Some(reason) = current.downcast_ref::<io::Error>().and_then(describe) {
            return (reason.to_owned(), is_up.to_owned());
        }
        if text.contains("certificate") {
            return (
                text,
                "check certificate-authority of this context's cluster: `kubectl config view --minify`".to_owned(),
            );
        }
        innermost = text;
        cause = current.source();
    }
    (innermost, is_up.to_owned())
}

fn describe(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some("connection refused"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Some("the connection was closed"),
        io::ErrorKind::TimedOut => Some("no answer to the attempt to connect"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some("no route to the host"),
        io::ErrorKind::UnexpectedEof => Some("the connection was closed in the middle of an answer"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn sorted(code: u16, message: &str, kind: Option<&str>) -> RequestError {
        let mut status = Status::failure(message, "").with_code(code);
        status.details = kind.map(|kind| StatusDetails {
            name: "shop".to_owned(),
            kind: kind.to_owned(),
            group: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        });
        RequestError::sort(&kube::Error::Api(status.boxed()), "https://example:6443")
    }

    #[test]
    fn an_unknown_path_means_that_coral_is_not_installed() {
        let error = sorted(404, "404 page not found", None);
        assert_eq!(
            error.to_string(),
            "the server has no resource type prefetches.image.stvz.io"
        );
        assert_eq!(error.hint().as_deref(), Some(INSTALL_HINT));
    }

    #[test]
    fn a_missing_namespace_is_named() {
        let error = sorted(404, "namespaces \"shop\" not found", Some("namespaces"));
        assert_eq!(error.to_string(), "namespace \"shop\" does not exist");
    }

    #[test]
    fn a_missing_object_is_not_a_missing_installation() {
        let error = sorted(404, "prefetches.image.stvz.io \"x\" not found", Some("prefetches"));
        assert!(matches!(error, RequestError::NotFound { .. }), "{error:?}");
    }

    #[test]
    fn the_servers_sentences_are_kept() {
        let error = sorted(403, "prefetches is forbidden: User \"eve\" cannot list", None);
        assert_eq!(error.to_string(), "prefetches is forbidden: User \"eve\" cannot list");
        let error = sorted(422, "Prefetch \"web\" is invalid: spec.images: must be …", None);
        assert_eq!(error.to_string(), "Prefetch \"web\" is invalid: spec.images: must be …");
        let error = sorted(500, "", None);
        assert_eq!(
            error.to_string(),
            "the Kubernetes API server at https://example:6443 answered with an error: HTTP status 500"
        );
    }

    #[test]
    fn an_invalid_object_is_explained_field_by_field() {
        let mut status = Status::failure(
            "Prefetch \"web\" is invalid: [spec.images: Too many …, <nil>: …]",
            "Invalid",
        );
        let cause = |field: &str, message: &str| StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        };
        status.code = 422;
        status.details = Some(StatusDetails {
            name: "web".to_owned(),
            group: String::new(),
            kind: "Prefetch".to_owned(),
            uid: String::new(),
            causes: vec![
                cause("spec.images", "Too many: 257: must have at most 256 items"),
                cause("<nil>", "Invalid value: null: some validation rules were not checked"),
            ],
            retry_after_seconds: 0,
        });
        let error = RequestError::sort(&kube::Error::Api(status.boxed()), "https://example:6443");
        assert_eq!(
            error.to_string(),
            "prefetch \"web\" is invalid: spec.images: Too many: 257: must have at most 256 items"
        );
    }

    #[test]
    fn causes_of_a_lost_connection_are_short() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = RequestError::sort(&kube::Error::Service(Box::new(refused)), "https://127.0.0.1:1");
        assert_eq!(
            error.to_string(),
            "failed to reach the Kubernetes API server at https://127.0.0.1:1: connection refused"
        );
    }
}
