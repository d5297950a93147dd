//! What to change in a new Pod so that it runs copies of its images. Pure, as [`mutate`](crate::mutate) is: what is known of copies comes with the question.
//!
//! ```text
//!   Pod ──► images ──► those with a copy to use ──► replace: RFC 6902
//!                              │
//!                              └──► the originals, in the annotation image.stvz.io/original-images
//! ```
//!
//! Only Pods are changed, never what they are made from: a workload's template stays what people wrote, so nothing rolls out anew, and nothing
//! fights with whoever applies manifests.
//!
//! An image that is a copy already stays. So rewriting twice changes nothing more, also where one Mirror copies what another one has copied.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use coral_api::{ImageReference, MirroredImage, keys};
use json_patch::PatchOperation;
use serde_json::Value;

use crate::mutate::{
    CONTAINER_LISTS, Entries, Kind, MIRROR_ANNOTATION, Part, Patch, Path, Tree, difference, originals_of,
};

const PULL_SECRETS: &str = "imagePullSecrets";
const EPHEMERAL: &str = "ephemeralContainers";
const VOLUMES: &str = "volumes";

/// What is looked at of a Pod.
pub(crate) const POD: Part = Part::Keys(&[
    ("apiVersion", &Part::All),
    ("kind", &Part::All),
    (
        "metadata",
        &Part::Keys(&[
            ("annotations", &Part::Prefixed(keys::ORIGINAL_IMAGES_ANNOTATION)),
            ("labels", &Part::Prefixed(keys::MIRROR_LABEL)),
        ]),
    ),
    (
        "spec",
        &Part::Keys(&[
            ("initContainers", &CONTAINERS),
            ("containers", &CONTAINERS),
            (EPHEMERAL, &CONTAINERS),
            (
                VOLUMES,
                &Part::Each(&Part::Keys(&[
                    ("name", &Part::All),
                    ("image", &Part::Keys(&[("reference", &Part::All)])),
                ])),
            ),
            (PULL_SECRETS, &Part::All),
        ]),
    ),
]);
const CONTAINERS: Part = Part::Each(&Part::Keys(&[("name", &Part::All), ("image", &Part::All)]));

/// The copies that new pods use, as far as is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copies {
    /// By the original.
    used: HashMap<ImageReference, Copy>,
    /// Every name that a copy has on nodes, whether pods are to use it or not.
    names: HashSet<ImageReference>,
}

/// What to name instead of an original.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copy {
    /// The name.
    pub node_reference: String,
    /// Secret, in the Pod's namespace, that is needed to pull it.
    pub pull_secret_name: Option<String>,
}

impl Copies {
    /// Adds what is known of an image.
    pub fn insert(&mut self, image: &MirroredImage) {
        let copies = image.status.iter().flat_map(|status| &status.destinations);
        self.names
            .extend(copies.filter_map(|copy| copy.node_reference.parse().ok()));
        if let (Some(copy), Ok(original)) = (image.replacement(), image.spec.image.parse()) {
            let copy = Copy {
                node_reference: copy.node_reference.clone(),
                pull_secret_name: copy.pull_secret_name.clone(),
            };
            self.used.insert(original, copy);
        }
    }

    /// Adds other copies.
    pub fn extend(&mut self, others: &Self) {
        self.names.extend(others.names.iter().cloned());
        let used = others.used.iter();
        self.used
            .extend(used.map(|(original, copy)| (original.clone(), copy.clone())));
    }

    /// What a new pod that names this image is given.
    #[must_use]
    pub fn get(&self, image: &ImageReference) -> Option<&Copy> {
        if self.names.contains(image) {
            return None;
        }
        self.used.get(image)
    }
}

/// What is happening to the Pod.
#[derive(Clone, Copy, Debug, Default)]
pub enum Occasion<'a> {
    /// It is new.
    #[default]
    Creation,
    /// Ephemeral containers are added to this one. Nothing else of a Pod can be changed with them: neither the annotation nor the secrets.
    EphemeralContainers(&'a Value),
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewritten {
    /// The operations that change the Pod, of RFC 6902.
    pub patch: Vec<PatchOperation>,
    /// How many images are replaced.
    pub images: usize,
}

/// Decides which images of a Pod are replaced by copies.
#[must_use]
pub fn rewrite(pod: &Value, occasion: Occasion<'_>, copies: &Copies) -> Rewritten {
    let pod = Tree::of(pod, &POD);
    let stored = match occasion {
        Occasion::Creation => None,
        Occasion::EphemeralContainers(stored) => Some(Tree::of(stored, &POD)),
    };
    let Rewriting { patch, images } = decide(&pod, stored.as_ref(), copies);
    let patch = patch.into_operations();
    Rewritten { patch, images }
}

/// What to do, ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Rewriting {
    pub(crate) patch: Patch,
    pub(crate) images: usize,
}

