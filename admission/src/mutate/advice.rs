//! What a person would want to know, although it is no reason to refuse.

use std::collections::{BTreeSet, HashMap};

use coral_api::{ImageReference, keys};

use super::{
    Kind,
    pod::Places,
    tree::Entries,
    wish::{Containers, Placement, PullPolicy, WRITTEN, Wish, shortened},
};

/// How many images one warning names. Clients cut long warnings.
const NAMED: usize = 3;
/// Tags that people move.
const MOVING: [&str; 13] = [
    "alpha", "beta", "canary", "dev", "develop", "edge", "head", "latest", "main", "master", "nightly", "snapshot",
    "stable",
];

/// The images that are being prefetched, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Whether the image is looked for again from time to time, as `pullPolicy: Always` does.
    images: HashMap<ImageReference, bool>,
}

impl Coverage {
    /// Adds an image of a Prefetch.
    pub fn insert(&mut self, image: ImageReference, is_refreshed: bool) {
        *self.images.entry(image).or_default() |= is_refreshed;
    }
}

/// The warnings about a wish.
pub(super) fn advice(kind: Kind, wish: &Wish, places: &Places<'_>, coverage: Option<&Coverage>) -> Vec<String> {
    let mut warnings = names(wish, places);
    if wish.is_nothing() {
        return warnings;
    }
    let is_required = wish.placement == Some(Placement::Required);
    let is_never = wish.pull_policy == Some(PullPolicy::Never);
    if wish.placement.is_some() && places.is_bound {
        warnings.push("the pod has a node already (spec.nodeName); nothing is injected that would place it".to_owned());
    }
    let mut images = Vec::with_capacity(places.containers.len());
    for container in places.chosen(wish) {
        match &container.image {
            Some(Ok(image)) => images.push(image),
            Some(Err(error)) => warnings.push(format!("the placement leaves out a container: {error}")),
            None => {}
        }
    }
    if let Some(coverage) = coverage {
        let missing = images.iter().filter(|image| !coverage.images.contains_key(**image));
        let consequence = if is_required {
            "pods stay Pending until one does"
        } else if is_never {
            "with pull policy Never, pods fail on nodes without it"
        } else {
            "nothing brings it to a node before a pod needs it"
        };
        warnings.extend(listed(missing).map(|images| format!("no Prefetch covers {images}: {consequence}")));
    }
    if is_never {
        let moving = images.iter().filter(|image| {
            let is_refreshed = coverage.is_some_and(|coverage| coverage.images.get(**image) == Some(&true));
            image.digest().is_none() && image.tag().is_some_and(is_moving) && !is_refreshed
        });
        warnings.extend(listed(moving).map(|images| {
            format!(
                "the tag of {images} moves, and pull policy Never keeps what a node has; a Prefetch with pullPolicy: Always renews it"
            )
        }));
        if !is_required {
            warnings.push(
                "pull policy Never without required placement: pods fail on nodes without their images".to_owned(),
            );
        }
    }
    if kind == Kind::DaemonSet && is_required {
        warnings.push(format!(
            "a DaemonSet with required placement has no pod on nodes without the images, and loses it when they go; see {}: preferred",
            keys::PLACEMENT_ANNOTATION
        ));
    }
    warnings
}

/// Annotations under our prefix that have no meaning on such an object.
pub(super) fn unknown_annotations(annotations: &Entries<'_>) -> Vec<String> {
    let written_by_coral = [keys::INJECTED_ANNOTATION, keys::ORIGINAL_IMAGES_ANNOTATION];
    let known = |key: &str| WRITTEN.contains(&key) || written_by_coral.contains(&key);
    let unknown = annotations
        .iter()
        .map(|(key, _)| key)
        .filter(|key| key.starts_with(keys::PREFIX) && !known(key));
    unknown
        .take(NAMED)
        .map(|key| {
            let valid: Vec<&str> = WRITTEN
                .iter()
                .filter_map(|key| key.strip_prefix(keys::PREFIX))
                .collect();
            format!(
                "annotation {} means nothing to Coral; known are {}{}",
                shortened(key),
                keys::PREFIX,
                valid.join(", ")
            )
        })
        .collect()
}

/// Names that no container has. Another webhook may add such a container later, so it is no mistake for certain.
fn names(wish: &Wish, places: &Places<'_>) -> Vec<String> {
    let (Containers::Only(names) | Containers::AllBut(names)) = &wish.containers else {
        return Vec::new();
    };
    let there: BTreeSet<&str> = places
        .containers
        .iter()
        .filter_map(|container| container.name)
        .collect();
    let missing = names.iter().filter(|name| !there.contains(name.as_str()));
    missing
        .take(NAMED)
        .map(|name| {
            let annotation = match wish.containers {
                Containers::Only(_) => keys::INCLUDE_ANNOTATION,
                _ => keys::EXCLUDE_ANNOTATION,
            };
            format!(
                "annotation {annotation} names {:?}, and there is no such container",
                shortened(name)
            )
        })
        .collect()
}

fn is_moving(tag: &str) -> bool {
    MOVING.iter().any(|moving| moving.eq_ignore_ascii_case(tag))
}

/// The images in their order, each once.
fn listed<'a>(images: impl Iterator<Item = &'a &'a ImageReference>) -> Option<String> {
    let images: BTreeSet<&ImageReference> = images.copied().collect();
    let named = images.iter().take(NAMED).map(|image| shortened(&image.familiar()));
    let named = named.collect::<Vec<_>>().join(", ");
    match images.len() {
        0 => None,
        number if number <= NAMED => Some(named),
        number => Some(format!("{named} and {} more", number - NAMED)),
    }
}
