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
mod patch;
mod pod;
mod record;
#[cfg(feature = "server")]
mod sketch;
mod template;
#[cfg(test)]
mod tests;
mod wish;

use coral_api::keys;
use json_patch::PatchOperation;
use serde_json::{Map, Value};

#[cfg(feature = "server")]
pub(crate) use self::sketch::Sketch;
pub use self::{
    advice::Coverage,
    template::Kind,
    wish::{Containers, Placement, PullPolicy, Wish},
};
use self::{
    patch::{difference, pointer},
    pod::{Places, asks_for},
    record::{Before, Record},
    template::{at, has_controller},
};

const ANNOTATIONS: [&str; 2] = ["metadata", "annotations"];
/// The name under which a record says that the annotations were not there before.
const MADE_ANNOTATIONS: &str = "annotations";
/// Annotation of the pods that a kubelet runs from files. The API server only mirrors them: changing one means losing it.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

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

/// Decides what to change in an object that is being admitted.
///
/// # Errors
/// When an annotation is a mistake for certain. Where no person would see that, and where the object was there with the same mistake
/// before, it is a warning instead: nothing that Coral has to say is worth a workload that does not start.
pub fn mutate(object: &Value, options: &Options) -> Result<Outcome, Refusal> {
    let Some(kind) = Kind::of(object).filter(|&kind| is_ours_to_change(object, kind)) else {
        return Ok(Outcome::default());
    };
    let stored = match options.operation {
        Operation::Create => None,
        Operation::Update(stored) if kind.is_mutable() => Some(stored),
        Operation::Update(_) => return Ok(Outcome::default()),
    };
    let wish = match check(object, kind) {
        Ok(wish) => wish,
        Err(refusal) => {
            let was_there = stored.is_some_and(|stored| check(stored, kind).as_ref() == Err(&refusal));
            return if was_there || has_controller(object) {
                let warnings = vec![refusal.to_string()];
                Ok(Outcome {
                    warnings,
                    ..Outcome::default()
                })
            } else {
                Err(refusal)
            };
        }
    };
    let annotations = annotations_of(object);
    let mut outcome = Outcome::default();
    if annotations.keys().any(|key| key.starts_with(keys::PREFIX))
        || stored.is_some_and(|stored| record_of(stored).is_some())
    {
        let written = annotations
            .iter()
            .filter(|(key, _)| wish::WRITTEN.contains(&key.as_str()));
        let written = written.map(|(key, value)| (key.clone(), value.clone())).collect();
        let places = places_of(object, kind);
        outcome.patch = change(object, kind, places.as_ref(), &wish, written, stored);
        // Nobody reads what the API server says to a controller.
        if !has_controller(object) {
            outcome.warnings = advice::unknown_annotations(annotations);
            if annotations.contains_key(keys::INJECTED_ANNOTATION) && record_of(object).is_none() {
                outcome.warnings.push(format!(
                    "annotation {} is Coral's and cannot be read any more; what was injected before stays",
                    keys::INJECTED_ANNOTATION
                ));
            }
            outcome.warnings.extend(advice::advice(
                kind,
                &wish,
                &places.unwrap_or_default(),
                options.coverage,
            ));
        }
    }
    Ok(outcome)
}

/// What to change in an object so that it asks for `wish` and has it, with or without a webhook. For an object that is not being admitted.
///
/// # Errors
/// When the object runs no pods.
pub fn inject(object: &Value, wish: &Wish, coverage: Option<&Coverage>) -> Result<Outcome, Refusal> {
    let (kind, places) = workload(object)?;
    let written = wish
        .write()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    Ok(Outcome {
        patch: change(object, kind, Some(&places), wish, written, None),
        warnings: advice::advice(kind, wish, &places, coverage),
    })
}

/// What to change in an object so that it is again what it was before anything was injected, and asks for nothing.
///
/// # Errors
/// When the object runs no pods.
pub fn uninject(object: &Value) -> Result<Vec<PatchOperation>, Refusal> {
    let (kind, places) = workload(object)?;
    Ok(change(object, kind, Some(&places), &Wish::default(), Map::new(), None))
}

/// Whether an object is one that may be changed at all.
fn is_ours_to_change(object: &Value, kind: Kind) -> bool {
    let is_going = at(object, &["metadata", "deletionTimestamp"]).is_some_and(|time| !time.is_null());
    let is_mirror = kind == Kind::Pod && annotations_of(object).contains_key(MIRROR_ANNOTATION);
    // A Deployment copies its annotations to its replica sets, and compares their templates with its own for ever: whoever
    // changes one makes it start again and again.
    let is_compared = matches!(kind, Kind::ReplicaSet | Kind::ReplicationController) && has_controller(object);
    !(is_going || is_mirror || is_compared)
}

