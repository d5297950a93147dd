//! `Prefetch`: these images on those nodes.

#![expect(
    unreachable_pub,
    reason = "the derive repeats the spec inside a function, where nothing is reachable"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "the columns of the derive have the same keys"
)]

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FailureReason, schema};

/// Most entries that `status.failures` holds.
pub const MAX_FAILURES: usize = 32;

/// What somebody wants: these images on those nodes.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "image.stvz.io",
    version = "v1alpha1",
    kind = "Prefetch",
    plural = "prefetches",
    shortname = "pf",
    category = "coral",
    namespaced,
    status = "PrefetchStatus",
    derive = "PartialEq",
    doc = "Prefetch makes images be on nodes before a pod needs them.",
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes.desired",
        description = "Nodes that are to hold the images."
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.nodes.ready",
        description = "Nodes that hold every image."
    ),
    printcolumn(
        name = "Images",
        type_ = "integer",
        json_path = ".status.imageCount",
        description = "Images that this Prefetch names."
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.nodes.failed",
        description = "Nodes on which at least one image failed."
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why it is ready or not.",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.mode == 'Once' || !has(self.ttlSecondsAfterFinished)")
        .message("ttlSecondsAfterFinished needs mode Once: a Prefetch that keeps its images never finishes")
        .field_path(".ttlSecondsAfterFinished"),
    validation = Rule::new("self.pullPolicy == 'Always' || !has(self.refreshInterval)")
        .message("refreshInterval needs pullPolicy Always: with IfNotPresent an image that is there is not looked up again")
        .field_path(".refreshInterval")
)]
#[serde(rename_all = "camelCase")]
pub struct PrefetchSpec {
    /// Images to hold, 1 to 256, each once. Short names mean Docker Hub, as everywhere: `nginx` is `docker.io/library/nginx:latest`.
    #[schemars(schema_with = "schema::images")]
    pub images: Vec<String>,

    /// Which nodes are to hold the images, by their labels. Absent means every Linux node.
    #[schemars(schema_with = "schema::node_selector")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,

    /// Secrets in this namespace with credentials for the registries, tried in this order, then anonymously.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<PullSecretReference>,

    /// Whether an image that is on the node is looked up again.
    #[serde(default)]
    pub pull_policy: PullPolicy,

    /// How often `Always` looks again; `0s` means only on demand, by the annotation `image.stvz.io/refresh`. Absent means 15m.
    #[schemars(schema_with = "schema::refresh_interval")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<Duration>,

    /// Whether the images are kept on the nodes, or fetched once.
    #[serde(default)]
    pub mode: Mode,

    /// Seconds after which a finished Prefetch of mode `Once` is deleted. Absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// How many of the nodes pull at the same time: a number, or a share of the selected nodes, rounded up.
    #[schemars(schema_with = "schema::parallelism")]
    #[serde(default = "default_parallelism")]
    pub parallelism: IntOrString,

    /// Higher goes first, on every node.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,

    /// How long one attempt at one image on one node may take.
    #[schemars(schema_with = "schema::timeout", extend("default" = "10m"))]
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// Attempts after which an image counts as failed on a node. `Keep` goes on trying, slowly.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub backoff_limit: i32,

    /// Protects the images from the kubelet's garbage collector, where the container runtime can.
    #[serde(default)]
    pub pin: bool,

    /// New nodes keep their startup taint until this Prefetch is there.
    #[serde(default)]
    pub gate: bool,

    /// What becomes of an image when the Prefetch is deleted or no longer names it.
    #[serde(default)]
    pub removal_policy: RemovalPolicy,

    /// Begins no further pulls while true.
    #[serde(default)]
    pub suspend: bool,
}

impl PrefetchSpec {
    /// A Prefetch of these images with everything else at its default.
    #[must_use]
    pub fn new(images: Vec<String>) -> Self {
        Self {
            images,
            node_selector: None,
            image_pull_secrets: Vec::new(),
            pull_policy: PullPolicy::default(),
            refresh_interval: None,
            mode: Mode::default(),
            ttl_seconds_after_finished: None,
            parallelism: default_parallelism(),
            priority: 0,
            timeout: default_timeout(),
            backoff_limit: default_backoff_limit(),
            pin: false,
            gate: false,
            removal_policy: RemovalPolicy::default(),
            suspend: false,
        }
    }
}

fn default_parallelism() -> IntOrString {
    IntOrString::String("25%".to_owned())
}

fn default_timeout() -> Duration {
    Duration::from(std::time::Duration::from_mins(10))
}

const fn default_backoff_limit() -> i32 {
    6
}

/// A Secret in the namespace of the Prefetch.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PullSecretReference {
    /// Name of a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Whether an image that is on the node is looked up again.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PullPolicy {
    /// An image that is there is not pulled again.
    #[default]
    IfNotPresent,
    /// A moving tag is resolved again at every refresh.
    Always,
}

/// Whether images are kept on the nodes, or fetched once.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Mode {
    /// New nodes get the images, and deleted images come back.
    #[default]
    Keep,
    /// Done when every selected node has held every image, or failed.
    Once,
}

/// What becomes of an image that is no longer wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RemovalPolicy {
    /// It stays, and the kubelet may collect it.
    #[default]
    Retain,
    /// It is taken off the nodes, unless something uses it.
    Remove,
}

/// What the controller has seen of a Prefetch.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefetchStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Reconciling` and `Stalled`, each with a reason and a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The selected nodes, counted.
    #[serde(default)]
    pub nodes: NodeCounts,

    /// Images that the Prefetch names; two spellings of one image count once.
    #[serde(default)]
    pub image_count: i32,

    /// The images, each with the nodes counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub images: Vec<ImageCounts>,

    /// What went wrong, newest first, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub failures: Vec<NodeFailure>,

    /// When the controller first acted on this Prefetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When a Prefetch of mode `Once` finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// The nodes of a Prefetch, counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NodeCounts {
    /// Nodes that are to hold the images.
    pub desired: i32,
    /// Nodes that hold every image.
    pub ready: i32,
    /// Nodes that pull at least one of the images now.
    pub pulling: i32,
    /// Nodes on which at least one image failed.
    pub failed: i32,
}

/// One image of a Prefetch, with its nodes counted.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ImageCounts {
    /// The image as the Prefetch names it.
    pub image: String,
    /// Nodes that are to hold it.
    pub desired: i32,
    /// Nodes that hold it.
    pub available: i32,
    /// Nodes that pull it now.
    pub pulling: i32,
    /// Nodes on which it failed.
    pub failed: i32,
    /// Digests that the nodes hold. More than one means that nodes disagree about a moving tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub digests: Vec<String>,
}

/// Why one image is not on one node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFailure {
    /// Name of the node; empty when the failure is not about one node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The image as the Prefetch names it.
    pub image: String,
    /// The kind of failure.
    pub reason: FailureReason,
    /// A sentence for people, with the runtime's own words.
    pub message: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the next attempt begins; absent when there will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
}
