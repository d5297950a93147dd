//! The manifests of `deploy/`, which are in the binary, and what they are composed to: the same as `kubectl kustomize deploy` gives.
//!
//! Of kustomize, as much is understood as `deploy/` uses; a field that is not understood is an error, so that nothing is left out in silence.

pub(crate) mod settings;

use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Path below `deploy/`, and text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/manifests.rs"));
/// What kustomize calls a folder's instructions.
const INSTRUCTIONS: &str = "kustomization.yaml";
/// Where the optional parts are.
const COMPONENTS: &str = "components";

/// Kinds that are in no namespace.
const CLUSTER_SCOPED: [&str; 11] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "FlowSchema",
    "MutatingWebhookConfiguration",
    "Namespace",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// Kinds in the order in which they are applied: what others need comes first, and what calls others comes last. Kinds that are not here
/// come where the empty name is.
const ORDER: [&str; 16] = [
    "Namespace",
    "CustomResourceDefinition",
    "PriorityClass",
    "ServiceAccount",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "",
    "Service",
    "PodDisruptionBudget",
    "Deployment",
    "DaemonSet",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
];

/// Why the manifests in this binary cannot be used. A test composes them, so no release has this.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to read the manifest {path} in this binary: {reason}")]
pub(crate) struct InvalidManifest {
    path: String,
    reason: String,
}

/// A kustomization, as far as `deploy/` uses it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: Vec<Labels>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Labels {
    pairs: Map<String, Value>,
}

/// Everything that Coral needs in a cluster, and these optional parts, in the order in which it is applied.
pub(crate) fn compose<S: AsRef<str>>(components: &[S]) -> Result<Vec<Value>, InvalidManifest> {
    let mut objects = compose_folder("")?;
    for component in components {
        objects.extend(compose_folder(&format!("{COMPONENTS}/{}/", component.as_ref()))?);
    }
    objects.sort_by_key(rank);
    Ok(objects)
}

/// Names of the optional parts.
pub(crate) fn components() -> Vec<&'static str> {
    let names = FILES.iter().filter_map(|(path, _)| {
        let (name, rest) = path.strip_prefix(COMPONENTS)?.strip_prefix('/')?.split_once('/')?;
        (rest == INSTRUCTIONS).then_some(name)
    });
    names.collect()
}

/// What an object is to the API server, and whether it is in a namespace.
pub(crate) fn resource(object: &Value) -> (ApiResource, bool) {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let kind = GroupVersionKind::gvk(group, version, text("kind"));
    let is_namespaced = !CLUSTER_SCOPED.contains(&text("kind"));
    (ApiResource::from_gvk(&kind), is_namespaced)
}

fn rank(object: &Value) -> usize {
    let position = |kind: &str| ORDER.iter().position(|known| *known == kind);
    let kind = object["kind"].as_str().unwrap_or_default();
    position(kind).or_else(|| position("")).unwrap_or_default()
}

/// What the folder's instructions make of it; the folder is empty or ends with a slash.
fn compose_folder(folder: &str) -> Result<Vec<Value>, InvalidManifest> {
    let path = format!("{folder}{INSTRUCTIONS}");
    let instructions: Kustomization = documents(&path)?.pop().ok_or_else(|| InvalidManifest {
        path: path.clone(),
        reason: "it is empty".to_owned(),
    })?;
    let mut objects = Vec::new();
    for resource in instructions.resources.iter().chain(&instructions.components) {
        let path = format!("{folder}{}", resource.trim_start_matches("./").trim_end_matches('/'));
        if text(&path).is_some() {
            let mut documents: Vec<Value> = documents(&path)?;
            documents.iter_mut().for_each(whole_numbers);
            objects.extend(documents);
        } else {
            objects.extend(compose_folder(&format!("{path}/"))?);
        }
    }
    for object in &mut objects {
        let (_, is_namespaced) = resource(object);
        if let Some(namespace) = instructions.namespace.as_ref().filter(|_| is_namespaced) {
            object["metadata"]["namespace"] = namespace.as_str().into();
        }
        for (key, value) in instructions.labels.iter().flat_map(|labels| &labels.pairs) {
            object["metadata"]["labels"][key.as_str()] = value.clone();
        }
    }
    Ok(objects)
}

/// The YAML writer gives `100.0` for bounds in schemas, where everybody else has `100`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(whole) = whole.filter(|_| number.is_f64()) {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
                let whole = whole as i64;
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn text(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

fn documents<T: serde::de::DeserializeOwned>(path: &str) -> Result<Vec<T>, InvalidManifest> {
    let invalid = |reason: String| InvalidManifest {
        path: path.to_owned(),
        reason,
    };
    let text = text(path).ok_or_else(|| invalid("there is none".to_owned()))?;
    serde_saphyr::from_multiple(text).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        path::PathBuf,
        process::{Command, Stdio},
    };

    use super::*;

    fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
        };
        objects.into_iter().map(|object| (name(&object), object)).collect()
    }

    #[test]
    fn composing_is_what_kustomize_does() {
        let deploy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let output = Command::new("kubectl")
            .arg("kustomize")
            .arg(&deploy)
            .stderr(Stdio::inherit())
            .output()
            .expect("this test needs kubectl on the PATH");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let mut kustomized: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        kustomized.iter_mut().for_each(whole_numbers);
        let (ours, theirs) = (by_name(compose::<&str>(&[]).unwrap()), by_name(kustomized));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (name, object) in ours {
            assert!(object == theirs[&name], "{name} is {object}");
        }
    }

    #[test]
    fn what_others_need_comes_first() {
        let objects = compose::<&str>(&[]).unwrap();
        let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(&kinds[..2], ["Namespace", "CustomResourceDefinition"]);
        let position = |kind| kinds.iter().position(|other| *other == kind).unwrap();
        assert!(position("ServiceAccount") < position("DaemonSet"));
        assert!(kinds.is_sorted_by_key(|kind| rank(&serde_json::json!({"kind": kind}))));
    }

    #[test]
    fn every_optional_part_can_be_composed() {
        for component in components() {
            assert!(!compose_folder(&format!("components/{component}/")).unwrap().is_empty());
        }
    }

    #[test]
    fn kinds_become_resources() {
        for (version, kind, plural, namespaced) in [
            ("v1", "Namespace", "namespaces", false),
            ("apps/v1", "DaemonSet", "daemonsets", true),
            ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
            (
                "admissionregistration.k8s.io/v1",
                "ValidatingAdmissionPolicy",
                "validatingadmissionpolicies",
                false,
            ),
            ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
        ] {
            let (resource, is_namespaced) = resource(&serde_json::json!({"apiVersion": version, "kind": kind}));
            assert_eq!((resource.plural.as_str(), is_namespaced), (plural, namespaced));
            assert_eq!(resource.api_version, version);
        }
    }
}
