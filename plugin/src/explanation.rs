//! Why a Pod waits, as far as images have to do with it.

use std::collections::BTreeMap;

use coral_api::{ImageReference, keys};
use serde_json::Value;

use crate::{
    human,
    matrix::{Cell, CellState, Matrix},
    originals::{as_written, is_relayed, relay_advice},
    workload,
};

/// Nodes that are named before the rest is counted.
const NODES_NAMED: usize = 3;

/// What the kubelet says of a container whose image it could not pull.
const PULL_FAILURES: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

/// A node, as far as Pods choose by it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The Pod in a line.
pub(crate) fn headline(pod: &Value) -> String {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or_default();
    let name = text("/metadata/name").unwrap_or_default();
    let place = text("/spec/nodeName").map_or_else(|| "on no node".to_owned(), |node| format!("on {node}"));
    format!(
        "pod {namespace}/{name}: {}, {place}",
        text("/status/phase").unwrap_or("Unknown")
    )
}

/// Why it waits, in sentences; and what could be done about each. Images are called as people wrote them, and so is their place chosen.
pub(crate) fn reasons(pod: &Value, nodes: &[NodeFacts], matrix: &Matrix) -> Vec<String> {
    let written = as_written(pod);
    match pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        Some(node) => on_a_node(pod, &written, node, matrix),
        None => on_no_node(&written, nodes, matrix),
    }
}

/// The Pod has its node: its containers wait, or they run.
fn on_a_node(pod: &Value, written: &Value, node: &str, matrix: &Matrix) -> Vec<String> {
    let mut reasons = Vec::new();
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let statuses = statuses.into_iter().filter_map(|field| pod["status"][field].as_array());
    for status in statuses.flatten() {
        let waiting = &status["state"]["waiting"];
        let (Some(reason), Some(name)) = (waiting["reason"].as_str(), status["name"].as_str()) else {
            continue;
        };
        let (Some(image), Some(runs)) = (container_image(written, name), container_image(pod, name)) else {
            continue;
        };
        let copy = Some(runs).filter(|runs| *runs != image);
        let state = match matrix.cell(node, image) {
            Some(cell) if cell.state == CellState::Failed => format!("on {node} it {}", state(cell)),
            Some(cell) => format!("on {node} it is {}", state(cell)),
            None => format!("no Prefetch asks for it on {node}"),
        };
        let help = match (reason, matrix.cell(node, image).map(|cell| cell.state)) {
            ("ErrImageNeverPull", None) => format!(
                "; the kubelet may not pull it (imagePullPolicy Never), so prefetch it: `kubectl coral prefetch {}`",
                familiar(image)
            ),
            ("ErrImageNeverPull", Some(CellState::Present)) => {
                "; the kubelet will find it at its next attempt".to_owned()
            }
            ("ErrImageNeverPull", Some(_)) => "; the kubelet waits for it (imagePullPolicy Never)".to_owned(),
            _ => String::new(),
        };
        let message = waiting["message"].as_str().map(|message| format!(" ({message})"));
        let copy_name = copy.map(|copy| format!(", by its copy {copy}"));
        let relay = copy.filter(|copy| is_relayed(copy) && PULL_FAILURES.contains(&reason));
        let relay = relay.map(|_| format!("; {}", relay_advice()));
        reasons.push(format!(
            "container {name} waits for {}{}: {state}{help}; the kubelet says {reason}{}{}",
            familiar(image),
            copy_name.unwrap_or_default(),
            message.unwrap_or_default(),
            relay.unwrap_or_default()
        ));
    }
    if reasons.is_empty() {
        reasons.push("nothing in it waits for an image".to_owned());
    }
    reasons
}

