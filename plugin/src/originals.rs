//! Pods that run copies of images, by the names that people wrote.

use std::collections::BTreeMap;

use coral_api::{ImageReference, keys};
use serde_json::Value;

/// The Pod with the originals in the place of copies, as its annotation has them. That of a Pod that runs no copies is the Pod.
pub(crate) fn as_written(pod: &Value) -> Value {
    let mut written = pod.clone();
    let note = pod["metadata"]["annotations"][keys::ORIGINAL_IMAGES_ANNOTATION].as_str();
    let originals: Option<BTreeMap<String, String>> = note.and_then(|note| serde_json::from_str(note).ok());
    let Some(originals) = originals else { return written };
    for field in ["initContainers", "containers"] {
        for container in written["spec"][field].as_array_mut().into_iter().flatten() {
            if let Some(original) = container["name"].as_str().and_then(|name| originals.get(name)) {
                container["image"] = original.as_str().into();
            }
        }
    }
    for volume in written["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        let name = volume["name"].as_str().map(|name| format!("volumes/{name}"));
        if let Some(original) = name.and_then(|name| originals.get(&name)) {
            volume["image"]["reference"] = original.as_str().into();
        }
    }
    written
}

/// Whether nodes get the image from the relay to the registry in the cluster.
pub(crate) fn is_relayed(image: &str) -> bool {
    let address = format!("localhost:{}", keys::RELAY_PORT);
    image
        .parse::<ImageReference>()
        .is_ok_and(|image| image.registry() == address)
}

/// What a person can do where nodes do not get images from their relays.
pub(crate) fn relay_advice() -> String {
    format!(
        "nodes get this copy from a relay on the node: look at the DaemonSet coral-relay and at coral-registry-0, for example with \
         `kubectl -n {} get pods -o wide`; nodes and the kubelet try again by themselves",
        keys::SYSTEM_NAMESPACE
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workload::images_of_pod;

    #[test]
    fn originals_take_the_place_of_their_copies() {
        let note = json!({"i": "init:1", "a": "app:1", "volumes/v": "model:1", "gone": "x"}).to_string();
        let pod = json!({
            "metadata": {"annotations": {keys::ORIGINAL_IMAGES_ANNOTATION: note}},
            "spec": {
                "initContainers": [{"name": "i", "image": "localhost:7439/m/init:1"}],
                "containers": [{"name": "a", "image": "localhost:7439/m/app:1"}, {"name": "b", "image": "b:1"}],
                "volumes": [{"name": "v", "image": {"reference": "localhost:7439/m/model:1"}}, {"name": "a"}],
            },
        });
        let written = as_written(&pod);
        assert_eq!(images_of_pod(&written["spec"]), ["init:1", "app:1", "b:1", "model:1"]);
        assert_eq!(written["spec"]["volumes"][1], json!({"name": "a"}));
        let mut other = pod.clone();
        for note in [json!("no JSON"), json!(7), Value::Null] {
            other["metadata"]["annotations"][keys::ORIGINAL_IMAGES_ANNOTATION] = note;
            assert_eq!(as_written(&other), other);
        }
    }

    #[test]
    fn relays_have_one_address() {
        assert!(is_relayed("localhost:7439/mirror/docker.io/library/nginx:1"));
        for image in [
            "nginx:1",
            "localhost:5000/nginx:1",
            "localhost:7439.example/nginx:1",
            "A B",
        ] {
            assert!(!is_relayed(image), "{image}");
        }
    }
}
