//! What Coral says, read as a user would: as JSON, by the names in the documentation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use crate::cluster::fingerprint::fingerprint;

/// What every key of Coral's on a node begins with.
const PREFIX: &str = "image.stvz.io/";

/// Everything that Coral claims at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    pub(super) nodes: Vec<ClaimedNode>,
    pub(super) prefetches: Vec<Value>,
    pub(super) node_images: Vec<Value>,
}

/// A Node as the API server has it.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimedNode {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Linux, Ready, neither cordoned nor about to go: a node that Prefetches select.
    pub(super) is_eligible: bool,
}

impl Claims {
    pub(super) async fn ask(client: Client) -> Result<Self> {
        let nodes: Api<Node> = Api::all(client.clone());
        let all = ListParams::default();
        let (nodes, prefetches, node_images) = tokio::try_join!(
            async { nodes.list(&all).await.context("list nodes") },
            list(client.clone(), "Prefetch", "prefetches"),
            list(client, "NodeImages", "nodeimages"),
        )?;
        Ok(Self {
            nodes: nodes.iter().map(ClaimedNode::of).collect(),
            prefetches,
            node_images,
        })
    }

    /// Every image that a Prefetch names.
    pub(super) fn images(&self) -> BTreeSet<String> {
        self.prefetches.iter().flat_map(images).map(str::to_owned).collect()
    }

    /// The keys of the image labels of each node.
    pub(super) fn labels(&self) -> BTreeMap<&str, Vec<&str>> {
        self.nodes
            .iter()
            .map(|node| (node.name.as_str(), node.image_labels().collect()))
            .collect()
    }
}

impl ClaimedNode {
    fn of(node: &Node) -> Self {
        let labels = node.labels().clone();
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is_ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let is_linux = labels.get("kubernetes.io/os").is_some_and(|os| os == "linux");
        Self {
            name: node.name_any(),
            is_eligible: is_linux && is_ready && !is_cordoned && node.metadata.deletion_timestamp.is_none(),
            labels,
        }
    }

    /// The keys of the labels that say that an image is there.
    pub(super) fn image_labels(&self) -> impl Iterator<Item = &str> {
        self.labels.keys().map(String::as_str).filter(|key| is_image_label(key))
    }
}

async fn list(client: Client, kind: &str, plural: &str) -> Result<Vec<Value>> {
    let kind = GroupVersionKind::gvk("image.stvz.io", "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let objects = api.list(&ListParams::default()).await;
    let objects = objects.with_context(|| format!("list {plural}"))?;
    objects
        .iter()
        .map(|object| serde_json::to_value(object).context("read an object"))
        .collect()
}

/// The images that a Prefetch names.
pub(super) fn images(prefetch: &Value) -> impl Iterator<Item = &str> {
    prefetch["spec"]["images"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The key of the label that says that an image is there: 32 hexadecimal digits of the SHA-256 of its whole name.
pub(super) fn label_key(image: &str) -> String {
    format!("{PREFIX}{}", fingerprint(image, 32))
}

fn is_image_label(key: &str) -> bool {
    key.strip_prefix(PREFIX)
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a `LabelSelector` selects a node with these labels.
pub(super) fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let of = |key: &str| labels.get(key).map(String::as_str);
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    equal.all(|(key, value)| of(key) == value.as_str())
        && expressions.all(|expression| {
            let value = of(expression["key"].as_str().unwrap_or_default());
            let mut values = expression["values"].as_array().into_iter().flatten().map(Value::as_str);
            match expression["operator"].as_str() {
                Some("In") => value.is_some() && values.any(|it| it == value),
                Some("NotIn") => !values.any(|it| it == value),
                Some("Exists") => value.is_some(),
                _ => value.is_none(),
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_is_that_of_the_documentation() {
        // printf docker.io/library/nginx:latest | sha256sum
        assert_eq!(
            label_key("docker.io/library/nginx:latest"),
            "image.stvz.io/86cee2c10898a48ff47a0626f8202a24"
        );
        assert!(is_image_label(&label_key("a/b:c")) && !is_image_label("image.stvz.io/not-ready"));
    }

    #[test]
    fn selectors_mean_what_they_mean_to_kubernetes() {
        let labels = [("zone", "a"), ("gpu", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = BTreeMap::from(labels);
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let cases = [
            (Value::Null, true),
            (json!({"matchLabels": {"zone": "a"}}), true),
            (json!({"matchLabels": {"zone": "b"}}), false),
            (expression("zone", "In", &["b", "a"]), true),
            (expression("rack", "In", &["a"]), false),
            (expression("zone", "NotIn", &["a"]), false),
            (expression("rack", "NotIn", &["a"]), true),
            (expression("gpu", "Exists", &[]), true),
            (expression("gpu", "DoesNotExist", &[]), false),
        ];
        for (selector, expected) in cases {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }
}
