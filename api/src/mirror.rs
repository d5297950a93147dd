//! `Mirror`: copies of these images in a registry of one's own.

#![expect(
    unreachable_pub,
    reason = "the derive repeats the spec inside a function, where nothing is reachable"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "the columns of the derive have the same keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FailureReason, node_images::SecretReference, schema};

/// Most entries that `status.failures` holds.
pub const MAX_FAILURES: usize = 32;

/// Which images are copied, and where to.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "image.stvz.io",
    version = "v1alpha1",
    kind = "Mirror",
    plural = "mirrors",
    shortname = "mi",
    category = "coral",
    status = "MirrorStatus",
    derive = "PartialEq",
    doc = "Mirror keeps copies of images in registries that the cluster can rely on.",
    printcolumn(
        name = "Images",
        type_ = "integer",
        json_path = ".status.images.desired",
        description = "Images that are to have copies."
    ),
    printcolumn(
        name = "Copied",
        type_ = "integer",
        json_path = ".status.images.copied",
        description = "Images that every destination has."
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.images.failed",
        description = "Images of which a copy failed."
    ),
    printcolumn(
        name = "Rewrite",
        type_ = "string",
        json_path = ".spec.rewrite",
        description = "When new pods use the copies."
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
    validation = Rule::new("has(self.discover) || (has(self.images) && size(self.images) > 0)")
        .message("images or discover must say which images to copy")
        .field_path(".images")
)]
#[serde(rename_all = "camelCase")]
pub struct MirrorSpec {
    /// Images to copy, at most 256, each once.
    #[schemars(schema_with = "schema::any_images")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,

    /// Copies also what the cluster uses: images of pods, of workloads' pod templates, and of Prefetches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<Discover>,

    /// Secrets with credentials for the originals' registries, tried in this order, then anonymously.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub source_secrets: Vec<SecretReference>,

    /// How registries of originals are reached, where that is not TLS with a certificate of the public authorities. Each registry once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["registry"])
    )]
    pub sources: Vec<Source>,

    /// Where copies are put. More than one: each image goes to each.
    #[schemars(length(min = 1, max = 8))]
    pub destinations: Vec<Destination>,

    /// Platforms whose images are copied, such as `linux/amd64`; none stands for all. The index, and so the digest, stays what it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::platforms")]
    pub platforms: Vec<String>,

    /// When a new pod uses the copy instead of the original.
    #[serde(default)]
    pub rewrite: Rewrite,

    /// How often originals are looked at again. Absent means 1h.
    #[schemars(schema_with = "schema::refresh_interval")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<Duration>,

    /// When copies that nobody needs any more go. Absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,

    /// Copies and removes nothing while true. Pods go on being sent to copies that are there.
    #[serde(default)]
    pub suspend: bool,
}

/// Which of the images that the cluster uses are copied.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Discover {
    /// Only what is used in these namespaces, by their labels. Absent means all.
    #[schemars(schema_with = "schema::object_selector")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Only what pods and pod templates with these labels use; Prefetches are then left out. Absent means all.
    #[schemars(schema_with = "schema::object_selector")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,

    /// Images that are left out, by patterns over their normalised names without tag and digest: `*` stands for anything within one
    /// part of the path, `**` for any number of parts, as in `*.internal/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::patterns")]
    pub exclude: Vec<String>,
}

/// How a registry of originals is reached.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.caSecretName) != self.plainHttp")
        .message("either caSecretName or plainHttp: true must say how the registry is reached")
)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Host, with port where it is not that of the protocol, as in the names of its images.
    #[schemars(schema_with = "schema::registry_host")]
    pub registry: String,

    /// Secret in Coral's namespace whose `ca.crt` signs the registry's certificate, and those of the places that it points to. It counts for
    /// no other registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: Option<String>,

    /// Speaks HTTP without TLS to the registry. Credentials are then open to whoever listens, and images to whoever changes them on the way.
    #[serde(default)]
    pub plain_http: bool,
}

/// A registry that holds copies.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Host, with port where it is not that of the protocol, as Coral reaches the registry from within the cluster.
    #[schemars(schema_with = "schema::registry_host")]
    pub registry: String,

    /// Host and port by which nodes reach the registry. Absent means the same as `registry`.
    #[schemars(schema_with = "schema::optional_registry_host")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<String>,

    /// Path that all copies have in front of theirs.
    #[schemars(schema_with = "schema::repository_prefix")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repository_prefix: String,

    /// Secret in Coral's namespace with credentials to push. Absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,

    /// Secret in Coral's namespace whose `ca.crt` signs the registry's certificate. Absent means the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: Option<String>,

    /// Secret, in the namespace of each pod that is sent here, that the pod needs to pull; it is added to the pod's `imagePullSecrets`.
    /// Absent means that nodes need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pull_secret_name: Option<String>,

    /// Speaks HTTP without TLS to the registry. Credentials and images are then open to whoever listens.
    #[serde(default)]
    pub plain_http: bool,

    /// How the names of copies are made.
    #[serde(default)]
    pub naming: Naming,
}

/// How the name of a copy is made from that of the original.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Naming {
    /// Host and path are kept: `docker.io/library/nginx`.
    #[default]
    Path,
    /// One level, with a hash of the name. For registries without nested repositories.
    Flat,
}

/// When a new pod uses the copy instead of the original. Later is stronger where Mirrors of one image disagree.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Rewrite {
    /// Never.
    #[default]
    Never,
    /// While the original was not to be had when it was last looked at.
    OnFailure,
    /// Whenever there is a copy.
    Always,
}

/// When copies that nobody needs any more go.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How long an image has had no user (no pod, pod template, Prefetch, `spec.images`, or mark of another cluster) when its copies go.
    #[schemars(schema_with = "schema::retention")]
    pub unused_for: Duration,
}

/// What has become of a Mirror.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Reconciling` and `Stalled`, each with a reason and a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The images, counted.
    #[serde(default)]
    pub images: MirrorCounts,

    /// What went wrong, newest first, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub failures: Vec<MirrorFailure>,
}

/// The images of a Mirror, counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct MirrorCounts {
    /// Images that are to have copies.
    pub desired: i32,
    /// Images that every destination has.
    pub copied: i32,
    /// Images that are being copied now.
    pub copying: i32,
    /// Images of which a copy failed.
    pub failed: i32,
}

/// Why one copy is not there.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorFailure {
    /// The normalised reference of the original.
    pub image: String,
    /// The registry that was to have it; empty when the failure is about the original.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// What went wrong.
    #[serde(flatten)]
    pub failure: CopyFailure,
}

/// Why a copy is not there.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyFailure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// A sentence for people, with the registry's own words; at most 512 characters.
    pub message: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the next attempt begins; absent when there will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
}
