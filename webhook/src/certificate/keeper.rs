//! Keeps the certificates in their Secret, and the `caBundle` in step with them.
//!
//! Every replica does this. There is no leader: a step is one write that holds only if nobody wrote since the Secret was read, so of two
//! replicas that decide at the same time one writes, and the other sees that it is done. That leaves nothing to wait for when a
//! leader has died.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use coral_api::keys;
use futures::{Stream, StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use json_patch::{AddOperation, PatchOperation, ReplaceOperation, jsonptr::PointerBuf};
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};

use super::{
    ServedCertificate,
    plan::{Settings, Step, Stored, next_step},
    stored::{CERTIFICATE, Data, KEY},
};

/// Longest time between two looks, whatever the plan says.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// Pause after a write that failed.
const FAILURE_PAUSE: SignedDuration = SignedDuration::from_secs(2);
/// Longest time for one write.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is kept, and by which names it is found.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Namespace of the Secret and the Service.
    pub(crate) namespace: String,
    pub(crate) secret: String,
    pub(crate) service: String,
    pub(crate) configuration: String,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("failed to write {what}")]
    Write { what: &'static str, source: kube::Error },
    #[error("failed to write {what}: the API server gave no answer in {} s", TIMEOUT.as_secs())]
    Timeout { what: &'static str },
}

/// Keeps the certificates.
pub(crate) struct Keeper {
    client: Client,
    names: Names,
    settings: Settings,
    served: ServedCertificate,
    /// What is served, so that it is not read again and again.
    shown: Option<(Vec<u8>, Vec<u8>)>,
    secret: Option<Secret>,
    configuration: Option<MutatingWebhookConfiguration>,
}

enum Event {
    Secret(Option<Box<Secret>>),
    Configuration(Option<Box<MutatingWebhookConfiguration>>),
}

impl Keeper {
    pub(crate) fn new(client: Client, names: Names, settings: Settings, served: ServedCertificate) -> Self {
        Self {
            client,
            names,
            settings,
            served,
            shown: None,
            secret: None,
            configuration: None,
        }
    }

    /// Works for ever.
    pub(crate) async fn run(mut self) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut events = stream::select(
            watch(secrets, &self.names.secret).map(Event::Secret),
            watch(configurations, &self.names.configuration).map(Event::Configuration),
        );
        let mut pause = LONGEST_PAUSE;
        loop {
            let sleep = tokio::time::sleep(Duration::try_from(pause).unwrap_or_default());
            tokio::select! {
                Some(event) = events.next() => self.take(event),
                () = sleep => {}
            }
            pause = match self.act().await {
                Ok(pause) => pause,
                Err(Error::Write {
                    source: kube::Error::Api(status),
                    ..
                }) if status.is_conflict() => {
                    tracing::debug!("Another replica was faster; its write is awaited");
                    FAILURE_PAUSE
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(error = %error, cause, "The certificates are not kept; it will be tried again");
                    FAILURE_PAUSE
                }
            };
        }
    }

    /// Takes in what a watch says, unless the answer to a write of our own has told of something newer.
    fn take(&mut self, event: Event) {
        match event {
            Event::Secret(Some(secret))
                if is_older(&secret.metadata, self.secret.as_ref().map(|known| &known.metadata)) => {}
            Event::Secret(secret) => self.secret = secret.map(|secret| *secret),
            Event::Configuration(Some(seen))
                if is_older(&seen.metadata, self.configuration.as_ref().map(|known| &known.metadata)) => {}
            Event::Configuration(seen) => self.configuration = seen.map(|seen| *seen),
        }
    }

    /// Does what is to be done now. Returns how long to wait, at most, before the next look.
    async fn act(&mut self) -> Result<SignedDuration, Error> {
        loop {
            let Some(secret) = &self.secret else {
                return Ok(LONGEST_PAUSE);
            };
            let data = secret.data.clone().unwrap_or_default();
            self.show(&data);
            let stored = Stored::read(&data, &self.settings);
            let is_published = self.publish(&stored.bundle()).await?;
            let now = Timestamp::now();
            let step = next_step(&stored, &self.settings, is_published, now);
            if let Step::Wait(until) = step {
                return Ok(until.duration_since(now).min(LONGEST_PAUSE));
            }
            let after = stored.after(step, &self.settings, now)?;
            self.write(after.write()).await?;
            tracing::info!(?step, "The certificates were changed");
        }
    }

    /// Serves what the Secret has.
    fn show(&mut self, data: &Data) {
        let of = |key: &str| data.get(key).map(|bytes| bytes.0.clone());
        let (Some(certificate), Some(key)) = (of(CERTIFICATE), of(KEY)) else {
            return;
        };
        let found = (certificate, key);
        if self.shown.as_ref() == Some(&found) {
            return;
        }
        if let Err(error) = self.served.set(&found.0, &found.1) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(error = %error, cause, "The certificate in the Secret is of no use");
        }
        self.shown = Some(found);
    }

    /// Replaces the data of the Secret, if nobody has written since it was read.
    async fn write(&mut self, data: Data) -> Result<(), Error> {
        let Some(mut secret) = self.secret.clone() else {
            return Ok(());
        };
        secret.data = Some(data);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let parameters = PostParams {
            field_manager: Some(keys::WEBHOOK_FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = within_time(
            "the Secret of the webhook",
            api.replace(&self.names.secret, &parameters, &secret),
        )
        .await?;
        self.secret = Some(written);
        Ok(())
    }

    /// Makes the API server know the authorities of `bundle`. Returns whether it does, as far as can be seen.
    async fn publish(&mut self, bundle: &str) -> Result<bool, Error> {
        let Some(configuration) = &self.configuration else {
            return Ok(false);
        };
        if bundle.is_empty() {
            return Ok(false);
        }
        let webhooks = configuration.webhooks.iter().flatten().enumerate();
        let is_ours = |service: &k8s_openapi::api::admissionregistration::v1::ServiceReference| {
            service.name == self.names.service && service.namespace == self.names.namespace
        };
        let outdated = webhooks.filter(|(_, webhook)| {
            let client_config = &webhook.client_config;
            client_config.service.as_ref().is_some_and(is_ours)
                && client_config
                    .ca_bundle
                    .as_ref()
                    .is_none_or(|known| known.0 != bundle.as_bytes())
        });
        let outdated: Vec<usize> = outdated.map(|(index, _)| index).collect();
        if outdated.is_empty() {
            return Ok(true);
        }
        let version = configuration.metadata.resource_version.clone().unwrap_or_default();
        let encoded = BASE64_STANDARD.encode(bundle);
        // A patch, so that nothing of the configuration is lost that this code does not know. With the version in it, it holds only if
        // nobody has written since.
        let mut operations = vec![PatchOperation::Replace(ReplaceOperation {
            path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
            value: version.into(),
        })];
        operations.extend(outdated.iter().map(|index| {
            PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]),
                value: encoded.clone().into(),
            })
        }));
        let patch = json_patch::Patch(operations);
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let parameters = PatchParams {
            field_manager: Some(keys::WEBHOOK_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Json::<()>(patch);
        let patched = within_time(
            "the caBundle of the webhook's configuration",
            api.patch(&self.names.configuration, &parameters, &patch),
        )
        .await?;
        tracing::info!("The caBundle was brought in step");
        self.configuration = Some(patched);
        Ok(true)
    }
}

