//! What to change in an object so that its pods run where their images are. Pure: no input, no output, no clock.
//!
//! ```text
//!   object ──► take back what the record says ──► put in what the annotations ask for ──► difference: RFC 6902
//! ```
//!
//! Every answer is computed from what the object would be without Coral. So admitting twice changes nothing more, an update that
//! changes images moves the selectors, and without the annotation what stood there before comes back.
//!
//! Objects stay [`Value`]s, and a patch touches only what it changes: no field that this code does not know is ever lost.

mod advice;
mod lanes;
mod patch;
mod pod;
mod record;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod wish;

use std::{borrow::Cow, collections::BTreeMap};

use coral_api::keys;
use json_patch::PatchOperation;
use serde_json::Value;

pub(crate) use self::patch::write_json;
pub use self::{
    advice::Coverage,
    template::Kind,
    wish::{Containers, Placement, PullPolicy, Wish},
};
pub(crate) use self::{
    patch::{Patch, Path, difference},
    tree::{Entries, Part, Tree},
};
use self::{
    pod::{Places, asks_for},
    record::{Before, Record},
    template::has_controller,
};

const ANNOTATIONS: [&str; 2] = ["metadata", "annotations"];
/// Where a pod's containers are, in the order in which they start.
pub(crate) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];
/// The name under which a record says that the annotations were not there before.
const MADE_ANNOTATIONS: &str = "annotations";
/// Annotation of the pods that a kubelet runs from files. The API server only mirrors them: changing one means losing it.
pub(crate) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What is happening to the object.
#[derive(Clone, Copy, Debug, Default)]
pub enum Operation<'a> {
    /// It is new.
    #[default]
    Create,
    /// It replaces this one.
    Update(&'a Value),
}

/// What is known besides the object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// What is happening to it.
    pub operation: Operation<'a>,
    /// The images that are being prefetched. Without it no warning says that one is not.
    pub coverage: Option<&'a Coverage>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The operations that change the object, of RFC 6902. None: it is right as it is.
    pub patch: Vec<PatchOperation>,
    /// What a person would want to know, each a short sentence.
    pub warnings: Vec<String>,
}

/// Why an object is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A word in an annotation that has no meaning.
    #[error("annotation {annotation} has the unknown word {word:?}; valid are: {valid}")]
    UnknownWord {
        /// The annotation's key.
        annotation: &'static str,
        /// The word.
        word: String,
        /// All words that have a meaning.
        valid: &'static str,
    },
    /// The annotation to include containers names none of those that are there, so nothing could ever be injected.
    #[error(
        "annotation {} names no container that is there; there are: {there}",
        keys::INCLUDE_ANNOTATION
    )]
    NoContainer {
        /// The names of the containers.
        there: String,
    },
    /// Not an object that runs pods, or not one that could be.
    #[error("only {} can be injected into, and this is none of them", kinds())]
    NoWorkload,
}

fn kinds() -> String {
    Kind::ALL.map(Kind::as_str).join(", ")
}

