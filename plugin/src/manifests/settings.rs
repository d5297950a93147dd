//! The few things about the manifests that people change.

use coral_api::{ImageReference, keys};
use serde_json::{Map, Value, json};

/// The name of the image in `deploy/`, which no registry has.
const PLACEHOLDER: &str = "coral";
/// Where the agent finds its container runtime.
const RUNTIME_ENDPOINT: &str = "CORAL_RUNTIME_ENDPOINT";
/// The folder of the container runtime's socket.
const RUNTIME_VOLUME: &str = "runtime";

/// What is different from `deploy/`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    pub(crate) image: String,
    pub(crate) version: Option<String>,
    pub(crate) node_selector: Vec<(String, String)>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) runtime_endpoint: Option<RuntimeEndpoint>,
    pub(crate) image_pull_secrets: Vec<String>,
    pub(crate) agent_memory: Option<Quantity>,
    pub(crate) controller_memory: Option<Quantity>,
    pub(crate) registry_image: Option<String>,
    pub(crate) registry_storage: Option<Quantity>,
}

/// Why a text is none of these.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidSetting {
    #[error("{0}")]
    Image(String),
    #[error("write KEY=VALUE, a label of the nodes")]
    Label,
    #[error(
        "write KEY, KEY:EFFECT, KEY=VALUE or KEY=VALUE:EFFECT; an effect is NoSchedule, PreferNoSchedule or NoExecute"
    )]
    Toleration,
    #[error("write unix:// and the path of a socket in a folder, such as unix:///run/k3s/containerd/containerd.sock")]
    RuntimeEndpoint,
    #[error("write a number of bytes, such as 64Mi or 1Gi")]
    Quantity,
}

/// A taint that is tolerated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Toleration(Value);

/// The socket of a container runtime.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RuntimeEndpoint {
    endpoint: String,
    folder: String,
}

/// A number of bytes, as Kubernetes writes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Quantity(String);

/// Reads an image, and keeps its spelling.
pub(crate) fn parse_image(text: &str) -> Result<String, InvalidSetting> {
    match text.parse::<ImageReference>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(InvalidSetting::Image(error.to_string())),
    }
}

/// Reads `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), InvalidSetting> {
    let (key, value) = text.split_once('=').ok_or(InvalidSetting::Label)?;
    if key.is_empty() || value.contains([',', ' ']) {
        return Err(InvalidSetting::Label);
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads `KEY[=VALUE][:EFFECT]`.
pub(crate) fn parse_toleration(text: &str) -> Result<Toleration, InvalidSetting> {
    let (taint, effect) = match text.split_once(':') {
        Some((taint, effect)) => (taint, Some(effect)),
        None => (text, None),
    };
    let (key, value) = match taint.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (taint, None),
    };
    let is_effect = |effect: &str| ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    if key.is_empty() || key.contains([',', ' ']) || effect.is_some_and(|effect| !is_effect(effect)) {
        return Err(InvalidSetting::Toleration);
    }
    let mut toleration = match value {
        Some(value) => json!({"key": key, "operator": "Equal", "value": value}),
        None => json!({"key": key, "operator": "Exists"}),
    };
    if let Some(effect) = effect {
        toleration["effect"] = effect.into();
    }
    Ok(Toleration(toleration))
}

/// Reads `unix:///folder/socket`.
pub(crate) fn parse_runtime_endpoint(text: &str) -> Result<RuntimeEndpoint, InvalidSetting> {
    let path = text.strip_prefix("unix://").ok_or(InvalidSetting::RuntimeEndpoint)?;
    match path.rsplit_once('/') {
        Some((folder, socket)) if folder.starts_with('/') && folder.len() > 1 && !socket.is_empty() => {
            Ok(RuntimeEndpoint {
                endpoint: text.to_owned(),
                folder: folder.to_owned(),
            })
        }
        _ => Err(InvalidSetting::RuntimeEndpoint),
    }
}

/// Reads a number of bytes.
pub(crate) fn parse_quantity(text: &str) -> Result<Quantity, InvalidSetting> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_unit = ["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&&text[digits.len()..]);
    if is_unit && digits.parse::<u64>().is_ok_and(|number| number > 0) {
        Ok(Quantity(text.to_owned()))
    } else {
        Err(InvalidSetting::Quantity)
    }
}