/// The Pod has no node: the labels that it asks for, and who has them.
fn on_no_node(pod: &Value, nodes: &[NodeFacts], matrix: &Matrix) -> Vec<String> {
    let scheduler = scheduler_message(pod);
    let mut required = required_labels(&pod["spec"]);
    if required.is_empty() {
        return vec![format!(
            "it does not choose its node by image{}",
            scheduler
                .map(|message| format!("; the scheduler says: {message}"))
                .unwrap_or_default()
        )];
    }
    let candidates: Vec<&NodeFacts> = nodes.iter().filter(|node| is_candidate(&pod["spec"], node)).collect();
    let images: Vec<(String, String)> = workload::images_of_pod(&pod["spec"])
        .into_iter()
        .filter_map(|image| Some((image.parse::<ImageReference>().ok()?.label_key(), image)))
        .collect();
    let position = |key: &String| images.iter().position(|(of_image, _)| of_image == key);
    // In the order of the containers; what is of none of them comes last.
    required.sort_by_key(|key| position(key).unwrap_or(usize::MAX));
    let mut reasons = Vec::new();
    let mut places = Vec::new();
    for key in &required {
        let holders: Vec<&str> = candidates
            .iter()
            .filter(|node| node.labels.contains_key(key))
            .map(|node| node.name.as_str())
            .collect();
        let Some(image) = position(key).map(|position| &images[position].1) else {
            if holders.is_empty() {
                reasons.push(format!(
                    "it asks for the node label {key}, which no node has and which is of no image in this pod: its selector is left over from another image; the annotation {} puts the right one there, and `kubectl coral uninject` takes it away",
                    keys::INJECT_ANNOTATION
                ));
            }
            continue;
        };
        if holders.is_empty() {
            reasons.push(missing(image, &candidates, matrix));
        } else {
            places.push(format!(
                "{} is on {}",
                familiar(image),
                human::some_of(&holders, NODES_NAMED)
            ));
        }
    }
    if !reasons.is_empty() {
        return reasons;
    }
    let has_all = |node: &&&NodeFacts| required.iter().all(|key| node.labels.contains_key(key));
    let complete: Vec<&str> = candidates
        .iter()
        .filter(has_all)
        .map(|node| node.name.as_str())
        .collect();
    if complete.is_empty() {
        return vec![format!("no node has all of its images: {}", places.join("; "))];
    }
    let message = scheduler.unwrap_or_else(|| "nothing yet".to_owned());
    vec![format!(
        "{} has every image that it asks for, so it waits for something else; the scheduler says: {message}",
        human::some_of(&complete, NODES_NAMED)
    )]
}

/// Why an image is on no node that the Pod could go to.
fn missing(image: &str, candidates: &[&NodeFacts], matrix: &Matrix) -> String {
    let name = familiar(image);
    let mut places: BTreeMap<CellState, Vec<String>> = BTreeMap::new();
    for node in candidates {
        if let Some(cell) = matrix.cell(&node.name, image) {
            places
                .entry(cell.state)
                .or_default()
                .push(format!("{} ({})", node.name, state(cell)));
        }
    }
    if candidates.is_empty() {
        return format!("{name} is needed, and no node has the other labels that the pod asks for");
    }
    if places.is_empty() {
        return format!(
            "no Prefetch asks for {name} on a node that the pod could go to: `kubectl coral prefetch {name}`"
        );
    }
    let places: Vec<String> = places.into_values().flatten().collect();
    format!("{name} is on no node yet: {}", human::some_of(&places, NODES_NAMED))
}

/// Where an image stands on a node, in words.
fn state(cell: &Cell) -> String {
    if cell.state == CellState::Held {
        return "held until its turn comes, or its Prefetch is resumed".to_owned();
    }
    let mut text = cell.state.as_str().to_owned();
    if let Some(failure) = &cell.failure {
        text = format!("{text}: {}", failure.reason);
    }
    if let Some(percent) = cell.transfer.and_then(|transfer| transfer.percent()) {
        text = format!("{text} {percent}%");
    } else if let Some(time) = cell.pulling_for {
        text = format!("{text} for {}", human::duration(time));
    }
    text
}

/// Keys of Coral's labels without which no node will do.
fn required_labels(spec: &Value) -> Vec<String> {
    let mut keys: Vec<String> = spec["nodeSelector"]
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .cloned()
        .collect();
    let terms = spec
        .pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
        .and_then(Value::as_array);
    // Of several terms, one is enough: none of them is required.
    if let Some([term]) = terms.map(Vec::as_slice) {
        let expressions = term["matchExpressions"].as_array().into_iter().flatten();
        let wanted = expressions.filter(|expression| matches!(expression["operator"].as_str(), Some("In" | "Exists")));
        keys.extend(wanted.filter_map(|expression| expression["key"].as_str().map(str::to_owned)));
    }
    keys.retain(|key| key.starts_with(keys::PREFIX));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Whether a node has the labels of the node selector that are not Coral's.
fn is_candidate(spec: &Value, node: &NodeFacts) -> bool {
    let selector = spec["nodeSelector"].as_object();
    selector
        .into_iter()
        .flatten()
        .all(|(key, value)| key.starts_with(keys::PREFIX) || node.labels.get(key).map(String::as_str) == value.as_str())
}

fn scheduler_message(pod: &Value) -> Option<String> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let scheduled = conditions
        .iter()
        .find(|condition| condition["type"] == "PodScheduled")?;
    scheduled["message"].as_str().map(str::to_owned)
}