/// The same of trees of [`POD`]s. `stored` is the Pod that ephemeral containers are added to.
pub(crate) fn decide(pod: &Tree<'_>, stored: Option<&Tree<'_>>, copies: &Copies) -> Rewriting {
    let (Some(metadata), Some(spec), true) = (
        pod.get("metadata").and_then(Tree::as_map),
        pod.get("spec").and_then(Tree::as_map),
        is_ours_to_change(pod),
    ) else {
        return Rewriting::default();
    };
    let mut rewriting = Rewriting::default();
    let secrets = secrets_of(spec);
    let mut more_secrets = BTreeSet::new();
    let mut originals = BTreeMap::new();
    let before = originals_of(pod);
    for place in places(spec, stored) {
        let Ok(image) = place.image.parse::<ImageReference>() else {
            continue;
        };
        if copies.names.contains(&image) {
            let known = before.as_ref().and_then(|before| before.get(&place.name));
            originals.extend(known.map(|original| (place.name, original.clone())));
            continue;
        }
        let Some(Copy {
            node_reference,
            pull_secret_name,
        }) = copies.get(&image)
        else {
            continue;
        };
        if let Some(name) = pull_secret_name.as_deref().filter(|name| !secrets.contains(name)) {
            if stored.is_some() {
                continue;
            }
            more_secrets.insert(name);
        }
        let (old, new) = (Tree::text(place.image), Tree::text(node_reference));
        let mut path = Path::of(&["spec", place.list]);
        path.at(place.index, |path| {
            for key in place.below {
                path.push(key);
            }
            difference(path, Some(&old), Some(&new), &mut rewriting.patch);
        });
        rewriting.images += 1;
        originals.insert(place.name, place.image.to_owned());
    }
    if stored.is_none() {
        add_secrets(spec, &more_secrets, &mut rewriting.patch);
        note(metadata, &originals, &mut rewriting.patch);
    }
    rewriting
}

fn is_ours_to_change(pod: &Tree<'_>) -> bool {
    let has_opted_out = pod
        .at(&["metadata", "labels", keys::MIRROR_LABEL])
        .and_then(Tree::as_str)
        == Some("false");
    let is_mirror = pod.at(&["metadata", "annotations", MIRROR_ANNOTATION]).is_some();
    Kind::of_tree(pod) == Some(Kind::Pod) && !has_opted_out && !is_mirror
}

/// Where a Pod names an image.
struct Place<'t> {
    /// By which name the annotation speaks of it: that of the container, or `volumes/` and that of the volume.
    name: String,
    list: &'static str,
    index: usize,
    /// Where the image is in the entry of the list.
    below: &'static [&'static str],
    image: &'t str,
}

/// The images that can be replaced: of a new Pod all, and of one that is there those of its new ephemeral containers.
fn places<'t>(spec: &'t Entries<'_>, stored: Option<&'t Tree<'_>>) -> Vec<Place<'t>> {
    let entries = |list| spec.get(list).and_then(Tree::as_list).unwrap_or_default();
    let place = |list, index, below: &'static [&'static str], entry: &'t Tree<'_>| {
        let name = entry.get("name").and_then(Tree::as_str)?;
        Some(Place {
            name: if list == VOLUMES {
                format!("{VOLUMES}/{name}")
            } else {
                name.to_owned()
            },
            list,
            index,
            below,
            image: entry.at(below).and_then(Tree::as_str)?,
        })
    };
    let in_list = |list, below| {
        let entries = entries(list).iter().enumerate();
        entries.filter_map(move |(index, entry)| place(list, index, below, entry))
    };
    if let Some(stored) = stored {
        let there = stored.at(&["spec", EPHEMERAL]).and_then(Tree::as_list);
        let there = there.unwrap_or_default().iter();
        let there: HashSet<&str> = there.filter_map(|entry| entry.get("name")?.as_str()).collect();
        let ephemeral = in_list(EPHEMERAL, &["image"]);
        return ephemeral.filter(|place| !there.contains(&*place.name)).collect();
    }
    let containers = CONTAINER_LISTS.iter().flat_map(|list| in_list(list, &["image"]));
    containers.chain(in_list(VOLUMES, &["image", "reference"])).collect()
}

/// Names of the secrets that a Pod has already.
fn secrets_of<'t>(spec: &'t Entries<'_>) -> HashSet<&'t str> {
    let secrets = spec.get(PULL_SECRETS).and_then(Tree::as_list);
    let secrets = secrets.unwrap_or_default().iter();
    secrets.filter_map(|secret| secret.get("name")?.as_str()).collect()
}

fn add_secrets(spec: &Entries<'_>, names: &BTreeSet<&str>, patch: &mut Patch) {
    if names.is_empty() {
        return;
    }
    let before = spec.get(PULL_SECRETS);
    let mut after = before.and_then(Tree::as_list).unwrap_or_default().to_vec();
    after.extend(names.iter().map(|name| {
        let entry = [(Cow::Borrowed("name"), Tree::text(name))];
        Tree::Map(entry.into_iter().collect())
    }));
    let mut place = Path::of(&["spec", PULL_SECRETS]);
    difference(&mut place, before, Some(&Tree::List(after)), patch);
}

/// Writes the originals down. What was written of images that have been replaced by others since goes.
fn note(metadata: &Entries<'_>, originals: &BTreeMap<String, String>, patch: &mut Patch) {
    let annotations = metadata.get("annotations");
    let note = (!originals.is_empty())
        .then(|| serde_json::to_string(originals).ok())
        .flatten();
    let note = note.map(|text| Tree::Text(text.into()));
    match annotations {
        Some(Tree::Map(all)) => {
            let mut place = Path::of(&["metadata", "annotations", keys::ORIGINAL_IMAGES_ANNOTATION]);
            let before = all.get(keys::ORIGINAL_IMAGES_ANNOTATION);
            difference(&mut place, before, note.as_ref(), patch);
        }
        None | Some(Tree::Null) => {
            let after = note.map(|note| {
                let entry = [(Cow::Borrowed(keys::ORIGINAL_IMAGES_ANNOTATION), note)];
                Tree::Map(entry.into_iter().collect())
            });
            if after.is_some() {
                let mut place = Path::of(&["metadata", "annotations"]);
                difference(&mut place, annotations, after.as_ref(), patch);
            }
        }
        Some(_) => {}
    }
}