impl Settings {
    /// Changes an object of `deploy/`.
    pub(crate) fn change(&self, object: &mut Value) {
        rename(object, keys::SYSTEM_NAMESPACE, &self.namespace);
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if !matches!(kind.as_str(), "CronJob" | "DaemonSet" | "Deployment" | "StatefulSet") {
            return;
        }
        if let Some(version) = &self.version {
            object["metadata"]["labels"]["app.kubernetes.io/version"] = version.as_str().into();
        }
        if let Some(Quantity(storage)) = &self.registry_storage
            && let Some(storages) = object.pointer_mut("/spec/volumeClaimTemplates/0/spec/resources/requests")
        {
            storages["storage"] = storage.as_str().into();
        }
        let is_on_every_node = kind == "DaemonSet";
        let is_agent = object["metadata"]["name"] == keys::AGENT_SERVICE_ACCOUNT;
        let template = if kind == "CronJob" {
            "/spec/jobTemplate/spec/template/spec"
        } else {
            "/spec/template/spec"
        };
        let Some(pod) = object.pointer_mut(template) else {
            return;
        };
        for containers in ["containers", "initContainers"] {
            for container in pod[containers].as_array_mut().into_iter().flatten() {
                self.change_container(container);
            }
        }
        if !self.image_pull_secrets.is_empty() {
            let names = self.image_pull_secrets.iter().map(|name| json!({"name": name}));
            pod["imagePullSecrets"] = names.collect();
        }
        if let Some(endpoint) = self.runtime_endpoint.as_ref().filter(|_| is_agent) {
            endpoint.mount(pod);
        }
        if is_on_every_node {
            for (key, value) in &self.node_selector {
                pod["nodeSelector"][key.as_str()] = value.as_str().into();
            }
        } else if !self.tolerations.is_empty() {
            // What is on every node tolerates everything.
            let mut tolerations = pod["tolerations"].as_array().cloned().unwrap_or_default();
            tolerations.extend(self.tolerations.iter().map(|toleration| toleration.0.clone()));
            pod["tolerations"] = tolerations.into();
        }
    }

    fn change_container(&self, container: &mut Value) {
        if container["image"] == PLACEHOLDER {
            container["image"] = self.image.as_str().into();
        } else if let Some(image) = self
            .registry_image
            .as_ref()
            .filter(|_| is_registry(&container["image"]))
        {
            container["image"] = image.as_str().into();
        }
        let memory = match container["name"].as_str() {
            Some("agent") => &self.agent_memory,
            Some("controller") => &self.controller_memory,
            _ => &None,
        };
        if let Some(Quantity(memory)) = memory {
            container["resources"]["limits"]["memory"] = memory.as_str().into();
        }
        if let (Some(endpoint), Some("agent")) = (&self.runtime_endpoint, container["name"].as_str()) {
            let variable = json!({"name": RUNTIME_ENDPOINT, "value": endpoint.endpoint});
            replace(&mut container["env"], variable);
        }
    }
}

/// Whether an image is that of the registry, of which the parts have no other.
fn is_registry(image: &Value) -> bool {
    image
        .as_str()
        .is_some_and(|image| image.starts_with("docker.io/library/registry:"))
}

impl RuntimeEndpoint {
    /// Mounts the folder of the socket, at the same path, where no mount has it already.
    fn mount(&self, pod: &mut Value) {
        let is_below = |path: &Value| {
            let path = path.as_str().unwrap_or_default().trim_end_matches('/');
            !path.is_empty() && (self.folder == path || self.folder.starts_with(&format!("{path}/")))
        };
        let container = pod["containers"].as_array().and_then(|containers| containers.first());
        let mounts = container.and_then(|container| container["volumeMounts"].as_array());
        if mounts.into_iter().flatten().any(|mount| is_below(&mount["mountPath"])) {
            return;
        }
        let volume = json!({"name": RUNTIME_VOLUME, "hostPath": {"path": self.folder, "type": "Directory"}});
        let mount = json!({"name": RUNTIME_VOLUME, "mountPath": self.folder, "readOnly": true});
        replace(&mut pod["volumes"], volume);
        for container in pod["containers"].as_array_mut().into_iter().flatten() {
            replace(&mut container["volumeMounts"], mount.clone());
        }
    }
}

/// Puts the item in the place of the one with its name, or at the end.
fn replace(list: &mut Value, item: Value) {
    let mut items = list.as_array().cloned().unwrap_or_default();
    match items.iter_mut().find(|other| other["name"] == item["name"]) {
        Some(other) => *other = item,
        None => items.push(item),
    }
    *list = items.into();
}

/// Takes the namespace's new name wherever the old one stands as a word: in names, subjects, addresses, and expressions of policies.
fn rename(value: &mut Value, from: &str, to: &str) {
    if from == to {
        return;
    }
    match value {
        Value::String(text) if text.contains(from) => *text = replace_word(text, from, to),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(key, mut item)| {
                    rename(&mut item, from, to);
                    (key, item)
                })
                .collect::<Map<_, _>>();
        }
        _ => {}
    }
}

