//! Which images are to have copies, for whom, and who uses them.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{
    ImageReference, Mirror, MirroredImage,
    mirror::Rewrite,
    mirrored_image::{MAX_SAMPLE, UsedBy},
};
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};

use super::pattern;
use crate::{
    destination::holds,
    user::{Kind, Labels, User},
};

/// Most Mirrors that an object names.
const MAX_MIRRORS: usize = 64;

/// The cluster, as far as it is about images.
#[derive(Clone, Copy)]
pub(super) struct Cluster<'a> {
    /// All Mirrors.
    pub(super) mirrors: &'a [&'a Mirror],
    /// Everybody who uses images, ordered.
    pub(super) users: &'a [&'a User],
    /// Labels of the namespaces.
    pub(super) namespaces: &'a BTreeMap<String, Labels>,
    /// The objects that are there.
    pub(super) images: &'a [&'a MirroredImage],
}

/// An image that is to have copies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    pub(super) image: ImageReference,
    /// The Mirrors that want copies, or have made some that stay.
    pub(super) requested_by: Vec<String>,
    /// Those of them that keep their copies up to date.
    pub(super) kept_by: BTreeSet<String>,
    pub(super) rewrite: Rewrite,
    pub(super) used_by: UsedBy,
    /// Whether somebody uses it, or a Mirror names it.
    pub(super) is_used: bool,
}

/// What the users of an image come to.
#[derive(Default)]
struct Use {
    count: i32,
    sample: Vec<String>,
    discovered_by: BTreeSet<usize>,
}

/// Which images are to have copies, by identity.
///
/// A Mirror that has once wanted an image goes on being named until the copies are removed: a copy is there for the time when nobody
/// else has the image, and that may be long after somebody last used it.
pub(super) fn desired(cluster: &Cluster<'_>) -> BTreeMap<String, Wanted> {
    let mirrors = cluster.mirrors;
    let mut uses = uses(cluster);
    // By identity, the Mirrors by their places.
    let mut wanted: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut named: BTreeSet<String> = BTreeSet::new();
    for (place, mirror) in mirrors.iter().enumerate() {
        for image in parsed(&mirror.spec.images) {
            named.insert(image.identity());
            wanted.entry(image.identity()).or_default().insert(place);
        }
    }
    for (identity, found) in &uses {
        if !found.discovered_by.is_empty() {
            let entry = wanted.entry(identity.clone()).or_default();
            entry.extend(&found.discovered_by);
        }
    }
    let by_name: BTreeMap<String, usize> = mirrors
        .iter()
        .enumerate()
        .map(|(place, mirror)| (mirror.name_any(), place))
        .collect();
    for mirrored in cluster.images {
        let Ok(image) = mirrored.spec.image.parse::<ImageReference>() else {
            continue;
        };
        let still_there = mirrored.spec.requested_by.iter().filter_map(|name| by_name.get(name));
        for place in still_there {
            wanted.entry(image.identity()).or_default().insert(*place);
        }
    }
    let mut images = BTreeMap::new();
    for (identity, places) in wanted {
        let Ok(image) = identity.parse::<ImageReference>() else {
            continue;
        };
        // What is a copy itself has none, whatever says so.
        if mirrors.iter().any(|mirror| lies_at(mirror, &image)) {
            continue;
        }
        let found = uses.remove(&identity).unwrap_or_default();
        let is_used = found.count > 0 || named.contains(&identity);
        let mut requested_by: Vec<String> = places.iter().map(|place| mirrors[*place].name_any()).collect();
        requested_by.sort_unstable();
        requested_by.truncate(MAX_MIRRORS);
        let keepers = || {
            let all = places.iter().map(|place| mirrors[*place]);
            all.filter(|mirror| names(mirror, &identity) || !is_excluded(mirror, &image))
        };
        let kept_by = keepers().filter(|mirror| !mirror.spec.suspend);
        images.insert(
            identity.clone(),
            Wanted {
                requested_by,
                kept_by: kept_by.map(kube::ResourceExt::name_any).collect(),
                rewrite: keepers().map(|mirror| mirror.spec.rewrite).max().unwrap_or_default(),
                used_by: UsedBy {
                    count: found.count,
                    sample: found.sample,
                },
                is_used,
                image,
            },
        );
    }
    images
}

