//! What is done, and in which order. Pure: it knows what the images are made of and what the destinations have, and asks nobody.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use coral_registry::Descriptor;

/// A repository in a registry.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Repository {
    /// Host, with the port if there is one.
    pub(crate) registry: String,
    /// Path in the registry.
    pub(crate) path: String,
}

/// The blobs that one image needs at its destination.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) source: Repository,
    pub(crate) destination: Repository,
    pub(crate) blobs: Vec<Descriptor>,
}

/// A blob, and how it comes to a repository of the destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    pub(crate) source: Repository,
    pub(crate) destination: Repository,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) step: Step,
    /// The placement that has to be through before this one, by its place in the list.
    pub(crate) after: Option<usize>,
}

/// How a blob comes to a repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// It is there.
    Present,
    /// The registry takes it from another of its repositories, or it is sent where the registry does not do that.
    Mount {
        /// Path of the other repository.
        from: String,
    },
    /// It is sent.
    Send,
}

impl Placement {
    /// Digest of the blob.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Size of the blob in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How it comes there.
    #[must_use]
    pub const fn step(&self) -> &Step {
        &self.step
    }
}

/// Blobs that a repository has.
pub(crate) type Presence = BTreeSet<(Repository, String)>;

/// How all blobs of all images come to their destinations: each is sent once to each registry, the largest first, so that none of them is
/// left alone at the end. Also gives, for each image, the placements that it needs.
pub(crate) fn place(images: &[Wanted], presence: &Presence) -> (Vec<Placement>, Vec<Vec<usize>>) {
    // By registry and blob: where it is wanted, and from where.
    let mut blobs: BTreeMap<(&str, &str), Blob<'_>> = BTreeMap::new();
    for image in images {
        for descriptor in &image.blobs {
            let blob = blobs
                .entry((&image.destination.registry, &descriptor.digest))
                .or_insert_with(|| Blob {
                    size: descriptor.size,
                    places: Vec::new(),
                });
            if !blob.places.iter().any(|(place, _)| *place == &image.destination) {
                blob.places.push((&image.destination, &image.source));
            }
        }
    }
    let mut ordered: Vec<_> = blobs.into_iter().collect();
    ordered.sort_by_key(|(_, blob)| Reverse(blob.size));

    let mut placements: Vec<Placement> = Vec::new();
    let mut mounts = Vec::new();
    for ((_, digest), blob) in ordered {
        let has = |repository: &Repository| presence.contains(&(repository.clone(), digest.to_owned()));
        let placement = |destination: &Repository, source: &Repository, step| Placement {
            source: source.clone(),
            destination: destination.clone(),
            digest: digest.to_owned(),
            size: blob.size,
            step,
            after: None,
        };
        // Where the registry itself has it: in a repository of another copy, or in that of the original.
        let mut at_hand = blob
            .places
            .iter()
            .find(|(place, _)| has(place))
            .map(|(place, _)| (place.path.clone(), None));
        for (place, source) in &blob.places {
            if has(place) || place == source {
                placements.push(placement(place, source, Step::Present));
            } else if source.registry == place.registry {
                let from = source.path.clone();
                placements.push(placement(place, source, Step::Mount { from }));
            } else if let Some((from, after)) = &at_hand {
                let mut mount = placement(place, source, Step::Mount { from: from.clone() });
                mount.after = *after;
                mounts.push(mount);
            } else {
                at_hand = Some((place.path.clone(), Some(placements.len())));
                placements.push(placement(place, source, Step::Send));
            }
        }
    }
    placements.append(&mut mounts);

    let by_place: BTreeMap<(&Repository, &str), usize> = placements
        .iter()
        .enumerate()
        .map(|(index, placement)| ((&placement.destination, placement.digest.as_str()), index))
        .collect();
    let needs = images
        .iter()
        .map(|image| {
            let needed: BTreeSet<usize> = image
                .blobs
                .iter()
                .filter_map(|blob| by_place.get(&(&image.destination, blob.digest.as_str())).copied())
                .collect();
            needed.into_iter().collect()
        })
        .collect();
    (placements, needs)
}

struct Blob<'image> {
    size: u64,
    /// Where it is wanted, and where that copy is from.
    places: Vec<(&'image Repository, &'image Repository)>,
}

/// Manifests in the order in which they are written: what one names is in a group before its own. Those of a group need not wait for one
/// another. `children` gives what each of them names.
pub(crate) fn groups(root: &str, children: &BTreeMap<String, Vec<String>>) -> Vec<Vec<String>> {
    let mut heights = BTreeMap::new();
    height(root, children, &mut heights, 0);
    let highest = heights.values().copied().max().unwrap_or_default();
    (0..=highest)
        .map(|wanted| {
            let of_height = heights.iter().filter(|(_, height)| **height == wanted);
            of_height.map(|(digest, _)| (*digest).to_owned()).collect()
        })
        .collect()
}

/// Longest way from a manifest to one that names no other. A digest cannot name itself, but what claims to be one could.
fn height<'tree>(
    digest: &'tree str,
    children: &'tree BTreeMap<String, Vec<String>>,
    heights: &mut BTreeMap<&'tree str, usize>,
    depth: usize,
) -> usize {
    if let Some(known) = heights.get(digest) {
        return *known;
    }
    let below = children.get(digest).map_or(&[][..], Vec::as_slice);
    let own = if depth > crate::survey::MAX_DEPTH {
        0
    } else {
        below
            .iter()
            .map(|child| height(child, children, heights, depth + 1) + 1)
            .max()
            .unwrap_or_default()
    };
    heights.insert(digest, own);
    own
}

#[cfg(test)]
mod tests;
