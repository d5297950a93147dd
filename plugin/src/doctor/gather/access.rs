//! Who may do what, by asking the API server about every right.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::keys;
use futures::StreamExt as _;
use k8s_openapi::api::{
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
        SubjectAccessReviewSpec,
    },
    core::v1::Secret,
};
use kube::{Api, Client, api::PostParams};
use serde_json::Value;

use super::AT_A_TIME;
use crate::{
    client::{Cluster, RequestError},
    doctor::facts::{AccessFacts, Grant, Looked, PrefetchFacts, Right},
    error::Error,
    manifests,
};

/// Pull secrets that are looked at.
const MOST_GRANTS: usize = 100;
/// What the verbs of this command need: the right as `verb resource.group`, in the namespace of the context or everywhere.
const OWN: [(&str, bool, &str); 9] = [
    ("list prefetches.image.stvz.io", true, "status"),
    ("list nodeimages.image.stvz.io", false, "status"),
    ("list nodes", false, "status"),
    ("patch prefetches.image.stvz.io", true, "prefetch"),
    ("create prefetches.image.stvz.io", true, "prefetch"),
    ("delete prefetches.image.stvz.io", true, "delete"),
    ("get pods", true, "explain"),
    ("patch deployments.apps", true, "inject"),
    ("create rolebindings.rbac.authorization.k8s.io", true, "allow-secret"),
];

/// Asks about all of it.
pub(super) async fn access(
    cluster: &Cluster,
    namespace: &str,
    prefetches: &[PrefetchFacts],
) -> Result<AccessFacts, Error> {
    let needed = needed(&manifests::compose::<&str>(&[])?, namespace);
    let own =
        OWN.map(|(text, is_namespaced, verb)| (own_right(text, is_namespaced.then(|| cluster.namespace())), verb));
    let own = futures::stream::iter(own.map(async |(right, verb)| {
        let is_allowed = may_i(cluster, &right).await;
        (right, verb, is_allowed)
    }))
    .buffered(AT_A_TIME)
    .collect();
    let accounts = futures::stream::iter(needed.into_iter().map(async |(account, right)| {
        let is_allowed = may(cluster, namespace, &account, &right).await;
        (account, right, is_allowed)
    }))
    .buffered(AT_A_TIME)
    .collect();
    let secrets = secrets(prefetches);
    let grants_left_out = secrets.len().saturating_sub(MOST_GRANTS);
    let grants = futures::stream::iter(
        secrets
            .into_iter()
            .take(MOST_GRANTS)
            .map(async |((of, secret), prefetch)| {
                let right = reading(&of, &secret);
                Grant {
                    is_granted: may(cluster, namespace, keys::AGENT_SERVICE_ACCOUNT, &right).await,
                    exists: exists(cluster, &of, &secret).await,
                    namespace: of,
                    secret,
                    prefetch,
                }
            }),
    )
    .buffered(AT_A_TIME)
    .collect();
    let (own, accounts, grants) = futures::join!(own, accounts, grants);
    Ok(AccessFacts {
        own,
        accounts,
        grants,
        grants_left_out,
    })
}

/// Pull secrets by namespace and name, each with a Prefetch that names it.
fn secrets(prefetches: &[PrefetchFacts]) -> BTreeMap<(String, String), String> {
    let named = prefetches.iter().flat_map(|prefetch| {
        let secrets = prefetch.pull_secrets.iter();
        secrets.map(|secret| ((prefetch.namespace.clone(), secret.clone()), prefetch.name.clone()))
    });
    named.collect()
}

/// What the service accounts of the manifests are to be allowed, with Coral in this namespace.
fn needed(manifests: &[Value], namespace: &str) -> Vec<(String, Right)> {
    let mut needed = BTreeSet::new();
    for binding in manifests {
        let in_namespace = match binding["kind"].as_str() {
            Some("ClusterRoleBinding") => None,
            // Those of optional namespaces keep theirs.
            Some("RoleBinding") => match binding["metadata"]["namespace"].as_str() {
                Some(keys::SYSTEM_NAMESPACE) | None => Some(namespace.to_owned()),
                Some(other) => Some(other.to_owned()),
            },
            _ => continue,
        };
        let role = manifests.iter().find(|role| {
            role["kind"] == binding["roleRef"]["kind"] && role["metadata"]["name"] == binding["roleRef"]["name"]
        });
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let accounts =
            subjects.filter_map(|subject| subject["name"].as_str().filter(|_| subject["kind"] == "ServiceAccount"));
        let rules = role.and_then(|role| role["rules"].as_array());
        for account in accounts {
            let rights = rules
                .into_iter()
                .flatten()
                .flat_map(|rule| rights(rule, in_namespace.as_deref()));
            needed.extend(rights.map(|right| (account.to_owned(), right)));
        }
    }
    needed.into_iter().collect()
}