fn container_image<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    ["initContainers", "containers"]
        .into_iter()
        .filter_map(|field| pod["spec"][field].as_array())
        .flatten()
        .find(|container| container["name"] == name)?["image"]
        .as_str()
}

fn familiar(image: &str) -> String {
    image
        .parse()
        .map_or_else(|_| image.to_owned(), |reference: ImageReference| reference.familiar())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::node_images;

    fn key(image: &str) -> String {
        image.parse::<ImageReference>().unwrap().label_key()
    }

    fn node(name: &str, labels: &[&str]) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            labels: labels
                .iter()
                .map(|key| ((*key).to_owned(), "available".to_owned()))
                .collect(),
        }
    }

    fn pod(spec: &Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]}})
    }

    /// A pod with these two images that goes only where they are.
    fn injected() -> Value {
        let images = ["nginx:1.29", "redis:8"];
        let selector: serde_json::Map<String, Value> =
            images.iter().map(|image| (key(image), "available".into())).collect();
        let containers = images.map(|image| json!({"name": &image[..5], "image": image}));
        pod(&json!({"nodeSelector": selector, "containers": containers}))
    }

    fn matrix(reports: &[(&str, &str, Value)]) -> Matrix {
        let mut matrix = Matrix::of_images(["nginx:1.29", "redis:8"]);
        for (node, image, status) in reports {
            let mut status = status.clone();
            status["image"] = format!("docker.io/library/{image}").into();
            let wanted = json!([{"image": status["image"], "requestedBy": ["ops/all"]}]);
            let node = node_images(
                json!({"metadata": {"name": node}, "spec": {"images": wanted}, "status": {"images": [status]}}),
            );
            matrix.insert(&node, "2026-01-01T00:00:30Z".parse().unwrap());
        }
        matrix
    }

    #[test]
    fn a_pod_without_a_node_waits_for_what_no_node_has() {
        let (nginx, redis) = (key("nginx:1.29"), key("redis:8"));
        let nothing = Matrix::of_images(["nginx:1.29", "redis:8"]);
        let pulling = matrix(&[
            (
                "node-1",
                "nginx:1.29",
                json!({"state": "Pulling", "pull": {"doneBytes": 45, "totalBytes": 100}}),
            ),
            (
                "node-2",
                "nginx:1.29",
                json!({"state": "Failed", "failure": {"reason": "NotFound", "message": "unknown", "attempts": 3}}),
            ),
        ]);
        let text = |nodes: &[NodeFacts], matrix: &Matrix| reasons(&injected(), nodes, matrix).join("\n");
        insta::assert_snapshot!(text(&[node("node-1", &[&redis]), node("node-2", &[])], &pulling), @"nginx:1.29 is on no node yet: node-2 (failed: NotFound), node-1 (pulling 45%)");
        insta::assert_snapshot!(text(&[node("node-1", &[])], &nothing), @r"
        no Prefetch asks for nginx:1.29 on a node that the pod could go to: `kubectl coral prefetch nginx:1.29`
        no Prefetch asks for redis:8 on a node that the pod could go to: `kubectl coral prefetch redis:8`
        ");
        insta::assert_snapshot!(text(&[node("node-1", &[&redis]), node("node-2", &[&nginx])], &nothing), @"no node has all of its images: nginx:1.29 is on node-2; redis:8 is on node-1");
        insta::assert_snapshot!(text(&[node("node-1", &[&redis, &nginx])], &nothing), @"node-1 has every image that it asks for, so it waits for something else; the scheduler says: 0/2 nodes are available");
        insta::assert_snapshot!(reasons(&pod(&json!({})), &[], &nothing).join("\n"), @"it does not choose its node by image; the scheduler says: 0/2 nodes are available");
    }

    #[test]
    fn a_selector_of_another_image_is_told_from_a_missing_image() {
        let stale = pod(
            &json!({"nodeSelector": {key("nginx:1.28"): "available"}, "containers": [{"name": "a", "image": "nginx:1.29"}]}),
        );
        let reasons = reasons(&stale, &[node("node-1", &[])], &Matrix::default());
        assert!(reasons[0].contains("left over from another image"), "{reasons:?}");
    }

    #[test]
    fn other_labels_narrow_the_nodes_down() {
        let spec = json!({"nodeSelector": {"pool": "gpu", "image.stvz.io/x": "available"}});
        let mut gpu = node("node-1", &[]);
        gpu.labels.insert("pool".to_owned(), "gpu".to_owned());
        assert!(is_candidate(&spec, &gpu));
        assert!(!is_candidate(&spec, &node("node-2", &[])));
    }

    #[test]
    fn labels_may_stand_in_the_affinity() {
        let term = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["available"]}]});
        let spec = |terms: &Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        assert_eq!(
            required_labels(&spec(&json!([term("image.stvz.io/a")]))),
            ["image.stvz.io/a"]
        );
        assert_eq!(
            required_labels(&spec(&json!([term("image.stvz.io/a"), term("zone")]))),
            [""; 0]
        );
    }

    #[test]
    fn a_container_that_waits_for_a_copy_is_explained_by_what_people_wrote() {
        let mut pod = injected();
        let note = json!({"nginx": "nginx:1.29"}).to_string();
        pod["metadata"]["annotations"] = json!({"image.stvz.io/original-images": note});
        pod["spec"]["containers"][0]["image"] = "localhost:7439/mirror/docker.io/library/nginx:1.29".into();
        let present = matrix(&[("node-1", "redis:8", json!({"state": "Present"}))]);
        let text = |pod: &Value| reasons(pod, &[node("node-1", &[&key("redis:8")])], &present).join("\n");
        // Where it may go is told by the label of the original.
        insta::assert_snapshot!(text(&pod), @"no Prefetch asks for nginx:1.29 on a node that the pod could go to: `kubectl coral prefetch nginx:1.29`");
        pod["spec"]["nodeName"] = "node-1".into();
        let waiting = |reason: &str| json!([{"name": "nginx", "state": {"waiting": {"reason": reason, "message": "connection refused"}}}]);
        pod["status"]["containerStatuses"] = waiting("ErrImagePull");
        insta::assert_snapshot!(text(&pod), @"container nginx waits for nginx:1.29, by its copy localhost:7439/mirror/docker.io/library/nginx:1.29: no Prefetch asks for it on node-1; the kubelet says ErrImagePull (connection refused); nodes get this copy from a relay on the node: look at the DaemonSet coral-relay and at coral-registry-0, for example with `kubectl -n coral-system get pods -o wide`; nodes and the kubelet try again by themselves");
        pod["status"]["containerStatuses"] = waiting("CreateContainerError");
        assert!(!text(&pod).contains("relay"), "{}", text(&pod));
    }

    #[test]
    fn a_container_that_may_not_pull_says_who_must() {
        let mut pod = injected();
        pod["spec"]["nodeName"] = "node-1".into();
        pod["status"]["containerStatuses"] = json!([
            {"name": "nginx", "state": {"waiting": {"reason": "ErrImageNeverPull"}}},
            {"name": "redis", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}},
        ]);
        let pulling = matrix(&[("node-1", "redis:8", json!({"state": "Waiting"}))]);
        insta::assert_snapshot!(reasons(&pod, &[], &pulling).join("\n"), @r"
        container nginx waits for nginx:1.29: no Prefetch asks for it on node-1; the kubelet may not pull it (imagePullPolicy Never), so prefetch it: `kubectl coral prefetch nginx:1.29`; the kubelet says ErrImageNeverPull
        container redis waits for redis:8: on node-1 it is waiting; the kubelet says ImagePullBackOff (Back-off)
        ");
        pod["status"]["containerStatuses"] = json!([]);
        assert_eq!(reasons(&pod, &[], &pulling), ["nothing in it waits for an image"]);
        assert_eq!(headline(&pod), "pod shop/web: Pending, on node-1");
    }
}
