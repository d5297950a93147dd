//! The manifests of `deploy/`, which are in the binary, and what they are composed to: the same as `kubectl kustomize deploy` gives.
//!
//! Of kustomize, as much is understood as `deploy/` uses; a field that is not understood is an error, so that nothing is left out in silence.

pub(crate) mod settings;

use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::installation::PART_OF;

/// Path below `deploy/`, and text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/manifests.rs"));
/// What kustomize calls a folder's instructions.
const INSTRUCTIONS: &str = "kustomization.yaml";
/// Where the optional parts are.
const COMPONENTS: &str = "components";

/// What kustomize calls a folder whose instructions are for what it is added to.
const COMPONENT: &str = "Component";
/// In a patch: the object goes.
const DELETE: (&str, &str) = ("$patch", "delete");

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
const ORDER: [&str; 18] = [
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
    "StatefulSet",
    "Deployment",
    "DaemonSet",
    "CronJob",
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
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: Vec<Labels>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    config_map_generator: Vec<ConfigMap>,
    #[serde(default)]
    patches: Vec<Patch>,
}

/// A change of objects that other files have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    target: Target,
    /// Operations of RFC 6902, or an object with [`DELETE`].
    patch: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigMap {
    name: String,
    /// `key=path`, or a path whose last part is the key.
    files: Vec<String>,
    options: ConfigMapOptions,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigMapOptions {
    #[serde(default)]
    labels: Map<String, Value>,
    /// A name with a hash is not understood here.
    disable_name_suffix_hash: bool,
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
        let folder = format!("{COMPONENTS}/{}/", component.as_ref());
        let mut optional = compose_folder(&folder)?;
        for object in &mut optional {
            // The labels of the base are not those of a component, and `uninstall` goes by them.
            object["metadata"]["labels"][PART_OF.0] = PART_OF.1.into();
        }
        objects.extend(optional);
        let path = format!("{folder}{INSTRUCTIONS}");
        for patch in instructions(&path)?.patches {
            patch.apply(&mut objects, &path)?;
        }
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
    let instructions = instructions(&path)?;
    if !instructions.patches.is_empty() && instructions.kind != COMPONENT {
        return Err(InvalidManifest {
            path,
            reason: "only components have patches".to_owned(),
        });
    }
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
    for config_map in &instructions.config_map_generator {
        objects.push(config_map.compose(folder, &path)?);
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

fn instructions(path: &str) -> Result<Kustomization, InvalidManifest> {
    documents(path)?.pop().ok_or_else(|| InvalidManifest {
        path: path.to_owned(),
        reason: "it is empty".to_owned(),
    })
}

impl Patch {
    /// Changes the one object that is meant.
    fn apply(&self, objects: &mut Vec<Value>, instructions: &str) -> Result<(), InvalidManifest> {
        let Target { kind, name } = &self.target;
        let invalid = |reason: &dyn std::fmt::Display| InvalidManifest {
            path: instructions.to_owned(),
            reason: format!("the patch of {kind} {name}: {reason}"),
        };
        let is_meant = |object: &Value| object["kind"] == **kind && object["metadata"]["name"] == **name;
        let index = objects.iter().position(is_meant);
        let index = index.ok_or_else(|| invalid(&"there is none"))?;
        let change: Value = serde_saphyr::from_str(&self.patch).map_err(|error| invalid(&error))?;
        if change.is_array() {
            let operations: json_patch::Patch = serde_json::from_value(change).map_err(|error| invalid(&error))?;
            json_patch::patch(&mut objects[index], &operations).map_err(|error| invalid(&error))
        } else if change[DELETE.0] == DELETE.1 {
            objects.remove(index);
            Ok(())
        } else {
            Err(invalid(
                &"only operations of RFC 6902 and the deletion of an object are understood",
            ))
        }
    }
}

impl ConfigMap {
    fn compose(&self, folder: &str, instructions: &str) -> Result<Value, InvalidManifest> {
        let invalid = |reason: &str| InvalidManifest {
            path: instructions.to_owned(),
            reason: reason.to_owned(),
        };
        if !self.options.disable_name_suffix_hash {
            return Err(invalid("the name of a generated ConfigMap must not have a hash"));
        }
        let mut data = Map::new();
        for file in &self.files {
            let last = file.rsplit('/').next().unwrap_or(file);
            let (key, path) = file.split_once('=').unwrap_or((last, file));
            let text = text(&format!("{folder}{path}")).ok_or_else(|| invalid("a file of a ConfigMap is missing"))?;
            data.insert(key.to_owned(), text.into());
        }
        Ok(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "labels": self.options.labels},
            "data": data,
        }))
    }
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
        fs,
        path::{Path, PathBuf},
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

    /// What kubectl makes of a folder.
    fn kustomize(folder: &Path) -> Vec<Value> {
        let output = Command::new("kubectl")
            .arg("kustomize")
            .arg(folder)
            .stderr(Stdio::inherit())
            .output()
            .expect("this test needs kubectl on the PATH; `cargo xtask test unit` sees to it");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let mut kustomized: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for object in &mut kustomized {
            whole_numbers(object);
            // kustomize does not know of admission policies that they are in no namespace, and gives them one, which API servers ignore.
            let (_, is_namespaced) = resource(object);
            if let Some(metadata) = object["metadata"].as_object_mut().filter(|_| !is_namespaced) {
                metadata.remove("namespace");
            }
        }
        kustomized
    }

    #[test]
    fn composing_is_what_kustomize_does() {
        let deploy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let (ours, theirs) = (by_name(compose::<&str>(&[]).unwrap()), by_name(kustomize(&deploy)));
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
    fn every_optional_part_is_what_kustomize_makes_of_it_and_has_our_label() {
        let overlay = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let base = by_name(compose::<&str>(&[]).unwrap());
        for component in components() {
            let text = format!("resources: [../../deploy]\ncomponents: [../../deploy/components/{component}]\n");
            fs::write(overlay.path().join(INSTRUCTIONS), text).unwrap();
            let (ours, theirs) = (
                by_name(compose(&[component]).unwrap()),
                by_name(kustomize(overlay.path())),
            );
            assert!(ours != base, "{component}");
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
            for (name, object) in ours {
                let is_labelled = object["metadata"]["labels"][PART_OF.0] == PART_OF.1;
                assert!(is_labelled || object["kind"] == "CustomResourceDefinition", "{name}");
                assert!(
                    unlabelled(object.clone()) == unlabelled(theirs[&name].clone()),
                    "{name} is {object}"
                );
            }
        }
    }

    /// The object without the label that kustomize does not give to components.
    fn unlabelled(mut object: Value) -> Value {
        let metadata = object["metadata"].as_object_mut().unwrap();
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(PART_OF.0);
            if labels.is_empty() {
                metadata.remove("labels");
            }
        }
        object
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