/// What is looked at of an object, of all kinds at once: which one it is may be told last.
pub(crate) const OBJECT: Part = Part::Keys(&[
    ("apiVersion", &Part::All),
    ("kind", &Part::All),
    ("metadata", &METADATA),
    ("spec", &SPEC),
]);
const METADATA: Part = Part::Keys(&[
    // Of others only the keys count, and some of them are as large as the object.
    ("annotations", &Part::Prefixed(keys::PREFIX)),
    ("deletionTimestamp", &Part::All),
    (
        "ownerReferences",
        &Part::Each(&Part::Keys(&[("controller", &Part::All)])),
    ),
]);
const SPEC: Part = Part::Keys(&[
    ("nodeName", &Part::All),
    ("nodeSelector", &Part::All),
    ("affinity", &Part::All),
    ("initContainers", &CONTAINERS),
    ("containers", &CONTAINERS),
    ("template", &TEMPLATE),
    (
        "jobTemplate",
        &Part::Keys(&[
            ("metadata", &TEMPLATE_METADATA),
            ("spec", &Part::Keys(&[("template", &TEMPLATE)])),
        ]),
    ),
]);
const TEMPLATE: Part = Part::Keys(&[("metadata", &TEMPLATE_METADATA), ("spec", &POD)]);
const TEMPLATE_METADATA: Part = Part::Keys(&[("annotations", &Part::Prefixed(keys::PREFIX))]);
const POD: Part = Part::Keys(&[
    ("nodeName", &Part::All),
    ("nodeSelector", &Part::All),
    ("affinity", &Part::All),
    ("initContainers", &CONTAINERS),
    ("containers", &CONTAINERS),
]);
const CONTAINERS: Part = Part::Each(&Part::Keys(&[
    ("name", &Part::All),
    ("image", &Part::All),
    ("imagePullPolicy", &Part::All),
]));

/// Decides what to change in an object that is being admitted.
///
/// # Errors
/// When an annotation is a mistake for certain. Where no person would see that, and where the object was there with the same mistake
/// before, it is a warning instead: nothing that Coral has to say is worth a workload that does not start.
pub fn mutate(object: &Value, options: &Options) -> Result<Outcome, Refusal> {
    let object = Tree::of(object, &OBJECT);
    let stored = match options.operation {
        Operation::Create => None,
        Operation::Update(stored) => Some(Tree::of(stored, &OBJECT)),
    };
    decide(&object, stored.as_ref(), options.coverage).map(Decision::into_outcome)
}

/// What to do, ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) patch: Patch,
    pub(crate) warnings: Vec<String>,
}

impl Decision {
    fn into_outcome(self) -> Outcome {
        Outcome {
            patch: self.patch.into_operations(),
            warnings: self.warnings,
        }
    }
}

/// The same of trees of [`OBJECT`]s. `stored` is what is replaced, in an update.
pub(crate) fn decide(
    object: &Tree<'_>,
    stored: Option<&Tree<'_>>,
    coverage: Option<&Coverage>,
) -> Result<Decision, Refusal> {
    let mut decision = Decision::default();
    let Some(kind) = Kind::of_tree(object).filter(|&kind| is_ours_to_change(object, kind)) else {
        return Ok(decision);
    };
    if stored.is_some() && !kind.is_mutable() {
        return Ok(decision);
    }
    let places = places_of(object, kind);
    let wish = match check(object, kind, places.as_ref()) {
        Ok(wish) => wish,
        Err(refusal) => {
            let check_stored = |stored| check(stored, kind, places_of(stored, kind).as_ref());
            let was_there = stored.is_some_and(|stored| check_stored(stored).as_ref() == Err(&refusal));
            if was_there || has_controller(object) {
                decision.warnings.push(refusal.to_string());
                return Ok(decision);
            }
            return Err(refusal);
        }
    };
    let annotations = annotations_of(object);
    let is_asking = annotations.iter().any(|(key, _)| key.starts_with(keys::PREFIX));
    if is_asking || stored.is_some_and(|stored| record_of(stored).is_some()) {
        let written = annotations.iter().filter(|(key, _)| wish::WRITTEN.contains(key));
        let written = written.map(|(key, value)| (Cow::Borrowed(key), value.clone()));
        decision.patch = change(object, kind, places.as_ref(), &wish, written.collect(), stored);
        // Nobody reads what the API server says to a controller.
        if !has_controller(object) {
            decision.warnings = advice::unknown_annotations(annotations);
            if annotations.contains_key(keys::INJECTED_ANNOTATION) && record_of(object).is_none() {
                decision.warnings.push(format!(
                    "annotation {} is Coral's and cannot be read any more; what was injected before stays",
                    keys::INJECTED_ANNOTATION
                ));
            }
            let places = places.unwrap_or_default();
            decision.warnings.extend(advice::advice(kind, &wish, &places, coverage));
        }
    }
    Ok(decision)
}

