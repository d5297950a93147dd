//! What is known of Mirrors, and of what they depend on.

use std::time::Duration;

use coral_api::{
    Mirror,
    mirror::{MirrorFailure, Rewrite},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::{LeaseFacts, Looked};

/// `refreshInterval` where there is none.
const DEFAULT_INTERVAL: Duration = Duration::from_hours(1);

/// Mirrors, and what they depend on.
#[derive(Clone, Debug)]
pub(crate) struct MirrorsFacts {
    pub(crate) all: Looked<Vec<MirrorFacts>>,
    /// The Secrets that they name, each once.
    pub(crate) secrets: Vec<SecretFacts>,
    /// The Lease of the mirror controllers.
    pub(crate) lease: Looked<Option<LeaseFacts>>,
    /// The `CronJob` that gives the space of the registry in the cluster back.
    pub(crate) collector: Looked<Option<CollectorFacts>>,
}

/// One Mirror.
#[derive(Clone, Debug, Default)]
pub(crate) struct MirrorFacts {
    pub(crate) name: String,
    pub(crate) created: Option<Timestamp>,
    pub(crate) is_suspended: bool,
    pub(crate) rewrites: bool,
    /// Hosts by which nodes reach the copies.
    pub(crate) node_addresses: Vec<String>,
    /// How often originals are looked at. `None`: only on demand.
    pub(crate) interval: Option<Duration>,
    pub(crate) secrets: Vec<SecretUse>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) failures: Vec<MirrorFailure>,
    /// When the image that waits for the longest time was last looked at.
    pub(crate) oldest_look: Option<Timestamp>,
}

/// A Secret that a Mirror names, and what for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SecretUse {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) content: Content,
}

/// What a Secret is to have in it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Content {
    /// Credentials for registries, as Docker keeps them.
    Credentials,
    /// `ca.crt`
    Authority,
}

/// A Secret that Mirrors name.
#[derive(Clone, Debug)]
pub(crate) struct SecretFacts {
    pub(crate) usage: SecretUse,
    /// One of the Mirrors that name it.
    pub(crate) mirror: String,
    /// Whether the mirror controller may read it.
    pub(crate) is_granted: Looked<bool>,
    /// Whether it has what it is to have; `None` where there is no such Secret.
    pub(crate) fits: Looked<Option<bool>>,
}

/// The collector of the registry in the cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CollectorFacts {
    pub(crate) created: Option<Timestamp>,
    pub(crate) is_suspended: bool,
    pub(crate) last_start: Option<Timestamp>,
    pub(crate) last_success: Option<Timestamp>,
}

impl MirrorFacts {
    /// `system` is Coral's namespace, in which Secrets for registries are looked up.
    pub(crate) fn of(mirror: Mirror, system: &str) -> Self {
        let secret = |name: &Option<String>, content: Content| {
            name.as_ref().map(|name| SecretUse {
                namespace: system.to_owned(),
                name: name.clone(),
                content,
            })
        };
        let spec = &mirror.spec;
        let of_sources = spec.source_secrets.iter().map(|reference| SecretUse {
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
            content: Content::Credentials,
        });
        let authorities = spec.sources.iter().map(|source| &source.ca_secret_name);
        let authorities = authorities.chain(spec.destinations.iter().map(|destination| &destination.ca_secret_name));
        let pushing = spec.destinations.iter().map(|destination| &destination.secret_name);
        let interval = spec.refresh_interval.map_or(DEFAULT_INTERVAL, Duration::from);
        let addresses = spec
            .destinations
            .iter()
            .map(|destination| destination.node_address.as_ref().unwrap_or(&destination.registry));
        Self {
            name: mirror.name_any(),
            created: mirror.metadata.creation_timestamp.as_ref().map(|time| time.0),
            is_suspended: spec.suspend,
            rewrites: spec.rewrite != Rewrite::Never,
            node_addresses: addresses.cloned().collect(),
            interval: (!interval.is_zero()).then_some(interval),
            secrets: of_sources
                .chain(authorities.filter_map(|name| secret(name, Content::Authority)))
                .chain(pushing.filter_map(|name| secret(name, Content::Credentials)))
                .collect(),
            oldest_look: None,
            failures: mirror
                .status
                .as_ref()
                .map(|status| status.failures.clone())
                .unwrap_or_default(),
            conditions: mirror.status.map(|status| status.conditions).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_secret_of_a_mirror_is_known_with_what_it_is_for() {
        let mirror: Mirror = serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1", "kind": "Mirror", "metadata": {"name": "all"},
            "spec": {
                "discover": {}, "rewrite": "OnFailure", "refreshInterval": "0s",
                "sourceSecrets": [{"namespace": "shop", "name": "regcred"}],
                "sources": [{"registry": "r.lan", "caSecretName": "lan-ca"}, {"registry": "s.lan", "plainHttp": true}],
                "destinations": [
                    {"registry": "coral-registry.coral-system.svc:5000", "nodeAddress": "localhost:7439", "secretName": "push", "caSecretName": "ca"},
                    {"registry": "b.lan"},
                ],
            },
        }))
        .unwrap();
        let facts = MirrorFacts::of(mirror, "images");
        let usage = |namespace: &str, name: &str, content| SecretUse {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            content,
        };
        assert_eq!(
            facts.secrets,
            [
                usage("shop", "regcred", Content::Credentials),
                usage("images", "lan-ca", Content::Authority),
                usage("images", "ca", Content::Authority),
                usage("images", "push", Content::Credentials),
            ]
        );
        assert_eq!(facts.node_addresses, ["localhost:7439", "b.lan"]);
        assert_eq!((facts.interval, facts.rewrites), (None, true));
    }
}
