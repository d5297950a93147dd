//! What is claimed against what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

use super::{
    claims::{ClaimedNode, Claims, images, label_key, selects},
    truth::{Images, Truth},
};

/// Something that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrong {
    /// In which way.
    pub kind: Kind,
    /// `namespace/name` of a Prefetch, or the name of a node.
    pub about: String,
    /// A sentence.
    pub what: String,
}

/// In which way something is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An image that is to be on a node is not there.
    Missing,
    /// What is said is not so.
    Untrue,
    /// A part of the cluster does not answer.
    Silent,
    /// Images came or went while they were looked at.
    Moving,
}

impl Wrong {
    pub(super) fn new(kind: Kind, about: &str, what: String) -> Self {
        Self {
            kind,
            about: about.to_owned(),
            what,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.what)
    }
}

/// Everything that is not as it should be when nothing moves.
pub(super) fn wrongs(claims: &Claims, truth: &Truth) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let held: BTreeMap<&str, &Images> = truth
        .0
        .iter()
        .filter_map(|(node, images)| Some((node.as_str(), images.as_ref()?)))
        .collect();
    for (node, images) in &truth.0 {
        if images.is_none() {
            wrongs.push(Wrong::new(
                Kind::Silent,
                node,
                "its containerd does not answer".to_owned(),
            ));
        }
        if !claims
            .nodes
            .iter()
            .any(|claimed| claimed.name == *node && claimed.is_eligible)
        {
            wrongs.push(Wrong::new(Kind::Silent, node, "it is not Ready".to_owned()));
        }
    }
    for prefetch in &claims.prefetches {
        check_prefetch(prefetch, claims, &held, &mut wrongs);
    }
    for node in &claims.nodes {
        if let Some(images) = held.get(node.name.as_str()) {
            check_labels(node, claims, images, &mut wrongs);
        }
    }
    for object in &claims.node_images {
        check_node_images(object, &held, &mut wrongs);
    }
    wrongs
}