/// What to change in an object so that it asks for `wish` and has it, with or without a webhook. For an object that is not being admitted.
///
/// # Errors
/// When the object runs no pods.
pub fn inject(object: &Value, wish: &Wish, coverage: Option<&Coverage>) -> Result<Outcome, Refusal> {
    let object = Tree::of(object, &OBJECT);
    let (kind, places) = workload(&object)?;
    let written = wish.write().into_iter();
    let written = written.map(|(key, value)| (Cow::Borrowed(key), Tree::Text(value.into())));
    let patch = change(&object, kind, Some(&places), wish, written.collect(), None);
    Ok(Outcome {
        patch: patch.into_operations(),
        warnings: advice::advice(kind, wish, &places, coverage),
    })
}

/// What to change in an object so that it is again what it was before anything was injected, and asks for nothing.
///
/// # Errors
/// When the object runs no pods.
pub fn uninject(object: &Value) -> Result<Vec<PatchOperation>, Refusal> {
    let object = Tree::of(object, &OBJECT);
    let (kind, places) = workload(&object)?;
    let patch = change(&object, kind, Some(&places), &Wish::default(), Entries::default(), None);
    Ok(patch.into_operations())
}

/// Whether an object is one that may be changed at all.
fn is_ours_to_change(object: &Tree<'_>, kind: Kind) -> bool {
    let is_going = object
        .at(&["metadata", "deletionTimestamp"])
        .is_some_and(|time| *time != Tree::Null);
    let is_mirror = kind == Kind::Pod && annotations_of(object).contains_key(MIRROR_ANNOTATION);
    // A Deployment copies its annotations to its replica sets, and compares their templates with its own for ever: whoever
    // changes one makes it start again and again.
    let is_compared = matches!(kind, Kind::ReplicaSet | Kind::ReplicationController) && has_controller(object);
    !(is_going || is_mirror || is_compared)
}

/// What an object asks for, if its annotations have no mistake, including those that act only later.
fn check(object: &Tree<'_>, kind: Kind, places: Option<&Places<'_>>) -> Result<Wish, Refusal> {
    let wish = Wish::read(annotations_of(object))?;
    for path in kind.template_annotations() {
        if let Some(annotations) = object.at(path).and_then(Tree::as_map) {
            Wish::read(annotations)?;
        }
    }
    // Containers may be added to a pod later, by others. Those of a template are all there.
    if let (false, Containers::Only(names), true) = (wish.is_nothing(), &wish.containers, kind != Kind::Pod)
        && let Some(places) = places
    {
        let there: Vec<&str> = places
            .containers
            .iter()
            .filter_map(|container| container.name)
            .collect();
        if !there.iter().any(|name| names.contains(*name)) {
            let there = wish::shortened(&there.join(", "));
            return Err(Refusal::NoContainer { there });
        }
    }
    Ok(wish)
}

fn workload<'a>(object: &'a Tree<'a>) -> Result<(Kind, Places<'a>), Refusal> {
    let kind = Kind::of_tree(object).ok_or(Refusal::NoWorkload)?;
    let metadata = object
        .get("metadata")
        .and_then(Tree::as_map)
        .ok_or(Refusal::NoWorkload)?;
    let is_possible = matches!(metadata.get("annotations"), None | Some(Tree::Null | Tree::Map(_)));
    let places = places_of(object, kind)
        .filter(|_| is_possible)
        .ok_or(Refusal::NoWorkload)?;
    Ok((kind, places))
}

fn places_of<'a>(object: &'a Tree<'a>, kind: Kind) -> Option<Places<'a>> {
    let spec = object.at(kind.spec_path()).and_then(Tree::as_map)?;
    // Labels of nodes are those of the images that people wrote.
    let originals = if kind == Kind::Pod { originals_of(object) } else { None };
    Some(Places::read(spec, &originals.unwrap_or_default()))
}

