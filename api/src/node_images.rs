//! `NodeImages`: what one node is to hold, and what it holds.

#![expect(
    unreachable_pub,
    reason = "the derive repeats the spec inside a function, where nothing is reachable"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "the columns of the derive have the same keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    FailureReason,
    prefetch::{PullPolicy, RemovalPolicy},
};

/// Longest message of a failure, in characters.
pub const MAX_MESSAGE_LENGTH: usize = 512;

/// What one node is to hold.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "image.stvz.io",
    version = "v1alpha1",
    kind = "NodeImages",
    plural = "nodeimages",
    singular = "nodeimages",
    shortname = "ni",
    category = "coral",
    status = "NodeImagesStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "NodeImages has the name of a node and says which images it is to hold (spec, written by the controller) and which it holds (status, written by its agent).",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether the node's agent reaches the container runtime."
    ),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtime.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.runtime.version"),
    printcolumn(name = "Paused", type_ = "string", json_path = ".spec.paused", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeImagesSpec {
    /// Why nothing is pulled on this node for now. Absent when pulls may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseReason>,

    /// Images that are to be, or not to be, on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub images: Vec<DesiredImage>,
}

/// Why a node pulls nothing for now.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PauseReason {
    /// The kubelet says that the disk is nearly full.
    DiskPressure,
    /// The kubelet says that process IDs are nearly used up.
    PIDPressure,
    /// The node is cordoned.
    Cordoned,
}

impl PauseReason {
    /// The reason as it is written in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskPressure => "DiskPressure",
            Self::PIDPressure => "PIDPressure",
            Self::Cordoned => "Cordoned",
        }
    }
}

/// One image that is to be, or not to be, on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredImage {
    /// The normalised reference.
    #[schemars(length(min = 1, max = 639))]
    pub image: String,

    /// What is pulled, looked for, protected and removed in its place: its copy, where pods that name the image are sent to one.
    #[schemars(length(min = 1, max = 767))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_as: Option<String>,

    /// Prefetches that want it, as `namespace/name`; of an image that is to go, those that wanted it last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub requested_by: Vec<String>,

    /// Secrets with credentials, tried in this order, then anonymously.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub pull_secrets: Vec<SecretReference>,

    /// Whether an image that is there is looked up again.
    #[serde(default)]
    pub pull_policy: PullPolicy,

    /// With `Always`: an image whose last successful pull began before this time is pulled again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_after: Option<Time>,

    /// Whether to protect the image from the kubelet's garbage collector.
    #[serde(default)]
    pub pin: bool,

    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,

    /// How long one attempt may take.
    #[schemars(with = "String")]
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// Attempts after which the image counts as failed.
    #[serde(default = "default_backoff_limit")]
    pub backoff_limit: i32,

    /// What becomes of the image when no Prefetch wants it here any more: `Remove` if every Prefetch that wants it says so. It
    /// stands here so that the wish outlives the Prefetch, which can go without waiting for nodes.
    #[serde(default)]
    pub removal_policy: RemovalPolicy,

    /// Whether the image is to be there.
    #[serde(default)]
    pub state: DesiredState,
}

fn default_timeout() -> Duration {
    Duration::from(std::time::Duration::from_mins(10))
}

const fn default_backoff_limit() -> i32 {
    6
}

/// Whether an image is to be on a node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DesiredState {
    /// It is to be there.
    #[default]
    Present,
    /// It is to be taken away, unless something uses it.
    Absent,
    /// It is to be there, but its turn has not come: nothing is pulled, and what is there stays.
    Held,
}

/// A Secret, wherever it is.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub struct SecretReference {
    /// Namespace of the Secret.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What one node holds, as its agent has it from the container runtime.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeImagesStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The container runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeInfo>,

    /// The file system that holds the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_filesystem: Option<FilesystemUsage>,

    /// `Ready` (the agent reaches the runtime), `Accepting` (it would pull now) and, where a pin is wanted, `Pinning` (the runtime
    /// lets Coral pin images).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The images that `spec.images` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub images: Vec<ImageStatus>,
}

/// The container runtime of a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RuntimeInfo {
    /// Name, e.g. `containerd`.
    pub name: String,
    /// Version as the runtime gives it.
    pub version: String,
}

/// Use of a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemUsage {
    /// Bytes that images take.
    pub used_bytes: i64,
    /// Bytes that are free; absent where the agent cannot see the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<i64>,
    /// Size of the file system in bytes; absent where the agent cannot see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<i64>,
}

/// One image on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// The normalised reference.
    pub image: String,

    /// Where it stands.
    pub state: ImageState,

    /// Digest of the image that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// Bytes that it takes on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,

    /// Whether the runtime protects it from the kubelet's garbage collector.
    #[serde(default)]
    pub pinned: bool,

    /// The pull that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullProgress>,

    /// Why it is not there, why it could not be refreshed, or why it still is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ImageFailure>,

    /// When the last successful pull by Coral ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pull_time: Option<Time>,
}

/// Where an image stands on a node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ImageState {
    /// It is there.
    Present,
    /// It is being pulled.
    Pulling,
    /// It is not there, and nothing has gone wrong: its turn has not come, or `failure` says what it waits for.
    Waiting,
    /// The last attempt failed; `failure` says why and when the next begins.
    Failed,
    /// It is not there, as wanted.
    Absent,
}

/// A pull of an image.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullProgress {
    /// When the pull began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Whole seconds that it took; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// Bytes that have arrived; absent where the runtime does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<i64>,
    /// Bytes to pull in all; absent where the runtime does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
}

/// Why an image is not on a node, or still is.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageFailure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// A sentence for people, with the runtime's own words; at most 512 characters.
    pub message: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the next attempt begins or, where the image waits for its turn, may begin; absent when there will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
}