fn check_prefetch(prefetch: &Value, claims: &Claims, held: &BTreeMap<&str, &Images>, wrongs: &mut Vec<Wrong>) {
    let metadata = &prefetch["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let name = format!("{namespace}/{name}");
    let mut wrong = |kind, what| wrongs.push(Wrong::new(kind, &name, what));
    if !metadata["deletionTimestamp"].is_null() {
        return wrong(Kind::Missing, "it is being deleted".to_owned());
    }
    let selector = &prefetch["spec"]["nodeSelector"];
    let nodes: Vec<&str> = claims
        .nodes
        .iter()
        .filter(|node| node.is_eligible && selects(selector, &node.labels))
        .map(|node| node.name.as_str())
        .collect();
    let has = |node: &str, image: &str| held.get(node).is_some_and(|images| images.contains_key(image));
    let status = &prefetch["status"];
    let mut complete: BTreeSet<&str> = nodes.iter().copied().collect();
    let told: Vec<&Value> = status["images"].as_array().into_iter().flatten().collect();
    for image in images(prefetch) {
        let missing: Vec<&str> = nodes.iter().copied().filter(|node| !has(node, image)).collect();
        for node in &missing {
            complete.remove(node);
            wrong(Kind::Missing, format!("{image} is not on {node}"));
        }
        let Some(counts) = told.iter().find(|counts| counts["image"] == image) else {
            wrong(Kind::Untrue, format!("its status does not tell of {image}"));
            continue;
        };
        for (what, expected) in [("desired", nodes.len()), ("available", nodes.len() - missing.len())] {
            if counts[what].as_u64() != u64::try_from(expected).ok() {
                wrong(
                    Kind::Untrue,
                    format!("{image}: {what} {} and not {expected}", counts[what]),
                );
            }
        }
        let digests: BTreeSet<&str> = nodes
            .iter()
            .filter_map(|node| held.get(node)?.get(image))
            .flatten()
            .map(String::as_str)
            .collect();
        for digest in counts["digests"].as_array().into_iter().flatten() {
            if !digest.as_str().is_some_and(|digest| digests.contains(digest)) {
                wrong(Kind::Untrue, format!("{image}: no node has the digest {digest}"));
            }
        }
    }
    for (what, expected) in [("desired", nodes.len()), ("ready", complete.len())] {
        if status["nodes"][what].as_u64() != u64::try_from(expected).ok() {
            wrong(
                Kind::Untrue,
                format!("nodes {what}: {} and not {expected}", status["nodes"][what]),
            );
        }
    }
    if status["observedGeneration"] != metadata["generation"] {
        wrong(Kind::Untrue, "its status is of another generation".to_owned());
    }
    let is_ready = complete.len() == nodes.len();
    if condition(status, "Ready") != Some(if is_ready { "True" } else { "False" }) {
        wrong(Kind::Untrue, format!("Ready is not {is_ready}"));
    }
}

fn check_labels(node: &ClaimedNode, claims: &Claims, held: &Images, wrongs: &mut Vec<Wrong>) {
    let mut wrong = |kind, what| wrongs.push(Wrong::new(kind, &node.name, what));
    let named = claims.images();
    let keys: BTreeMap<String, &String> = named.iter().map(|image| (label_key(image), image)).collect();
    for key in node.image_labels() {
        match keys.get(key) {
            None => wrong(
                Kind::Untrue,
                format!("it has the label {key}, and no Prefetch names such an image"),
            ),
            Some(image) if !held.contains_key(*image) => {
                wrong(Kind::Untrue, format!("it has the label of {image} and not the image"));
            }
            Some(_) => {}
        }
    }
    let selected = claims
        .prefetches
        .iter()
        .filter(|prefetch| node.is_eligible && selects(&prefetch["spec"]["nodeSelector"], &node.labels));
    let wanted: BTreeSet<&str> = selected.flat_map(images).collect();
    for image in wanted {
        if held.contains_key(image)
            && node
                .labels
                .get(&label_key(image))
                .is_none_or(|value| value != "available")
        {
            wrong(Kind::Untrue, format!("it has {image} and not its label"));
        }
    }
}

fn check_node_images(object: &Value, held: &BTreeMap<&str, &Images>, wrongs: &mut Vec<Wrong>) {
    let node = text(&object["metadata"]["name"]);
    let mut wrong = |what| wrongs.push(Wrong::new(Kind::Untrue, node, what));
    let Some(held) = held.get(node) else {
        return;
    };
    let status = &object["status"];
    if status["observedGeneration"] != object["metadata"]["generation"] {
        wrong("its agent has not seen what it is asked for".to_owned());
    }
    for told in status["images"].as_array().into_iter().flatten() {
        let (image, digests) = (text(&told["image"]), held.get(text(&told["image"])));
        if (told["state"] == "Present") != digests.is_some() {
            wrong(format!("its agent says {} of {image}", told["state"]));
        }
        let digest = told["digest"].as_str();
        if let Some((digests, digest)) = digests.zip(digest)
            && !digests.iter().any(|it| it == digest)
        {
            wrong(format!("its agent says {digest} of {image}, and it is {digests:?}"));
        }
    }
}

/// The status of a condition.
fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const IMAGE: &str = "r:5000/a:1";

    fn node(has_label: bool) -> ClaimedNode {
        let label = has_label.then(|| (label_key(IMAGE), "available".to_owned()));
        ClaimedNode {
            name: "node-1".to_owned(),
            labels: label.into_iter().collect(),
            is_eligible: true,
        }
    }

    fn prefetch(available: u32, ready: &str) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": "p", "generation": 2},
            "spec": {"images": [IMAGE]},
            "status": {
                "observedGeneration": 2,
                "nodes": {"desired": 1, "ready": available},
                "images": [{"image": IMAGE, "desired": 1, "available": available, "digests": []}],
                "conditions": [{"type": "Ready", "status": ready}],
            },
        })
    }

    fn node_images(state: &str) -> Value {
        json!({
            "metadata": {"name": "node-1", "generation": 1},
            "status": {"observedGeneration": 1, "images": [{"image": IMAGE, "state": state, "digest": "sha256:1"}]},
        })
    }

    fn truth(digest: Option<&str>) -> Truth {
        let images = digest.map(|digest| (IMAGE.to_owned(), vec![digest.to_owned()]));
        Truth(BTreeMap::from([(
            "node-1".to_owned(),
            Some(images.into_iter().collect()),
        )]))
    }

    #[test]
    fn every_difference_is_found() {
        let right = Claims {
            nodes: vec![node(true)],
            prefetches: vec![prefetch(1, "True")],
            node_images: vec![node_images("Present")],
        };
        let there = truth(Some("sha256:1"));
        assert_eq!(wrongs(&right, &there), []);
        let cases = [
            ("has the label of", right.clone(), truth(None)),
            ("is not on node-1", right.clone(), truth(None)),
            ("says \"Present\"", right.clone(), truth(None)),
            ("and it is", right.clone(), truth(Some("sha256:2"))),
            (
                "does not answer",
                right.clone(),
                Truth(BTreeMap::from([("node-1".to_owned(), None)])),
            ),
            (
                "not its label",
                Claims {
                    nodes: vec![node(false)],
                    ..right.clone()
                },
                there.clone(),
            ),
            (
                "no Prefetch names",
                Claims {
                    prefetches: Vec::new(),
                    ..right.clone()
                },
                there.clone(),
            ),
            (
                "available 0",
                Claims {
                    prefetches: vec![prefetch(0, "True")],
                    ..right.clone()
                },
                there.clone(),
            ),
            (
                "Ready is not true",
                Claims {
                    prefetches: vec![prefetch(1, "False")],
                    ..right.clone()
                },
                there.clone(),
            ),
            (
                "says \"Pulling\"",
                Claims {
                    node_images: vec![node_images("Pulling")],
                    ..right.clone()
                },
                there.clone(),
            ),
        ];
        for (words, claims, truth) in cases {
            let found = wrongs(&claims, &truth);
            assert!(
                found.iter().any(|wrong| wrong.what.contains(words)),
                "{words}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_missing_and_said_to_be_is_no_untruth() {
        let claims = Claims {
            nodes: vec![node(false)],
            prefetches: vec![prefetch(0, "False")],
            node_images: vec![node_images("Failed")],
        };
        let found = wrongs(&claims, &truth(None));
        assert!(
            found.iter().all(|wrong| wrong.kind == Kind::Missing) && found.len() == 1,
            "{found:?}"
        );
    }
}
