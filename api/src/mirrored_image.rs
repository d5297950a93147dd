//! `MirroredImage`: one image, where its copies are, and who uses it.

#![expect(
    unreachable_pub,
    reason = "the derive repeats the spec inside a function, where nothing is reachable"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "the columns of the derive have the same keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mirror::{CopyFailure, Rewrite};

/// Most entries that `status.usedBy.sample` holds.
pub const MAX_SAMPLE: usize = 8;

/// One image that has, or is to have, copies. Written by Coral; the webhook and people read it.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "image.stvz.io",
    version = "v1alpha1",
    kind = "MirroredImage",
    plural = "mirroredimages",
    shortname = "mimg",
    category = "coral",
    status = "MirroredImageStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "MirroredImage is one image with its copies, named after the hash of its reference. The mirror controller writes it.",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(
        name = "Copies",
        type_ = "string",
        json_path = ".status.destinations[*].state",
        description = "Where each copy stands."
    ),
    printcolumn(
        name = "Origin",
        type_ = "string",
        json_path = ".status.origin.state",
        description = "Whether the original was to be had when it was last looked at."
    ),
    printcolumn(
        name = "Used by",
        type_ = "integer",
        json_path = ".status.usedBy.count",
        description = "Pods, pod templates and Prefetches that name the image."
    ),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.digest", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MirroredImageSpec {
    /// The normalised reference of the original.
    #[schemars(length(min = 1, max = 639))]
    pub image: String,

    /// Names of the Mirrors that want copies of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub requested_by: Vec<String>,

    /// When a new pod uses a copy: the strongest wish of those Mirrors.
    #[serde(default)]
    pub rewrite: Rewrite,
}

/// What is known of an image and its copies.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredImageStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Digest of the original when it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// The copies, in the order in which pods are to prefer them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub destinations: Vec<CopyStatus>,

    /// The original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginStatus>,

    /// Who uses the image.
    #[serde(default)]
    pub used_by: UsedBy,

    /// Since when nobody uses the image; absent while somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Time>,
}

/// One copy of an image.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyStatus {
    /// Name of the Mirror that wants this copy.
    pub mirror: String,

    /// What the copy is called, as Coral reaches it.
    pub reference: String,

    /// What the copy is called on nodes: what a pod that uses it names.
    pub node_reference: String,

    /// Secret in a pod's namespace that the pod needs to pull the copy. Absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_name: Option<String>,

    /// Where the copy stands.
    pub state: CopyState,

    /// Digest of the copy that is there; it may be an older one than the original's while the newer is being copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// Bytes that were sent for this copy, the last time that something was.
    #[serde(default)]
    pub copied_bytes: i64,

    /// When the copy was last seen to equal the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_copy_time: Option<Time>,

    /// Why the copy, or a newer one, is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<CopyFailure>,
}

/// Where a copy stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum CopyState {
    /// It is not there yet.
    #[default]
    Pending,
    /// It is being copied, for the first time.
    Copying,
    /// It is there, whole. `failure` says if a newer one could not be had.
    Present,
    /// It is not there; `failure` says why.
    Failed,
}

/// The original of an image.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginStatus {
    /// Whether it was to be had.
    pub state: OriginState,
    /// When it was last looked at.
    pub checked_at: Time,
    /// A sentence for people when it was not to be had; at most 512 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Whether an original was to be had.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OriginState {
    /// It was there.
    Available,
    /// Its registry says that there is no such image.
    NotFound,
    /// Its registry wants credentials, or refused those it was given.
    Unauthorized,
    /// Its registry asked for fewer requests.
    RateLimited,
    /// Its registry could not be reached, or answered with a server error.
    Unreachable,
}

/// Who uses an image.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct UsedBy {
    /// Pods, pod templates and Prefetches that name it.
    pub count: i32,
    /// Some of them, as `Kind namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub sample: Vec<String>,
}