/// What an object asks for, if its annotations have no mistake, including those that act only later.
fn check(object: &Value, kind: Kind) -> Result<Wish, Refusal> {
    let wish = Wish::read(annotations_of(object))?;
    for path in kind.template_annotations() {
        if let Some(annotations) = at(object, path).and_then(Value::as_object) {
            Wish::read(annotations)?;
        }
    }
    // Containers may be added to a pod later, by others. Those of a template are all there.
    if let (false, Containers::Only(names), true) = (wish.is_nothing(), &wish.containers, kind != Kind::Pod)
        && let Some(places) = places_of(object, kind)
    {
        let there: Vec<&str> = places
            .containers
            .iter()
            .filter_map(|container| container.name.as_deref())
            .collect();
        if !there.iter().any(|name| names.contains(*name)) {
            let there = wish::shortened(&there.join(", "));
            return Err(Refusal::NoContainer { there });
        }
    }
    Ok(wish)
}

fn workload(object: &Value) -> Result<(Kind, Places), Refusal> {
    let kind = Kind::of(object).ok_or(Refusal::NoWorkload)?;
    let metadata = at(object, &["metadata"])
        .and_then(Value::as_object)
        .ok_or(Refusal::NoWorkload)?;
    let is_possible = metadata
        .get("annotations")
        .is_none_or(|value| value.is_object() || value.is_null());
    let places = places_of(object, kind)
        .filter(|_| is_possible)
        .ok_or(Refusal::NoWorkload)?;
    Ok((kind, places))
}

fn places_of(object: &Value, kind: Kind) -> Option<Places> {
    at(object, kind.spec_path())
        .and_then(Value::as_object)
        .map(Places::read)
}

fn annotations_of(object: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    at(object, &ANNOTATIONS).and_then(Value::as_object).unwrap_or(&NONE)
}

/// The record on an object. One that cannot be read says nothing.
fn record_of(object: &Value) -> Option<Record> {
    let text = annotations_of(object).get(keys::INJECTED_ANNOTATION)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// The operations after which the object has what `wish` asks for, nothing else of Coral's, and of Coral's annotations exactly `written`
/// and the record.
fn change(
    object: &Value,
    kind: Kind,
    places: Option<&Places>,
    wish: &Wish,
    mut written: Map<String, Value>,
    stored: Option<&Value>,
) -> Vec<PatchOperation> {
    let mut operations = Vec::new();
    let own = record_of(object).unwrap_or_default();
    let has_made_annotations = own.made.get(MADE_ANNOTATIONS).copied();
    let known = stored.and_then(record_of);
    // A roll-back brings selectors of an older image, and they were Coral's then.
    let stored_spec = stored
        .filter(|_| known.is_some())
        .and_then(|stored| at(stored, kind.spec_path()));
    let has_arrived = |placement: Placement, key: &str| stored_spec.is_some_and(|spec| !asks_for(spec, placement, key));
    let mut record = Record::default();
    if let Some(before) = places {
        let mut after = before.clone();
        after.restore(&own.merged(known.unwrap_or_default()));
        record = after.inject(wish, has_arrived);
        after.difference(before, kind.spec_path(), &mut operations);
    }

    let annotations = at(object, &ANNOTATIONS);
    let made = match annotations {
        None => Some(Before::Absent),
        Some(Value::Null) => Some(Before::Null),
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
        written.insert(keys::INJECTED_ANNOTATION.to_owned(), text.into());
    }
    let path = pointer(&ANNOTATIONS);
    match annotations {
        Some(Value::Object(all)) => {
            let is_ours = |key: &str| wish::WRITTEN.contains(&key) || key == keys::INJECTED_ANNOTATION;
            let before = all.iter().filter(|(key, _)| is_ours(key));
            let before: Map<String, Value> = before.map(|(key, value)| (key.clone(), value.clone())).collect();
            let is_over = written.is_empty() && before.len() == all.len() && !before.is_empty();
            let (before, after) = (Value::Object(before), Value::Object(written));
            match has_made_annotations.filter(|_| is_over) {
                Some(Before::Absent) => difference(&path, Some(&before), None, &mut operations),
                Some(Before::Null) => difference(&path, Some(&before), Some(&Value::Null), &mut operations),
                None => difference(&path, Some(&before), Some(&after), &mut operations),
            }
        }
        None | Some(Value::Null) if !written.is_empty() => {
            difference(&path, annotations, Some(&Value::Object(written)), &mut operations);
        }
        _ => {}
    }
    operations
}
