//! What a failure is called in the API.

use coral_api::{FailureReason, mirrored_image::OriginState};
use coral_registry::Error as RegistryError;
use jiff::SignedDuration;

use crate::{Error, chain, destination::Nameless};

/// Most characters of a message.
pub(super) const MAX_MESSAGE: usize = 512;
/// Words of registries whose disk is full; there is no status for it that all use.
const FULL: [&str; 4] = ["no space left", "disk quota", "insufficient storage", "quota exceeded"];

/// Why something went wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    pub(super) reason: FailureReason,
    pub(super) message: String,
    /// What the registry asked for.
    pub(super) retry_after: Option<SignedDuration>,
    /// Whether other credentials, or other authorities, could change it.
    pub(super) is_about_access: bool,
    /// Whether it is the original that is not to be had.
    pub(super) is_about_original: bool,
}

impl Verdict {
    pub(super) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self {
            reason,
            message,
            retry_after: None,
            is_about_access: false,
            is_about_original: false,
        }
    }

    /// How the original is, if this is what came of a look at it.
    pub(super) const fn origin(&self) -> OriginState {
        match self.reason {
            FailureReason::NotFound => OriginState::NotFound,
            FailureReason::Unauthorized | FailureReason::PullSecretUnreadable => OriginState::Unauthorized,
            FailureReason::RateLimited => OriginState::RateLimited,
            _ => OriginState::Unreachable,
        }
    }
}

impl From<&Error> for Verdict {
    fn from(error: &Error) -> Self {
        let registry = error.registry_error();
        let reason = match error {
            Error::NoPlatform { .. } => FailureReason::PlatformMismatch,
            Error::NotAnImage { .. } | Error::Abandoned { .. } => FailureReason::Unknown,
            Error::Read { .. } | Error::Write { .. } => registry.map_or(FailureReason::Unknown, reason),
        };
        let retry_after = registry.and_then(RegistryError::retry_after);
        Self {
            retry_after: retry_after.and_then(|pause| SignedDuration::try_from(pause).ok()),
            is_about_access: registry.is_some_and(|error| {
                let is_unknown = matches!(error, RegistryError::Unreachable { .. }) && !error.is_transient();
                is_unknown || error.may_be_about_credentials()
            }),
            is_about_original: matches!(error, Error::Read { .. }),
            ..Self::new(reason, chain(error))
        }
    }
}

impl From<&Nameless> for Verdict {
    fn from(error: &Nameless) -> Self {
        Self::new(FailureReason::InvalidReference, chain(error))
    }
}

