//! What the annotations of an object ask for.

use std::collections::BTreeSet;

use super::{Refusal, tree::Entries};
use coral_api::keys;

/// Annotations that people write.
pub(super) const WRITTEN: [&str; 7] = [
    keys::INJECT_ANNOTATION,
    keys::INCLUDE_ANNOTATION,
    keys::INCLUDED_ANNOTATION,
    keys::EXCLUDE_ANNOTATION,
    keys::EXCLUDED_ANNOTATION,
    keys::PLACEMENT_ANNOTATION,
    keys::PULL_POLICY_ANNOTATION,
];

/// Where pods are to run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Placement {
    /// Only where the images are: a node selector.
    #[default]
    Required,
    /// Where the images are, if there is room: a preferred node affinity.
    Preferred,
}

/// The pull policy to set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PullPolicy {
    /// The image must be there.
    Never,
    /// The image is pulled where it is not there.
    IfNotPresent,
}

/// Which containers are meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Containers {
    /// All of them.
    #[default]
    All,
    /// The ones with these names.
    Only(BTreeSet<String>),
    /// The ones without these names.
    AllBut(BTreeSet<String>),
}

/// What is asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wish {
    /// Place pods by their images, in this way.
    pub placement: Option<Placement>,
    /// Set this pull policy.
    pub pull_policy: Option<PullPolicy>,
    /// For these containers.
    pub containers: Containers,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::IfNotPresent => "IfNotPresent",
        }
    }
}

impl Placement {
    /// As the annotation has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Preferred => "preferred",
        }
    }
}

impl Containers {
    /// Whether the container of this name is meant.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }
}