/// Who uses which images, and which Mirrors find them there.
fn uses(cluster: &Cluster<'_>) -> BTreeMap<String, Use> {
    let scopes: Vec<(usize, Scope<'_>)> = cluster
        .mirrors
        .iter()
        .enumerate()
        .filter_map(|(place, mirror)| Some((place, Scope::of(mirror, cluster.namespaces)?)))
        .collect();
    let mut excluded: BTreeMap<(usize, &str), bool> = BTreeMap::new();
    let mut uses: BTreeMap<String, Use> = BTreeMap::new();
    for user in cluster.users {
        let finders: Vec<usize> = scopes
            .iter()
            .filter(|(_, scope)| scope.selects(user))
            .map(|(place, _)| *place)
            .collect();
        for identity in &user.images {
            let found = match uses.get_mut(identity) {
                Some(found) => found,
                None => uses.entry(identity.clone()).or_default(),
            };
            found.count = found.count.saturating_add(1);
            if found.sample.len() < MAX_SAMPLE {
                found.sample.push(user.display());
            }
            for place in &finders {
                let is_excluded = *excluded.entry((*place, identity)).or_insert_with(|| {
                    let image = identity.parse::<ImageReference>();
                    image.is_ok_and(|image| is_excluded(cluster.mirrors[*place], &image))
                });
                if !is_excluded {
                    found.discovered_by.insert(*place);
                }
            }
        }
    }
    uses
}

/// Where a Mirror looks for images.
struct Scope<'a> {
    /// `None` stands for all.
    namespaces: Option<BTreeSet<&'a str>>,
    pods: Option<Selector>,
}

impl<'a> Scope<'a> {
    /// `None`: it does not look for images, or nobody can understand where.
    fn of(mirror: &Mirror, namespaces: &'a BTreeMap<String, Labels>) -> Option<Self> {
        let discover = mirror.spec.discover.as_ref()?;
        let selector = |selector: &Option<_>| selector.clone().map(Selector::try_from).transpose().ok();
        let of_namespaces = selector(&discover.namespace_selector)?;
        Some(Self {
            namespaces: of_namespaces.map(|selector| {
                let selected = namespaces.iter().filter(|(_, labels)| selector.matches(labels));
                selected.map(|(name, _)| name.as_str()).collect()
            }),
            pods: selector(&discover.pod_selector)?,
        })
    }

    fn selects(&self, user: &User) -> bool {
        let is_in = |names: &BTreeSet<&str>| names.contains(user.namespace.as_str());
        let has_labels = |selector: &Selector| user.kind != Kind::Prefetch && selector.matches(&user.labels);
        !user.is_history && self.namespaces.as_ref().is_none_or(is_in) && self.pods.as_ref().is_none_or(has_labels)
    }
}

/// Whether an image is left out where this Mirror looks for images.
fn is_excluded(mirror: &Mirror, image: &ImageReference) -> bool {
    let patterns = mirror.spec.discover.iter().flat_map(|discover| &discover.exclude);
    let name = image.name();
    patterns.into_iter().any(|pattern| pattern::matches(pattern, &name))
}

fn names(mirror: &Mirror, identity: &str) -> bool {
    parsed(&mirror.spec.images).any(|image| image.identity() == *identity)
}

fn lies_at(mirror: &Mirror, image: &ImageReference) -> bool {
    mirror
        .spec
        .destinations
        .iter()
        .any(|destination| holds(destination, image))
}

fn parsed(images: &[String]) -> impl Iterator<Item = ImageReference> {
    images.iter().filter_map(|image| image.parse().ok())
}

#[cfg(test)]
mod tests;
