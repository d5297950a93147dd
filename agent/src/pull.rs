//! One attempt at one image, with the credentials that the Prefetches name.

use std::{sync::OnceLock, time::Duration};

use coral_api::{
    FailureReason, ImageReference,
    node_images::{MAX_MESSAGE_LENGTH, SecretReference},
};
use coral_registry::{Credential, Keyring, Platform};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::{
    classify::Failure,
    runtime::{HeldImage, Runtime},
};

/// Longest time for the reading of one Secret: an API server that is away must not use up the time of the pull.
const SECRET_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for the question how large an image is: the pull waits for the answer, and does without if there is none.
const SIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pulls images. Cheap to clone: every pull has its own.
#[derive(Clone)]
pub(crate) struct Puller {
    client: Client,
    runtime: Runtime,
}

/// A Secret that gave no credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Unusable {
    secret: SecretReference,
    why: String,
    /// Whether the agent lacks the right to read it, which somebody can grant.
    is_forbidden: bool,
}

impl Puller {
    pub(crate) const fn new(client: Client, runtime: Runtime) -> Self {
        Self { client, runtime }
    }

    /// Pulls the image with each set of credentials that fits, in the order of the Secrets, then without any. The Secrets are read
    /// for this attempt and wiped from memory after it.
    ///
    /// `None` when the runtime says that the pull went well, but does not hold the image afterwards.
    pub(crate) async fn pull(
        &self,
        image: &ImageReference,
        secrets: &[SecretReference],
    ) -> Result<Option<HeldImage>, Failure> {
        let identity = image.identity();
        let (keyrings, unusable) = self.read(secrets).await;
        let repository = image.name();
        let credentials: Vec<&Credential> = keyrings
            .iter()
            .flat_map(|keyring| keyring.lookup(&repository))
            .collect();
        let mut failures = Vec::new();
        for credential in credentials.iter().copied().map(Some).chain([None]) {
            match self.runtime.pull(&identity, credential).await {
                Ok(()) => return self.runtime.image(&identity).await,
                Err(failure) if may_be_about_credentials(failure.reason) => failures.push(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(verdict(failures, &unusable, credentials.len()))
    }

    /// Bytes of the image's blobs as the registry has them, for the platform of this node. `None` where the registry does not tell this
    /// process, whatever it may tell the runtime, which has mirrors and authorities of its own.
    pub(crate) async fn compressed_size(&self, image: &ImageReference, secrets: &[SecretReference]) -> Option<u64> {
        let registry = registry()?;
        let question = async {
            let (keyrings, _) = self.read(secrets).await;
            let repository = image.name();
            let credentials: Vec<&Credential> = keyrings
                .iter()
                .flat_map(|keyring| keyring.lookup(&repository))
                .collect();
            registry
                .image_size(image, &credentials, &Platform::of_this_machine())
                .await
        };
        match tokio::time::timeout(SIZE_TIMEOUT, question).await {
            Ok(Ok(size)) => Some(size.compressed_bytes()),
            Ok(Err(error)) => {
                tracing::info!(cause = %error, "The registry does not tell the size of the image");
                None
            }
            Err(_) => {
                tracing::info!("The registry does not tell the size of the image in time");
                None
            }
        }
    }

    async fn read(&self, secrets: &[SecretReference]) -> (Vec<Keyring>, Vec<Unusable>) {
        let mut keyrings = Vec::new();
        let mut unusable = Vec::new();
        for secret in secrets {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &secret.namespace);
            let answer = tokio::time::timeout(SECRET_TIMEOUT, api.get(&secret.name)).await;
            let (why, is_forbidden) = match answer {
                Ok(Ok(object)) => match keyring(&object) {
                    Ok(keyring) => {
                        keyrings.push(keyring);
                        continue;
                    }
                    Err(why) => (why, false),
                },
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() => ("it does not exist".to_owned(), false),
                Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                    ("the agent may not read it".to_owned(), true)
                }
                Ok(Err(_)) | Err(_) => ("the API server did not give it".to_owned(), false),
            };
            tracing::warn!(
                namespace = secret.namespace,
                name = secret.name,
                why,
                "A pull secret cannot be used"
            );
            unusable.push(Unusable {
                secret: secret.clone(),
                why,
                is_forbidden,
            });
        }
        (keyrings, unusable)
    }
}

/// The way to registries, made when it is first needed: where there is plenty of room, it never is.
fn registry() -> Option<&'static coral_registry::Client> {
    static REGISTRY: OnceLock<Option<coral_registry::Client>> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        coral_registry::Client::new(coral_registry::Options::default())
            .inspect_err(|error| tracing::warn!(%error, "No registry can be asked for the size of images"))
            .ok()
    });
    registry.as_ref()
}