fn reason(error: &RegistryError) -> FailureReason {
    match error {
        RegistryError::NotFound { .. } => FailureReason::NotFound,
        RegistryError::Unauthorized { .. } => FailureReason::Unauthorized,
        RegistryError::RateLimited { .. } => FailureReason::RateLimited,
        RegistryError::Timeout { .. } => FailureReason::Timeout,
        RegistryError::NoPlatform { .. } => FailureReason::PlatformMismatch,
        RegistryError::Unavailable { status: 507, .. } => FailureReason::NoSpace,
        RegistryError::Unavailable { said: Some(said), .. } | RegistryError::Unexpected { said: Some(said), .. }
            if FULL.iter().any(|words| said.to_ascii_lowercase().contains(words)) =>
        {
            FailureReason::NoSpace
        }
        RegistryError::Unreachable { .. }
        | RegistryError::Unavailable { .. }
        | RegistryError::Malformed { .. }
        | RegistryError::TooLarge { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::Redirect { .. } => FailureReason::RegistryUnavailable,
        _ => FailureReason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use coral_registry::{
        Client, Keyring, Options,
        fake::{Behaviour, Fault, Image, Registry},
    };

    use super::*;
    use crate::{Copier, Job, Silent};

    /// A destination that is full, an original that breaks off, and one that has gone between the look and the copy.
    #[tokio::test(flavor = "multi_thread")]
    async fn copies_that_fail_say_why_and_leave_no_tag() {
        let is_blob = |target: &str| target.contains("/blobs/sha256:");
        for (case, reason, is_about_original) in [
            ("full", FailureReason::NoSpace, false),
            ("breaks off", FailureReason::RegistryUnavailable, true),
            ("gone", FailureReason::NotFound, true),
        ] {
            let from = Registry::start(Behaviour::default()).await;
            let to = Registry::start(Behaviour::default()).await;
            Image::new("app", &[100_000]).push(&from, "app", Some("v1"));
            match case {
                "full" => to.fail(|asked| (asked.method == "PUT").then_some(Fault::Status(507, None))),
                "gone" => from.fail(move |asked| is_blob(&asked.target).then_some(Fault::Status(404, None))),
                _ => from.fail(move |asked| is_blob(&asked.target).then_some(Fault::Break(0))),
            }
            let client = Client::new(Options::default()).unwrap();
            let copier = Copier::new(client, Arc::new(Keyring::default()), crate::Options::default());
            let job = Job {
                source: format!("{}/app:v1", from.host()).parse().unwrap(),
                destination: format!("{}/m/app:v1", to.host()).parse().unwrap(),
            };
            let outcome = Box::pin(copier.copy(vec![job], Arc::new(Silent))).await.remove(0);
            let verdict = Verdict::from(&outcome.result.unwrap_err());
            assert_eq!(
                (verdict.reason, verdict.is_about_original),
                (reason, is_about_original),
                "{case}: {verdict:?}"
            );
            assert_eq!(to.manifest("m/app", "v1"), None, "{case}");
        }
    }

    #[test]
    fn failures_have_the_reason_that_people_act_on() {
        use FailureReason::{NoSpace, NotFound, RateLimited, RegistryUnavailable, Timeout, Unauthorized, Unknown};
        let host = || "r.lan".to_owned();
        let unavailable = |status, said: Option<&str>| RegistryError::Unavailable {
            host: host(),
            status,
            retry_after: Some(Duration::from_secs(7)),
            said: said.map(str::to_owned),
        };
        for (error, reason, origin) in [
            (
                RegistryError::NotFound {
                    host: host(),
                    what: "x 1".to_owned(),
                },
                NotFound,
                OriginState::NotFound,
            ),
            (
                RegistryError::Unauthorized {
                    host: host(),
                    said: None,
                },
                Unauthorized,
                OriginState::Unauthorized,
            ),
            (
                RegistryError::RateLimited {
                    host: host(),
                    retry_after: None,
                },
                RateLimited,
                OriginState::RateLimited,
            ),
            (
                RegistryError::Timeout {
                    host: host(),
                    after: Duration::from_secs(1),
                },
                Timeout,
                OriginState::Unreachable,
            ),
            (unavailable(503, None), RegistryUnavailable, OriginState::Unreachable),
            (unavailable(507, None), NoSpace, OriginState::Unreachable),
            (
                unavailable(500, Some("write /data: No space left on device")),
                NoSpace,
                OriginState::Unreachable,
            ),
            (
                RegistryError::Unexpected {
                    host: host(),
                    status: 400,
                    said: None,
                },
                Unknown,
                OriginState::Unreachable,
            ),
        ] {
            let verdict = Verdict::from(&Error::Read {
                what: "r.lan/x:1".to_owned(),
                source: Arc::new(error),
            });
            assert_eq!(
                (verdict.reason, verdict.origin()),
                (reason, origin),
                "{}",
                verdict.message
            );
            assert!(
                verdict.message.starts_with("failed to read r.lan/x:1: "),
                "{}",
                verdict.message
            );
        }
        let error = Error::Write {
            what: "r.lan/x:1".to_owned(),
            source: Arc::new(unavailable(503, None)),
        };
        assert_eq!(Verdict::from(&error).retry_after, Some(SignedDuration::from_secs(7)));
    }
}