/// Every right that a rule of a role gives.
fn rights(rule: &Value, namespace: Option<&str>) -> Vec<Right> {
    let texts = |field: &str| -> Vec<&str> {
        let list = rule[field].as_array();
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let names = match texts("resourceNames").as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some((*name).to_owned())).collect(),
    };
    let mut rights = Vec::new();
    for group in texts("apiGroups") {
        for resource in texts("resources") {
            let (resource, part) = resource
                .split_once('/')
                .map_or((resource, None), |(resource, part)| (resource, Some(part)));
            for verb in texts("verbs") {
                rights.extend(names.iter().map(|name| Right {
                    verb: verb.to_owned(),
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    subresource: part.map(str::to_owned),
                    namespace: namespace.map(str::to_owned),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

/// `list prefetches.image.stvz.io`
fn own_right(text: &str, namespace: Option<&str>) -> Right {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (resource, group) = rest.split_once('.').unwrap_or((rest, ""));
    Right {
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.map(str::to_owned),
        ..Right::default()
    }
}

/// The right to read one Secret.
pub(super) fn reading(namespace: &str, secret: &str) -> Right {
    Right {
        verb: "get".to_owned(),
        resource: "secrets".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: Some(secret.to_owned()),
        ..Right::default()
    }
}

fn attributes(right: &Right) -> ResourceAttributes {
    ResourceAttributes {
        verb: Some(right.verb.clone()),
        group: Some(right.group.clone()),
        resource: Some(right.resource.clone()),
        subresource: right.subresource.clone(),
        namespace: right.namespace.clone(),
        name: right.name.clone(),
        ..ResourceAttributes::default()
    }
}

async fn may_i(cluster: &Cluster, right: &Right) -> Looked<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes(right)),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = cluster
        .request(async |client: Client| Api::all(client).create(&PostParams::default(), &review).await)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether a service account of Coral's has a right.
pub(super) async fn may(cluster: &Cluster, namespace: &str, account: &str, right: &Right) -> Looked<bool> {
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(groups.to_vec()),
            resource_attributes: Some(attributes(right)),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = cluster
        .request(async |client: Client| Api::all(client).create(&PostParams::default(), &review).await)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether the Secret is there; `None` where one may not know. Its data are not asked for.
async fn exists(cluster: &Cluster, namespace: &str, secret: &str) -> Option<bool> {
    let secrets = |client: Client| Api::<Secret>::namespaced(client, namespace);
    let found: Result<_, RequestError> = cluster
        .request(async |client| secrets(client).get_metadata_opt(secret).await)
        .await;
    found.ok().map(|found| found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_the_parts_are_those_of_the_manifests() {
        let manifests = manifests::compose::<&str>(&[]).unwrap();
        let needed = needed(&manifests, "images");
        let has = |account: &str, text: &str, namespace: Option<&str>| {
            let mut right = own_right(text, namespace);
            needed.iter().any(|(of, other)| {
                right.name.clone_from(&other.name);
                right.subresource.clone_from(&other.subresource);
                of == account && *other == right
            })
        };
        assert!(has("coral-agent", "watch nodeimages.image.stvz.io", None));
        assert!(has("coral-controller", "patch nodes", None));
        assert!(has(
            "coral-controller",
            "update leases.coordination.k8s.io",
            Some("images")
        ));
        assert!(has("coral-webhook", "update secrets", Some("images")));
        assert!(!has("coral-agent", "get secrets", Some("images")));
    }

    #[test]
    fn each_pull_secret_is_looked_at_once() {
        let prefetch = |namespace: &str, name: &str| PrefetchFacts {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pull_secrets: vec!["regcred".to_owned()],
            ..PrefetchFacts::default()
        };
        let secrets = secrets(&[prefetch("shop", "a"), prefetch("shop", "b"), prefetch("bank", "a")]);
        let names: Vec<&(String, String)> = secrets.keys().collect();
        assert_eq!(
            names,
            [
                &("bank".to_owned(), "regcred".to_owned()),
                &("shop".to_owned(), "regcred".to_owned())
            ]
        );
    }
}