/// Versions of one object grow. Where they are no numbers, the watch is right.
fn is_older(seen: &ObjectMeta, known: Option<&ObjectMeta>) -> bool {
    let version = |metadata: &ObjectMeta| metadata.resource_version.as_ref()?.parse::<u64>().ok();
    let known = known.and_then(version);
    matches!((version(seen), known), (Some(seen), Some(known)) if seen < known)
}

async fn within_time<T>(what: &'static str, write: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, write).await {
        Ok(result) => result.map_err(|source| Error::Write { what, source }),
        Err(_) => Err(Error::Timeout { what }),
    }
}

/// An object, every time that it changes, and nothing when it is not there. A watch that breaks is begun again, with growing pauses.
fn watch<K>(api: Api<K>, name: &str) -> impl Stream<Item = Option<Box<K>>> + Unpin + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut is_there = false;
    watcher(api, watcher::Config::default().fields(&format!("metadata.name={name}")))
        .backoff(coral_runtime::watch_backoff())
        .filter_map(move |event| {
            let change = match event {
                Ok(watcher::Event::Init) => {
                    is_there = false;
                    None
                }
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    is_there = true;
                    Some(Some(Box::new(object)))
                }
                Ok(watcher::Event::Delete(_)) => Some(None),
                Ok(watcher::Event::InitDone) => (!is_there).then(|| {
                    tracing::warn!(kind = %K::kind(&()), "What the webhook keeps is not there; it waits for it");
                    None
                }),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), error = %error, "A watch broke; it is begun again");
                    None
                }
            };
            std::future::ready(change)
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_watch_tells_late_is_known_to_be_old() {
        let of = |version: &str| ObjectMeta {
            resource_version: (!version.is_empty()).then(|| version.to_owned()),
            ..ObjectMeta::default()
        };
        for (seen, known, expected) in [
            ("9", Some("10"), true),
            ("10", Some("10"), false),
            ("11", Some("10"), false),
            ("9", None, false),
            ("9", Some("x"), false),
            ("", Some("10"), false),
        ] {
            assert_eq!(
                is_older(&of(seen), known.map(of).as_ref()),
                expected,
                "{seen} after {known:?}"
            );
        }
    }
}
