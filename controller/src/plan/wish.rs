//! A Prefetch, read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use coral_api::{ImageReference, InvalidReference, Prefetch, conditions, keys, prefetch::Mode, prefetch::PullPolicy};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{
    ResourceExt as _,
    core::{Expression, Selector, SelectorExt as _},
};

use super::{
    NodeView,
    copies::{Copied, Copies},
};

/// How often `Always` looks again where the Prefetch does not say.
const DEFAULT_REFRESH_INTERVAL: SignedDuration = SignedDuration::from_mins(15);

/// Number of an image in the [`Catalogue`]. Numbers have the order of the names.
pub(super) type ImageNumber = usize;

/// The images that some Prefetch names, each read once however many nodes it is for.
pub(super) struct Catalogue {
    images: Vec<CataloguedImage>,
    numbers: HashMap<String, ImageNumber>,
}

/// An image that some Prefetch names.
pub(super) struct CataloguedImage {
    /// The name that nodes are asked for.
    pub(super) name: String,
    /// Key of the node label that says that the image is there.
    pub(super) label: String,
    /// The copy to which pods that name the image are sent, and so what nodes are to hold.
    pub(super) copy: Option<Copied>,
}

impl Catalogue {
    pub(super) fn number(&self, name: &str) -> Option<ImageNumber> {
        self.numbers.get(name).copied()
    }

    pub(super) fn image(&self, number: ImageNumber) -> &CataloguedImage {
        &self.images[number]
    }
}

/// A Prefetch, read.
pub(super) struct Wish<'a> {
    /// `namespace/name`.
    pub(super) key: String,
    pub(super) prefetch: &'a Prefetch,
    /// The images in the order of their names.
    pub(super) images: Vec<WishedImage<'a>>,
    /// What is no image reference. The schema refuses nearly all of it.
    pub(super) invalid: Vec<InvalidReference>,
    /// How long one attempt may take.
    pub(super) timeout: SignedDuration,
    /// What is wrong with a selector that cannot be understood; such a one selects nothing. The schema refuses nearly all of them.
    pub(super) selector: Result<Selector, String>,
    /// Whether it was to be done once and is done.
    pub(super) is_complete: bool,
}

/// An image that a Prefetch names.
pub(super) struct WishedImage<'a> {
    pub(super) number: ImageNumber,
    /// As the Prefetch spells it first.
    pub(super) spelling: &'a str,
}

/// Reads every Prefetch.
pub(super) fn read<'a>(prefetches: &[&'a Prefetch], mut copies: Copies) -> (Catalogue, Vec<Wish<'a>>) {
    let mut wishes = Vec::with_capacity(prefetches.len());
    let mut names: Vec<BTreeMap<String, &'a str>> = Vec::with_capacity(prefetches.len());
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for prefetch in prefetches {
        let mut spellings = BTreeMap::new();
        let mut invalid = Vec::new();
        for spelling in &prefetch.spec.images {
            match spelling.parse::<ImageReference>() {
                Ok(image) => {
                    let name = image.identity();
                    labels.entry(name.clone()).or_insert_with(|| image.label_key());
                    spellings.entry(name).or_insert(spelling.as_str());
                }
                Err(error) => invalid.push(error),
            }
        }
        let timeout = std::time::Duration::from(prefetch.spec.timeout);
        names.push(spellings);
        wishes.push(Wish {
            key: format!("{}/{}", prefetch.namespace().unwrap_or_default(), prefetch.name_any()),
            prefetch,
            images: Vec::new(),
            invalid,
            timeout: SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX),
            selector: selector(prefetch),
            is_complete: false,
        });
    }
    let numbers: HashMap<String, ImageNumber> = labels.keys().cloned().zip(0..).collect();
    for (wish, spellings) in wishes.iter_mut().zip(names) {
        wish.images = spellings
            .into_iter()
            .map(|(name, spelling)| WishedImage {
                number: numbers[&name],
                spelling,
            })
            .collect();
        wish.is_complete = is_complete(wish);
    }
    let images = labels
        .into_iter()
        .map(|(name, label)| CataloguedImage {
            copy: copies.remove(&name),
            name,
            label,
        })
        .collect();
    (Catalogue { images, numbers }, wishes)
}

fn selector(prefetch: &Prefetch) -> Result<Selector, String> {
    let selector = prefetch.spec.node_selector.clone().unwrap_or_default();
    let expressions = selector.match_expressions.clone().unwrap_or_default();
    Selector::try_from(selector).map_err(|error| {
        let mut expressions = expressions.into_iter();
        let wrong = expressions.find(|expression| Expression::try_from(expression.clone()).is_err());
        wrong.map_or_else(
            || error.to_string(),
            |wrong| {
                format!(
                    "the expression with key {} and operator {} is not valid",
                    wrong.key, wrong.operator
                )
            },
        )
    })
}

/// Whether a Prefetch of mode `Once` is done. One that names an image that it did not name then begins anew.
fn is_complete(wish: &Wish<'_>) -> bool {
    let Some(status) = &wish.prefetch.status else {
        return false;
    };
    let counted: HashSet<&str> = status.images.iter().map(|counts| counts.image.as_str()).collect();
    wish.prefetch.spec.mode == Mode::Once
        && status.completion_time.is_some()
        && wish.images.iter().all(|image| counted.contains(image.spelling))
}

impl Wish<'_> {
    /// Whether the node is one of those that are to hold the images, by its labels.
    pub(super) fn selects(&self, node: &NodeView<'_>) -> bool {
        node.is_linux
            && self.prefetch.metadata.deletion_timestamp.is_none()
            && self
                .selector
                .as_ref()
                .is_ok_and(|selector| selector.matches(node.node.labels()))
    }

    /// Whether it begins no further pulls: it is suspended, or was to be done once and is done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.prefetch.spec.suspend || self.is_complete
    }

    /// Its place among those that give turns: by priority, then whoever came first.
    pub(super) fn order(&self) -> impl Ord + use<'_> {
        let created = self.prefetch.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(self.prefetch.spec.priority), created, &self.key)
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
        let latest = [Some(created), by_interval, on_demand].into_iter().flatten().max()?;
        // Whole seconds, as the object of the node will have it.
        Some(conditions::time(latest).0)
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
                read(&[&prefetch], Copies::new()).1[0].parallelism(selected),
                slots,
                "{parallelism} of {selected}"
            );
        }
    }

    #[test]
    fn spellings_of_one_image_are_one_wish() {
        let prefetch = prefetch(&serde_json::json!({"images": ["nginx", "docker.io/library/nginx:latest", "Bad"]}));
        let (catalogue, wishes) = read(&[&prefetch], Copies::new());
        let images: Vec<_> = wishes[0]
            .images
            .iter()
            .map(|image| (image.number, image.spelling))
            .collect();
        assert_eq!(images, [(0, "nginx")]);
        assert_eq!(catalogue.image(0).name, "docker.io/library/nginx:latest");
        assert_eq!(wishes[0].invalid.len(), 1);
    }

    #[test]
    fn refresh_comes_round_with_the_interval_and_on_demand() {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut prefetch =
            prefetch(&serde_json::json!({"images": ["a"], "pullPolicy": "Always", "refreshInterval": "10m"}));
        let after = |prefetch: &Prefetch, minutes| {
            read(&[prefetch], Copies::new()).1[0].refresh_after("node-1", created + SignedDuration::from_mins(minutes))
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
