//! Images in objects that have pods: Pods themselves, and everything with a pod template.

use kube::{ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde_json::{Value, json};

use crate::{manifests, naming};

/// Kinds that have pods, as kubectl names them, with their API version and the path to the pods' spec.
pub(crate) const KINDS: [Kind; 9] = [
    Kind::new("v1", "Pod", "/spec", &["po"]),
    Kind::new("v1", "ReplicationController", "/spec/template/spec", &["rc"]),
    Kind::new("v1", "PodTemplate", "/template/spec", &[]),
    Kind::new("apps/v1", "DaemonSet", "/spec/template/spec", &["ds"]),
    Kind::new("apps/v1", "Deployment", "/spec/template/spec", &["deploy"]),
    Kind::new("apps/v1", "ReplicaSet", "/spec/template/spec", &["rs"]),
    Kind::new("apps/v1", "StatefulSet", "/spec/template/spec", &["sts"]),
    Kind::new("batch/v1", "Job", "/spec/template/spec", &[]),
    Kind::new("batch/v1", "CronJob", "/spec/jobTemplate/spec/template/spec", &["cj"]),
];

/// Kinds whose pods cannot be changed once they are there.
const FIXED: [&str; 3] = ["Pod", "PodTemplate", "Job"];

/// A kind that has pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Kind {
    pub(crate) api_version: &'static str,
    pub(crate) name: &'static str,
    pod_spec: &'static str,
    short_names: &'static [&'static str],
}

impl Kind {
    const fn new(
        api_version: &'static str,
        name: &'static str,
        pod_spec: &'static str,
        short_names: &'static [&'static str],
    ) -> Self {
        Self {
            api_version,
            name,
            pod_spec,
            short_names,
        }
    }

    /// Whether its pods cannot be changed once the object is there.
    pub(crate) fn is_fixed(&self) -> bool {
        FIXED.contains(&self.name)
    }

    /// What it is to the API server.
    pub(crate) fn resource(&self) -> ApiResource {
        manifests::resource(&json!({"apiVersion": self.api_version, "kind": self.name})).0
    }

    /// The kind with this name: singular, plural, short, with the group or without, in any case.
    pub(crate) fn named(text: &str) -> Option<&'static Self> {
        let text = text.to_ascii_lowercase();
        let (name, group) = text.split_once('.').unwrap_or((&text, ""));
        KINDS.iter().find(|kind| {
            let singular = kind.name.to_ascii_lowercase();
            let of_kind = kind.api_version.split_once('/').map_or("", |(group, _)| group);
            let is_name = name == singular || name == format!("{singular}s") || kind.short_names.contains(&name);
            is_name && (group.is_empty() || group == of_kind || group == format!("v1.{of_kind}"))
        })
    }
}

/// `deploy/web`
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) kind: &'static Kind,
    pub(crate) name: String,
}

/// Reads `deploy/web`.
pub(crate) fn parse(text: &str) -> Result<Workload, String> {
    let (kind, name) = text.split_once('/').ok_or("write TYPE/NAME, such as deploy/web")?;
    let kinds = || KINDS.map(|kind| kind.name.to_lowercase()).join(", ");
    let kind = Kind::named(kind).ok_or_else(|| format!("{kind:?} has no pods; what has is {}", kinds()))?;
    let name = naming::parse_name(name).map_err(|error| error.to_string())?;
    Ok(Workload { kind, name })
}

/// Whether a controller made the object. What belongs to a workload is of it, or of what it was before: only the workload counts.
pub(crate) fn is_owned(object: &DynamicObject) -> bool {
    let owners = object.owner_references();
    owners.iter().any(|owner| owner.controller == Some(true))
}

/// The specs of the pods of an object, or of every object of a list. An object without pods has none.
pub(crate) fn pod_specs(object: &Value) -> Vec<&Value> {
    if let Some(items) = object["items"].as_array() {
        return items.iter().flat_map(pod_specs).collect();
    }
    let is_kind = |kind: &&Kind| object["kind"] == kind.name && object["apiVersion"] == kind.api_version;
    let pod = KINDS
        .iter()
        .find(is_kind)
        .and_then(|kind| object.pointer(kind.pod_spec));
    pod.into_iter().collect()
}

/// The names of the Secrets that a pod pulls its images with.
pub(crate) fn pull_secrets_of_pod(spec: &Value) -> impl Iterator<Item = &str> {
    let secrets = spec["imagePullSecrets"].as_array().into_iter().flatten();
    secrets.filter_map(|secret| secret["name"].as_str())
}

/// The images of a pod's spec: of its containers, and of the volumes that are images.
pub(crate) fn images_of_pod(spec: &Value) -> Vec<String> {
    let containers = ["initContainers", "containers"]
        .into_iter()
        .filter_map(|field| spec[field].as_array())
        .flatten()
        .filter_map(|container| container["image"].as_str());
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let volumes = volumes.filter_map(|volume| volume["image"]["reference"].as_str());
    containers
        .chain(volumes)
        .filter(|image| !image.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(object: &Value) -> Vec<String> {
        pod_specs(object).into_iter().flat_map(images_of_pod).collect()
    }

    #[test]
    fn every_kind_with_pods_gives_its_images() {
        let spec = json!({
            "initContainers": [{"name": "i", "image": "init:1"}],
            "containers": [{"name": "a", "image": "app:1"}, {"name": "b"}],
            "volumes": [{"name": "v", "image": {"reference": "model:1"}}, {"name": "w", "emptyDir": {}}],
        });
        let template = json!({"spec": spec});
        for (version, kind, body) in [
            ("v1", "Pod", json!({"spec": spec})),
            ("v1", "PodTemplate", json!({"template": template})),
            ("apps/v1", "Deployment", json!({"spec": {"template": template}})),
            (
                "batch/v1",
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
            ),
        ] {
            let mut object = body;
            object["apiVersion"] = version.into();
            object["kind"] = kind.into();
            assert_eq!(images(&object), ["init:1", "app:1", "model:1"], "{kind}");
            let list =
                json!({"apiVersion": "v1", "kind": "List", "items": [object, {"apiVersion": "v1", "kind": "Service"}]});
            assert_eq!(images(&list).len(), 3, "{kind}");
        }
        assert_eq!(images(&json!({"apiVersion": "v1", "kind": "ConfigMap"})), [""; 0]);
    }

    #[test]
    fn kinds_have_the_names_that_kubectl_knows() {
        for (text, expected) in [
            ("deploy", Some("Deployment")),
            ("Deployments.apps", Some("Deployment")),
            ("deployment.v1.apps", Some("Deployment")),
            ("po", Some("Pod")),
            ("pods", Some("Pod")),
            ("cj", Some("CronJob")),
            ("deployment.batch", None),
            ("service", None),
            ("", None),
        ] {
            assert_eq!(Kind::named(text).map(|kind| kind.name), expected, "{text}");
        }
    }
}