impl MirroredImage {
    /// The copy that a pod which is created now uses instead of the original; none where it uses the original.
    ///
    /// The webhook, the plugin and the controller ask here, so that what is prefetched is what the kubelet will ask for. Only what was
    /// last looked at counts: an original that nobody has looked at yet is taken to be there.
    #[must_use]
    pub fn replacement(&self) -> Option<&CopyStatus> {
        let status = self.status.as_ref()?;
        let is_gone = |origin: &OriginStatus| origin.state != OriginState::Available;
        let is_wanted = match self.spec.rewrite {
            Rewrite::Never => false,
            Rewrite::OnFailure => status.origin.as_ref().is_some_and(is_gone),
            Rewrite::Always => true,
        };
        let is_usable = |copy: &&CopyStatus| copy.state == CopyState::Present && !copy.node_reference.is_empty();
        status.destinations.iter().find(is_usable).filter(|_| is_wanted)
    }
}

/// The name of the `MirroredImage` of an image.
#[must_use]
pub fn name(image: &crate::ImageReference) -> String {
    let key = image.label_key();
    key.strip_prefix(crate::keys::PREFIX).unwrap_or(&key).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(node_reference: &str, state: CopyState) -> CopyStatus {
        CopyStatus {
            node_reference: node_reference.to_owned(),
            state,
            ..CopyStatus::default()
        }
    }

    fn image(rewrite: Rewrite, origin: Option<OriginState>, destinations: Vec<CopyStatus>) -> MirroredImage {
        let spec = MirroredImageSpec {
            rewrite,
            ..MirroredImageSpec::default()
        };
        let status = MirroredImageStatus {
            destinations,
            origin: origin.map(|state| OriginStatus {
                state,
                checked_at: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
                message: String::new(),
            }),
            ..MirroredImageStatus::default()
        };
        MirroredImage {
            status: Some(status),
            ..MirroredImage::new("a", spec)
        }
    }

    #[test]
    fn copy_replaces_the_original_when_it_is_wanted_and_there() {
        use CopyState::{Copying, Failed, Pending, Present};
        use OriginState::{Available, NotFound, RateLimited, Unauthorized, Unreachable};
        use Rewrite::{Always, Never, OnFailure};
        type Case = (
            Rewrite,
            Option<OriginState>,
            &'static [(&'static str, CopyState)],
            Option<&'static str>,
        );
        let there: &[_] = &[("a/x", Present)];
        let cases: &[Case] = &[
            (Never, None, there, None),
            (Never, Some(Unreachable), there, None),
            (OnFailure, None, there, None),
            (OnFailure, Some(Available), there, None),
            (OnFailure, Some(NotFound), there, Some("a/x")),
            (OnFailure, Some(Unauthorized), there, Some("a/x")),
            (OnFailure, Some(RateLimited), there, Some("a/x")),
            (OnFailure, Some(Unreachable), there, Some("a/x")),
            (OnFailure, Some(Unreachable), &[("a/x", Failed)], None),
            (Always, None, there, Some("a/x")),
            (Always, Some(Available), there, Some("a/x")),
            (Always, Some(Available), &[], None),
            (
                Always,
                None,
                &[("a/x", Pending), ("b/x", Copying), ("c/x", Failed)],
                None,
            ),
            (
                Always,
                None,
                &[("a/x", Failed), ("b/x", Present), ("c/x", Present)],
                Some("b/x"),
            ),
            (Always, None, &[("", Present), ("b/x", Present)], Some("b/x")),
        ];
        for (rewrite, origin, copies, expected) in cases {
            let copies = copies
                .iter()
                .map(|(reference, state)| copy(reference, *state))
                .collect();
            let image = image(*rewrite, *origin, copies);
            let replacement = image.replacement().map(|copy| copy.node_reference.as_str());
            assert_eq!(replacement, *expected, "{rewrite:?} {origin:?} {:?}", image.status);
        }
    }

    #[test]
    fn image_without_a_status_keeps_its_original() {
        let spec = MirroredImageSpec {
            rewrite: Rewrite::Always,
            ..MirroredImageSpec::default()
        };
        assert_eq!(MirroredImage::new("a", spec).replacement(), None);
    }
}