/// The images that stood in a Pod before they were replaced by copies, by the names of the containers.
pub(crate) fn originals_of(pod: &Tree<'_>) -> Option<BTreeMap<String, String>> {
    let text = annotations_of(pod).get(keys::ORIGINAL_IMAGES_ANNOTATION)?.as_str()?;
    serde_json::from_str(text).ok()
}

fn annotations_of<'t, 'a>(object: &'t Tree<'a>) -> &'t Entries<'a> {
    object
        .at(&ANNOTATIONS)
        .and_then(Tree::as_map)
        .unwrap_or(const { &Entries::EMPTY })
}

/// The record on an object. One that cannot be read says nothing.
fn record_of(object: &Tree<'_>) -> Option<Record<'static>> {
    let text = annotations_of(object).get(keys::INJECTED_ANNOTATION)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// The operations after which the object has what `wish` asks for, nothing else of Coral's, and of Coral's annotations exactly `written`
/// and the record.
fn change<'a>(
    object: &'a Tree<'a>,
    kind: Kind,
    places: Option<&Places<'a>>,
    wish: &Wish,
    mut written: Entries<'a>,
    stored: Option<&Tree<'_>>,
) -> Patch {
    let mut patch = Patch::default();
    let own = record_of(object).unwrap_or_default();
    let has_made_annotations = own.made.get(MADE_ANNOTATIONS).copied();
    let known = stored.and_then(record_of);
    // A roll-back brings selectors of an older image, and they were Coral's then.
    let stored_spec = stored
        .filter(|_| known.is_some())
        .and_then(|stored| stored.at(kind.spec_path()));
    let has_arrived = |placement: Placement, key: &str| stored_spec.is_some_and(|spec| !asks_for(spec, placement, key));
    let label_keys = places.map(|places| places.label_keys(wish)).unwrap_or_default();
    let mut record = Record::default();
    if let Some(places) = places {
        let mut after = places.restored(&own.merged(known.unwrap_or_default()));
        record = after.inject(places, wish, &label_keys, has_arrived);
        places.difference(&after, kind, &mut patch);
    }

    let annotations = object.at(&ANNOTATIONS);
    let made = match annotations {
        None => Some(Before::Absent),
        Some(Tree::Null) => Some(Before::Null),
        Some(_) => has_made_annotations,
    };
    if let Some(made) = made
        && !written.is_empty()
    {
        record.made.insert(MADE_ANNOTATIONS.to_owned(), made);
    }
    if !record.is_empty()
        && let Ok(text) = serde_json::to_string(&record)
    {
        written.insert(keys::INJECTED_ANNOTATION, Tree::Text(text.into()));
    }
    let mut place = Path::of(&ANNOTATIONS);
    match annotations {
        Some(Tree::Map(all)) => {
            let is_ours = |key: &str| wish::WRITTEN.contains(&key) || key == keys::INJECTED_ANNOTATION;
            let before = all.iter().filter(|(key, _)| is_ours(key));
            let before: Entries<'_> = before.map(|(key, value)| (Cow::Borrowed(key), value.clone())).collect();
            let is_over = written.is_empty() && before.len() == all.len() && !before.is_empty();
            let (before, after) = (Tree::Map(before), Tree::Map(written));
            match has_made_annotations.filter(|_| is_over) {
                Some(Before::Absent) => difference(&mut place, Some(&before), None, &mut patch),
                Some(Before::Null) => difference(&mut place, Some(&before), Some(&Tree::Null), &mut patch),
                None => difference(&mut place, Some(&before), Some(&after), &mut patch),
            }
        }
        None | Some(Tree::Null) if !written.is_empty() => {
            difference(&mut place, annotations, Some(&Tree::Map(written)), &mut patch);
        }
        _ => {}
    }
    patch
}
