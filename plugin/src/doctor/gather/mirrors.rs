//! Mirrors, the Secrets that they name, and the collector of the registry.

use std::collections::{BTreeMap, btree_map::Entry};

use coral_api::{Mirror, MirroredImage};
use coral_registry::{Keyring, check_authorities};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::CronJob, core::v1::Secret};
use kube::{Api, Client};

use super::{
    AT_A_TIME,
    access::{may, reading},
    lease,
};
use crate::{
    client::Cluster,
    doctor::{
        facts::{
            Looked,
            mirrors::{CollectorFacts, Content, MirrorFacts, MirrorsFacts, SecretFacts, SecretUse},
        },
        mirrors::{COLLECTOR, CONTROLLER},
    },
};

/// Secrets that are looked at.
const MOST_SECRETS: usize = 100;

/// Looks at them. Where there are none, nothing else is asked for.
pub(super) async fn mirrors(cluster: &Cluster, namespace: &str) -> MirrorsFacts {
    let all = all(cluster, namespace).await;
    let collector = async {
        match &all {
            Err(unread) if unread.is_unknown_type => Ok(None),
            _ => collector(cluster, namespace).await,
        }
    };
    let lease = async {
        match &all {
            Ok(all) if !all.is_empty() => lease(cluster, namespace, CONTROLLER).await,
            _ => Ok(None),
        }
    };
    let secrets = async {
        let uses = uses(all.as_deref().unwrap_or_default());
        let looks = uses.into_iter().take(MOST_SECRETS).map(async |(usage, mirror)| {
            let right = reading(&usage.namespace, &usage.name);
            SecretFacts {
                is_granted: may(cluster, namespace, CONTROLLER, &right).await,
                fits: fits(cluster, &usage).await,
                usage,
                mirror,
            }
        });
        futures::stream::iter(looks).buffered(AT_A_TIME).collect().await
    };
    let (collector, lease, secrets) = futures::join!(collector, lease, secrets);
    MirrorsFacts {
        all,
        secrets,
        lease,
        collector,
    }
}

/// The Mirrors, each with the time of the oldest look at one of its originals.
async fn all(cluster: &Cluster, namespace: &str) -> Looked<Vec<MirrorFacts>> {
    let mut mirrors = Vec::new();
    let each = |mirror: Mirror| mirrors.push(MirrorFacts::of(mirror, namespace));
    cluster.list(Api::<Mirror>::all, each).await?;
    if mirrors.is_empty() {
        return Ok(mirrors);
    }
    let mut looks: BTreeMap<String, Timestamp> = BTreeMap::new();
    let each = |image: MirroredImage| {
        let Some(looked) = image
            .status
            .and_then(|status| status.origin)
            .map(|origin| origin.checked_at.0)
        else {
            return;
        };
        for mirror in image.spec.requested_by {
            let oldest = looks.entry(mirror).or_insert(looked);
            *oldest = looked.min(*oldest);
        }
    };
    // Who may see Mirrors only learns the rest.
    if cluster.list(Api::<MirroredImage>::all, each).await.is_ok() {
        for mirror in &mut mirrors {
            mirror.oldest_look = looks.get(&mirror.name).copied();
        }
    }
    Ok(mirrors)
}

/// Secrets with what they are for, each with a Mirror that names it.
fn uses(mirrors: &[MirrorFacts]) -> BTreeMap<SecretUse, String> {
    let mut uses = BTreeMap::new();
    for mirror in mirrors {
        for usage in &mirror.secrets {
            if let Entry::Vacant(entry) = uses.entry(usage.clone()) {
                entry.insert(mirror.name.clone());
            }
        }
    }
    uses
}

/// Whether a Secret has what it is to have. What is in it is dropped at once.
async fn fits(cluster: &Cluster, usage: &SecretUse) -> Looked<Option<bool>> {
    let secrets = |client: Client| Api::<Secret>::namespaced(client, &usage.namespace);
    let found = cluster
        .request(async |client| secrets(client).get_opt(&usage.name).await)
        .await?;
    Ok(found.map(|secret| has(&secret, usage.content)))
}

fn has(secret: &Secret, content: Content) -> bool {
    let of = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|bytes| &*bytes.0)
    };
    match content {
        Content::Credentials => {
            of(".dockerconfigjson").is_some_and(|data| Keyring::from_config_json(data).is_ok())
                || of(".dockercfg").is_some_and(|data| Keyring::from_legacy_config(data).is_ok())
        }
        Content::Authority => of("ca.crt").is_some_and(|data| !data.is_empty() && check_authorities(data).is_ok()),
    }
}

async fn collector(cluster: &Cluster, namespace: &str) -> Looked<Option<CollectorFacts>> {
    let jobs = |client: Client| Api::<CronJob>::namespaced(client, namespace);
    let found = cluster
        .request(async |client| jobs(client).get_opt(COLLECTOR).await)
        .await?;
    Ok(found.map(|job| {
        let status = job.status.unwrap_or_default();
        CollectorFacts {
            created: job.metadata.creation_timestamp.map(|time| time.0),
            is_suspended: job.spec.suspend == Some(true),
            last_start: status.last_schedule_time.map(|time| time.0),
            last_success: status.last_successful_time.map(|time| time.0),
        }
    }))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::doctor::certificate;

    #[test]
    fn secrets_have_what_they_are_for() {
        let secret = |key: &str, text: &str| Secret {
            data: Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into()),
            ..Secret::default()
        };
        let (_, authority) = certificate::sample("2026-05-01", "2027-05-01", &[]);
        let logins = r#"{"auths": {"r.lan": {"auth": "dXNlcjpwYXNzd29yZA=="}}}"#;
        for (key, text, content, expected) in [
            (".dockerconfigjson", logins, Content::Credentials, true),
            (
                ".dockercfg",
                r#"{"r.lan": {"auth": "dXNlcjpwYXNzd29yZA=="}}"#,
                Content::Credentials,
                true,
            ),
            ("config.json", logins, Content::Credentials, false),
            (".dockerconfigjson", "nonsense", Content::Credentials, false),
            ("ca.crt", authority.as_str(), Content::Authority, true),
            ("tls.crt", authority.as_str(), Content::Authority, false),
            ("ca.crt", "nonsense", Content::Authority, false),
            ("ca.crt", "", Content::Authority, false),
        ] {
            assert_eq!(has(&secret(key, text), content), expected, "{key} {text}");
        }
        assert!(!has(&Secret::default(), Content::Authority));
    }
}