/// The credentials of a Secret, whichever of the two forms it has.
fn keyring(secret: &Secret) -> Result<Keyring, String> {
    let data = |key| secret.data.as_ref().and_then(|data| data.get(key));
    let read = match (data(".dockerconfigjson"), data(".dockercfg")) {
        (Some(config), _) => Keyring::from_config_json(&config.0),
        (None, Some(config)) => Keyring::from_legacy_config(&config.0),
        (None, None) => return Err("it has neither .dockerconfigjson nor .dockercfg".to_owned()),
    };
    read.map_err(|error| error.to_string())
}

/// Whether other credentials could change the answer. Registries hide what one may not see behind "not found".
const fn may_be_about_credentials(reason: FailureReason) -> bool {
    matches!(reason, FailureReason::Unauthorized | FailureReason::NotFound)
}

/// What to tell when no credentials did: a Secret that could not be used, else what the registry says of credentials, else the rest.
fn verdict(failures: Vec<Failure>, unusable: &[Unusable], tried: usize) -> Failure {
    if let Some(Unusable {
        secret,
        why,
        is_forbidden,
    }) = unusable.first()
    {
        let SecretReference { namespace, name } = secret;
        let grant = if *is_forbidden {
            format!("; to allow it: kubectl coral allow-secret {name} --namespace {namespace}")
        } else {
            String::new()
        };
        return Failure {
            reason: FailureReason::PullSecretUnreadable,
            message: format!("Secret {namespace}/{name}: {why}{grant}"),
        };
    }
    let index = failures
        .iter()
        .position(|failure| failure.reason == FailureReason::Unauthorized)
        .unwrap_or(0);
    let mut failure = failures.into_iter().nth(index).unwrap_or_else(|| Failure {
        reason: FailureReason::Unknown,
        message: "the pull failed without a reason".to_owned(),
    });
    if failure.reason == FailureReason::Unauthorized {
        let with = match tried {
            0 => " (no pull secret has credentials for this registry)".to_owned(),
            1 => " (tried the credentials of a pull secret, then none)".to_owned(),
            _ => format!(" (tried {tried} sets of credentials of pull secrets, then none)"),
        };
        let room = MAX_MESSAGE_LENGTH - with.len();
        failure.message = failure.message.chars().take(room).collect::<String>() + &with;
    }
    failure
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failure(reason: FailureReason) -> Failure {
        Failure {
            reason,
            message: reason.to_string(),
        }
    }

    fn unusable(is_forbidden: bool) -> Unusable {
        Unusable {
            secret: SecretReference {
                namespace: "shop".into(),
                name: "regcred".into(),
            },
            why: "the agent may not read it".into(),
            is_forbidden,
        }
    }

    #[test]
    fn a_secret_that_may_not_be_read_comes_with_the_command_that_grants_it() {
        let failure = verdict(vec![failure(FailureReason::Unauthorized)], &[unusable(true)], 0);
        assert_eq!(failure.reason, FailureReason::PullSecretUnreadable);
        assert_eq!(
            failure.message,
            "Secret shop/regcred: the agent may not read it; to allow it: kubectl coral allow-secret regcred --namespace shop"
        );
        assert!(!verdict(Vec::new(), &[unusable(false)], 0).message.contains("kubectl"));
    }

    #[test]
    fn refused_credentials_tell_more_than_a_missing_image() {
        let failures = vec![failure(FailureReason::NotFound), failure(FailureReason::Unauthorized)];
        let told = verdict(failures, &[], 1);
        assert_eq!(told.reason, FailureReason::Unauthorized);
        assert!(
            told.message
                .ends_with("(tried the credentials of a pull secret, then none)")
        );
        assert_eq!(
            verdict(vec![failure(FailureReason::NotFound)], &[], 0),
            failure(FailureReason::NotFound)
        );
    }

    #[test]
    fn secrets_have_either_form() {
        let config = |key: &str, value: &str| -> Secret {
            use base64::Engine as _;
            let value = base64::engine::general_purpose::STANDARD.encode(value);
            serde_json::from_value(json!({"metadata": {}, "data": {key: value}})).unwrap()
        };
        let new = config(".dockerconfigjson", r#"{"auths": {"ghcr.io": {"username": "u"}}}"#);
        assert_eq!(keyring(&new).unwrap().lookup("ghcr.io/a").len(), 1);
        let old = config(".dockercfg", r#"{"ghcr.io": {"username": "u"}}"#);
        assert_eq!(keyring(&old).unwrap().lookup("ghcr.io/a").len(), 1);
        assert_eq!(
            keyring(&config("x", "y")).unwrap_err(),
            "it has neither .dockerconfigjson nor .dockercfg"
        );
        assert_eq!(
            keyring(&config(".dockerconfigjson", "y")).unwrap_err(),
            "its data are not a Docker configuration"
        );
    }
}
