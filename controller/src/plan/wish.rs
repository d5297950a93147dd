//! A Prefetch, read.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use coral_api::{ImageReference, InvalidReference, Prefetch, keys, prefetch::Mode, prefetch::PullPolicy};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::util::intstr::IntOrString};
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};

/// How often `Always` looks again where the Prefetch does not say.
const DEFAULT_REFRESH_INTERVAL: SignedDuration = SignedDuration::from_mins(15);

/// A Prefetch, read.
pub(super) struct Wish<'a> {
    /// `namespace/name`.
    pub(super) key: String,
    pub(super) prefetch: &'a Prefetch,
    /// The images by the name that nodes are asked for, each with the first spelling of the Prefetch.
    pub(super) images: BTreeMap<String, &'a str>,
    /// What is no image reference. The schema refuses nearly all of it.
    pub(super) invalid: Vec<InvalidReference>,
    /// None when the selector cannot be understood, which selects nothing.
    selector: Option<Selector>,
}

impl<'a> Wish<'a> {
    pub(super) fn new(prefetch: &'a Prefetch) -> Self {
        let mut images = BTreeMap::new();
        let mut invalid = Vec::new();
        for spelling in &prefetch.spec.images {
            match spelling.parse::<ImageReference>() {
                Ok(image) => {
                    images.entry(image.identity()).or_insert(spelling.as_str());
                }
                Err(error) => invalid.push(error),
            }
        }
        let selector = prefetch.spec.node_selector.clone().unwrap_or_default();
        Self {
            key: format!("{}/{}", prefetch.namespace().unwrap_or_default(), prefetch.name_any()),
            prefetch,
            images,
            invalid,
            selector: Selector::try_from(selector).ok(),
        }
    }

    /// Whether the node is one of those that are to hold the images, by its labels.
    pub(super) fn selects(&self, node: &Node) -> bool {
        crate::node::is_linux(node)
            && self.prefetch.metadata.deletion_timestamp.is_none()
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(node.labels()))
    }

    /// Whether it begins no further pulls: it is suspended, or was to be done once and is done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.prefetch.spec.suspend || self.is_complete()
    }

    /// Whether it was to be done once and is done.
    pub(super) fn is_complete(&self) -> bool {
        let completion_time = self
            .prefetch
            .status
            .as_ref()
            .and_then(|status| status.completion_time.as_ref());
        self.prefetch.spec.mode == Mode::Once && completion_time.is_some()
    }

    /// How many of `selected` nodes may pull at the same time; at least one.
    pub(super) fn parallelism(&self, selected: usize) -> usize {
        let slots = match &self.prefetch.spec.parallelism {
            IntOrString::Int(number) => usize::try_from(*number).unwrap_or(1),
            IntOrString::String(share) => share
                .strip_suffix('%')
                .and_then(|percent| percent.parse::<usize>().ok())
                .map_or(1, |percent| selected.saturating_mul(percent).div_ceil(100)),
        };
        slots.max(1)
    }

    /// With `Always`, the time after which a node's last pull is fresh enough. Nodes look at different times within a fifth of the
    /// interval, so that they do not all knock at the registry at once.
    pub(super) fn refresh_after(&self, node: &str, now: Timestamp) -> Option<Timestamp> {
        if self.prefetch.spec.pull_policy != PullPolicy::Always {
            return None;
        }
        let created = self.prefetch.creation_timestamp()?.0;
        let interval = self
            .prefetch
            .spec
            .refresh_interval
            .map_or(DEFAULT_REFRESH_INTERVAL, |interval| {
                SignedDuration::try_from(std::time::Duration::from(interval)).unwrap_or(SignedDuration::MAX)
            });
        let by_interval = last_tick(created, interval, node, now);
        let on_demand = self
            .prefetch
            .annotations()
            .get(keys::REFRESH_ANNOTATION)
            .and_then(|time| time.parse::<Timestamp>().ok())
            .filter(|time| *time <= now);
        [Some(created), by_interval, on_demand].into_iter().flatten().max()
    }
}

/// The last time at which the interval, counted from `created` and shifted by the node's share, came round.
fn last_tick(created: Timestamp, interval: SignedDuration, node: &str, now: Timestamp) -> Option<Timestamp> {
    let seconds = interval.as_secs();
    if seconds <= 0 {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    let spread = u64::try_from(seconds / 5).unwrap_or(0).max(1);
    let shift = i64::try_from(hasher.finish() % spread).unwrap_or(0);
    let elapsed = now.as_second() - created.as_second() - shift;
    if elapsed < seconds {
        return None;
    }
    Timestamp::from_second(created.as_second() + shift + elapsed / seconds * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefetch(spec: &serde_json::Value) -> Prefetch {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn parallelism_is_a_number_or_a_share_rounded_up() {
        for (parallelism, selected, slots) in [
            (serde_json::json!(3), 10, 3),
            (serde_json::json!("25%"), 2, 1),
            (serde_json::json!("25%"), 5, 2),
            (serde_json::json!("100%"), 7, 7),
            (serde_json::json!("1%"), 0, 1),
            (serde_json::json!("nonsense"), 9, 1),
            (serde_json::json!(-4), 9, 1),
        ] {
            let prefetch = prefetch(&serde_json::json!({"images": ["a"], "parallelism": parallelism}));
            assert_eq!(
                Wish::new(&prefetch).parallelism(selected),
                slots,
                "{parallelism} of {selected}"
            );
        }
    }

    #[test]
    fn spellings_of_one_image_are_one_wish() {
        let prefetch = prefetch(&serde_json::json!({"images": ["nginx", "docker.io/library/nginx:latest", "Bad"]}));
        let wish = Wish::new(&prefetch);
        assert_eq!(
            wish.images,
            BTreeMap::from([("docker.io/library/nginx:latest".to_owned(), "nginx")])
        );
        assert_eq!(wish.invalid.len(), 1);
    }

    #[test]
    fn refresh_comes_round_with_the_interval_and_on_demand() {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut prefetch =
            prefetch(&serde_json::json!({"images": ["a"], "pullPolicy": "Always", "refreshInterval": "10m"}));
        let after = |prefetch: &Prefetch, minutes| {
            Wish::new(prefetch).refresh_after("node-1", created + SignedDuration::from_mins(minutes))
        };
        assert_eq!(after(&prefetch, 5), Some(created));
        let first = after(&prefetch, 13).unwrap();
        assert!(first >= created + SignedDuration::from_mins(10) && first <= created + SignedDuration::from_mins(12));
        assert_eq!(after(&prefetch, 19), Some(first));
        assert_eq!(after(&prefetch, 23), Some(first + SignedDuration::from_mins(10)));

        prefetch
            .annotations_mut()
            .insert(keys::REFRESH_ANNOTATION.into(), "2026-01-01T00:07:00Z".into());
        assert_eq!(after(&prefetch, 5), Some(created));
        assert_eq!(after(&prefetch, 8), Some(created + SignedDuration::from_mins(7)));
        prefetch.spec.pull_policy = PullPolicy::IfNotPresent;
        assert_eq!(after(&prefetch, 8), None);
    }
}