impl Wish {
    /// Whether nothing is asked for.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.placement.is_none() && self.pull_policy.is_none()
    }

    /// Reads annotations. Without `image.stvz.io/inject` nothing is asked for, but what the other annotations say must be right nevertheless.
    pub(crate) fn read(annotations: &Entries<'_>) -> Result<Self, Refusal> {
        let text = |key: &str| annotations.get(key)?.as_str();
        let placement = match text(keys::PLACEMENT_ANNOTATION).map(str::trim) {
            None => Placement::default(),
            Some("required") => Placement::Required,
            Some("preferred") => Placement::Preferred,
            Some(other) => return Err(unknown(keys::PLACEMENT_ANNOTATION, other, "required, preferred")),
        };
        let pull_policy = match text(keys::PULL_POLICY_ANNOTATION).map(str::trim) {
            // A preference must never leave a pod without its image.
            None if placement == Placement::Preferred => PullPolicy::IfNotPresent,
            None | Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            Some(other) => return Err(unknown(keys::PULL_POLICY_ANNOTATION, other, "Never, IfNotPresent")),
        };
        let mut wish = Self::default();
        for word in words(text(keys::INJECT_ANNOTATION).unwrap_or_default()) {
            match word {
                "selectors" => wish.placement = Some(placement),
                "pull-policy" => wish.pull_policy = Some(pull_policy),
                other => return Err(unknown(keys::INJECT_ANNOTATION, other, "selectors, pull-policy")),
            }
        }
        // An empty list names no container, and leaving everything out is not what anybody means by it.
        let names = |key: &str, other_spelling: &str| -> Option<BTreeSet<String>> {
            let lists = [text(key), text(other_spelling)];
            let names: BTreeSet<String> = lists.into_iter().flatten().flat_map(words).map(str::to_owned).collect();
            (!names.is_empty()).then_some(names)
        };
        let include = names(keys::INCLUDE_ANNOTATION, keys::INCLUDED_ANNOTATION);
        let exclude = names(keys::EXCLUDE_ANNOTATION, keys::EXCLUDED_ANNOTATION);
        wish.containers = match (include, exclude) {
            (Some(names), _) => Containers::Only(names),
            (None, Some(names)) => Containers::AllBut(names),
            (None, None) => Containers::All,
        };
        Ok(wish)
    }

    /// The annotations that ask for this.
    #[must_use]
    pub fn write(&self) -> Vec<(&'static str, String)> {
        let mut inject = Vec::new();
        let mut annotations = Vec::new();
        if let Some(placement) = self.placement {
            inject.push("selectors");
            if placement != Placement::default() {
                annotations.push((keys::PLACEMENT_ANNOTATION, placement.as_str().to_owned()));
            }
        }
        if let Some(pull_policy) = self.pull_policy {
            inject.push("pull-policy");
            let is_default = match self.placement {
                Some(Placement::Preferred) => pull_policy == PullPolicy::IfNotPresent,
                _ => pull_policy == PullPolicy::Never,
            };
            if !is_default {
                annotations.push((keys::PULL_POLICY_ANNOTATION, pull_policy.as_str().to_owned()));
            }
        }
        match &self.containers {
            Containers::All => {}
            Containers::Only(names) => annotations.push((keys::INCLUDE_ANNOTATION, list(names))),
            Containers::AllBut(names) => annotations.push((keys::EXCLUDE_ANNOTATION, list(names))),
        }
        annotations.push((keys::INJECT_ANNOTATION, inject.join(",")));
        annotations
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn unknown(annotation: &'static str, word: &str, valid: &'static str) -> Refusal {
    Refusal::UnknownWord {
        annotation,
        word: shortened(word),
        valid,
    }
}

/// A word as it can stand in a sentence: without control characters, and not for ever.
pub(super) fn shortened(word: &str) -> String {
    const LONGEST: usize = 60;
    let start: String = word.chars().take(LONGEST).filter(|char| !char.is_control()).collect();
    if word.chars().count() > LONGEST {
        start + "…"
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::{Value, json};

    use super::*;
    use crate::mutate::tree::Tree;

    fn read(annotations: &Value) -> Result<Wish, Refusal> {
        let Value::Object(annotations) = annotations else {
            panic!("annotations are a map")
        };
        let annotations = annotations
            .iter()
            .map(|(key, value)| (format!("{}{key}", keys::PREFIX), value.clone()));
        Wish::read(&tree(annotations))
    }

    fn tree(annotations: impl Iterator<Item = (String, Value)>) -> Entries<'static> {
        annotations
            .map(|(key, value)| (Cow::Owned(key), Tree::from(value)))
            .collect()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn annotations_mean_what_the_table_says() {
        use {
            Placement::{Preferred, Required},
            PullPolicy::{IfNotPresent, Never},
        };
        for (annotations, placement, pull_policy, containers) in [
            (json!({}), None, None, Containers::All),
            (json!({"inject": ""}), None, None, Containers::All),
            (json!({"inject": " , "}), None, None, Containers::All),
            (json!({"inject": "selectors"}), Some(Required), None, Containers::All),
            (
                json!({"inject": " pull-policy , selectors,"}),
                Some(Required),
                Some(Never),
                Containers::All,
            ),
            (
                json!({"inject": "selectors", "placement": "preferred"}),
                Some(Preferred),
                None,
                Containers::All,
            ),
            (
                json!({"inject": "selectors,pull-policy", "placement": "preferred"}),
                Some(Preferred),
                Some(IfNotPresent),
                Containers::All,
            ),
            (
                json!({"inject": "selectors,pull-policy", "placement": "preferred", "pull-policy": "Never"}),
                Some(Preferred),
                Some(Never),
                Containers::All,
            ),
            (
                json!({"inject": "pull-policy", "pull-policy": "IfNotPresent"}),
                None,
                Some(IfNotPresent),
                Containers::All,
            ),
            (json!({"placement": "preferred"}), None, None, Containers::All),
            (
                json!({"include": "a, b"}),
                None,
                None,
                Containers::Only(names(&["a", "b"])),
            ),
            (json!({"included": "a"}), None, None, Containers::Only(names(&["a"]))),
            (
                json!({"include": "a", "included": "b"}),
                None,
                None,
                Containers::Only(names(&["a", "b"])),
            ),
            (
                json!({"include": "a", "exclude": "a"}),
                None,
                None,
                Containers::Only(names(&["a"])),
            ),
            (
                json!({"exclude": "a", "excluded": "b"}),
                None,
                None,
                Containers::AllBut(names(&["a", "b"])),
            ),
            (
                json!({"include": " ", "exclude": "a"}),
                None,
                None,
                Containers::AllBut(names(&["a"])),
            ),
            (json!({"inject": 7}), None, None, Containers::All),
        ] {
            let expected = Wish {
                placement,
                pull_policy,
                containers,
            };
            assert_eq!(read(&annotations), Ok(expected.clone()), "{annotations}");
            let written = expected
                .write()
                .into_iter()
                .map(|(key, value)| (key.to_owned(), Value::String(value)));
            assert_eq!(Wish::read(&tree(written)), Ok(expected), "{annotations} written again");
        }
    }

    #[test]
    fn unknown_words_are_refused_with_the_valid_ones() {
        for (annotations, expected) in [
            (
                json!({"inject": "selector"}),
                r#"annotation image.stvz.io/inject has the unknown word "selector"; valid are: selectors, pull-policy"#,
            ),
            (
                json!({"inject": "Selectors"}),
                r#"annotation image.stvz.io/inject has the unknown word "Selectors"; valid are: selectors, pull-policy"#,
            ),
            (
                json!({"placement": "soft"}),
                r#"annotation image.stvz.io/placement has the unknown word "soft"; valid are: required, preferred"#,
            ),
            (
                json!({"inject": "pull-policy", "pull-policy": "Always"}),
                r#"annotation image.stvz.io/pull-policy has the unknown word "Always"; valid are: Never, IfNotPresent"#,
            ),
            (
                json!({"pull-policy": ""}),
                r#"annotation image.stvz.io/pull-policy has the unknown word ""; valid are: Never, IfNotPresent"#,
            ),
        ] {
            assert_eq!(read(&annotations).unwrap_err().to_string(), expected);
        }
    }
}