fn replace_word(text: &str, from: &str, to: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = rest.find(from) {
        let (before, after) = (&rest[..index], &rest[index + from.len()..]);
        result.push_str(before);
        let is_word = !result.ends_with(is_part) && !after.starts_with(is_part);
        result.push_str(if is_word { to } else { from });
        rest = after;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests;

    fn changed(settings: &Settings, kind: &str) -> Value {
        let mut objects = manifests::compose::<&str>(&[]).unwrap();
        let object = objects.iter_mut().find(|object| object["kind"] == kind).unwrap();
        settings.change(object);
        object.clone()
    }

    fn settings() -> Settings {
        Settings {
            namespace: "coral-system".to_owned(),
            image: "registry.example/coral:v1".to_owned(),
            ..Settings::default()
        }
    }

    #[test]
    fn another_namespace_is_meant_everywhere() {
        let settings = Settings {
            namespace: "images".to_owned(),
            ..settings()
        };
        for mut object in manifests::compose::<&str>(&[]).unwrap() {
            settings.change(&mut object);
            assert!(!object.to_string().contains("coral-system"), "{object}");
        }
        assert_eq!(
            changed(&settings, "ClusterRoleBinding")["subjects"][0]["namespace"],
            "images"
        );
        for (text, expected) in [
            ("coral-webhook.coral-system.svc", "coral-webhook.images.svc"),
            (
                "system:serviceaccount:coral-system:coral-agent",
                "system:serviceaccount:images:coral-agent",
            ),
            ("my-coral-system", "my-coral-system"),
            ("coral-system-2", "coral-system-2"),
            ("'coral-system'", "'images'"),
        ] {
            assert_eq!(replace_word(text, "coral-system", "images"), expected);
        }
    }

    #[test]
    fn the_image_takes_the_place_of_its_placeholder() {
        for kind in ["DaemonSet", "Deployment"] {
            let object = changed(&settings(), kind);
            let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
            assert_eq!(image, "registry.example/coral:v1");
        }
    }

    #[test]
    fn settings_reach_the_part_that_they_are_about() {
        let settings = Settings {
            version: Some("v1.2.3".to_owned()),
            node_selector: vec![parse_label("pool=gpu").unwrap()],
            tolerations: vec![parse_toleration("dedicated=infra:NoSchedule").unwrap()],
            runtime_endpoint: Some(parse_runtime_endpoint("unix:///opt/k3s/containerd.sock").unwrap()),
            image_pull_secrets: vec!["regcred".to_owned()],
            agent_memory: Some(parse_quantity("128Mi").unwrap()),
            controller_memory: Some(parse_quantity("1Gi").unwrap()),
            ..settings()
        };
        let agent = changed(&settings, "DaemonSet");
        let pod = &agent["spec"]["template"]["spec"];
        assert_eq!(agent["metadata"]["labels"]["app.kubernetes.io/version"], "v1.2.3");
        assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux", "pool": "gpu"}));
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "regcred"}]));
        let container = &pod["containers"][0];
        assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
        let endpoint = json!({"name": "CORAL_RUNTIME_ENDPOINT", "value": "unix:///opt/k3s/containerd.sock"});
        assert!(container["env"].as_array().unwrap().contains(&endpoint), "{container}");
        let text = pod.to_string();
        assert!(
            text.contains("\"path\":\"/opt/k3s\"") && text.contains("\"mountPath\":\"/opt/k3s\""),
            "{text}"
        );

        let mut objects = manifests::compose::<&str>(&[]).unwrap();
        let controller = objects
            .iter_mut()
            .find(|object| object["metadata"]["name"] == "coral-controller" && object["kind"] == "Deployment")
            .unwrap();
        settings.change(controller);
        let pod = &controller["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "1Gi");
        let toleration = json!({"key": "dedicated", "operator": "Equal", "value": "infra", "effect": "NoSchedule"});
        assert!(pod["tolerations"].as_array().unwrap().contains(&toleration), "{pod}");
        assert!(pod["nodeSelector"].get("pool").is_none());
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for text in ["", "=x", "a=b:Never", "a:b"] {
            assert_eq!(parse_toleration(text), Err(InvalidSetting::Toleration), "{text}");
        }
        for text in ["", "/run/x.sock", "unix://x.sock", "unix:///x.sock", "unix:///run/"] {
            assert_eq!(
                parse_runtime_endpoint(text),
                Err(InvalidSetting::RuntimeEndpoint),
                "{text}"
            );
        }
        for text in ["", "0", "-1Mi", "64MB", "1.5Gi", "Mi"] {
            assert_eq!(parse_quantity(text), Err(InvalidSetting::Quantity), "{text}");
        }
        assert_eq!(parse_label("pool"), Err(InvalidSetting::Label));
        assert!(parse_image("Coral:v1").is_err());
    }
}
