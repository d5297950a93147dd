//! What [`mutate`](super::mutate) looks at of an object: JSON values that borrow from where they come.
//!
//! Most of an object is none of Coral's business: probes, volumes, what fields were managed by whom. To make values of all that takes many
//! times as long as to skip it, and, where somebody sends rubbish on purpose, many times as much memory as the rubbish itself. A patch speaks
//! of places, and their places in the whole object and in a tree of what matters are the same.

mod read;
mod skim;

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

/// Entries of a map through which one looks as fast from the first to the last: to know that two keys differ, their lengths are mostly enough.
const FEW: usize = 8;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Tree<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Map(Entries<'a>),
}

/// A map: in the order of its keys, each there once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entries<'a>(Vec<(Cow<'a, str>, Tree<'a>)>);

/// What is of interest below a place.
pub(crate) enum Part {
    /// Everything.
    All,
    /// These keys of a map.
    Keys(&'static [(&'static str, &'static Self)]),
    /// All keys of a map, but values only of those that begin like this.
    Prefixed(&'static str),
    /// The same of every entry of a list.
    Each(&'static Self),
}

/// What is of interest of an entry of a map.
enum Interest {
    None,
    /// That it is there.
    InTheKeyAlone,
    In(&'static Part),
    /// The same, and the key is this one.
    Of(&'static str, &'static Part),
}

impl Part {
    /// What is of interest below a key.
    fn below(&'static self, key: &[u8]) -> Interest {
        match self {
            Self::All => Interest::In(self),
            Self::Keys(keys) => {
                let found = keys.iter().find(|(known, _)| known.as_bytes() == key);
                found.map_or(Interest::None, |(known, part)| Interest::Of(known, part))
            }
            Self::Prefixed(prefix) if key.starts_with(prefix.as_bytes()) => Interest::In(&Self::All),
            Self::Prefixed(_) => Interest::InTheKeyAlone,
            Self::Each(_) => Interest::None,
        }
    }

    /// What is of interest of the entries of a list.
    fn each(&'static self) -> Option<&'static Self> {
        match self {
            Self::All => Some(self),
            Self::Each(part) => Some(part),
            Self::Keys(_) | Self::Prefixed(_) => None,
        }
    }
}

impl<'a> Tree<'a> {
    /// What is of interest of a value. Where something of another type is than belongs there, something of that type is left.
    pub(crate) fn of(value: &'a Value, part: &'static Part) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(value) => Self::Number(value.clone()),
            Value::String(value) => Self::text(value),
            Value::Array(entries) => {
                let entries = part
                    .each()
                    .map(|part| entries.iter().map(|entry| Self::of(entry, part)).collect());
                Self::List(entries.unwrap_or_default())
            }
            Value::Object(map) => {
                let entries = map.iter().filter_map(|(key, value)| {
                    let value = match part.below(key.as_bytes()) {
                        Interest::None => return None,
                        Interest::InTheKeyAlone => Self::Null,
                        Interest::In(part) | Interest::Of(_, part) => Self::of(value, part),
                    };
                    Some((Cow::Borrowed(key.as_str()), value))
                });
                Self::Map(entries.collect())
            }
        }
    }

    pub(crate) const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) const fn as_list_mut(&mut self) -> Option<&mut Vec<Self>> {
        match self {
            Self::List(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) const fn as_map(&self) -> Option<&Entries<'a>> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) const fn as_map_mut(&mut self) -> Option<&mut Entries<'a>> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// What is below a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// What is at a path of keys.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }
}

impl From<Value> for Tree<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Self::Number(value),
            Value::String(value) => Self::Text(Cow::Owned(value)),
            Value::Array(entries) => Self::List(entries.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                let entries = map.into_iter().map(|(key, value)| (Cow::Owned(key), Self::from(value)));
                Self::Map(entries.collect())
            }
        }
    }
}

impl From<&Tree<'_>> for Value {
    fn from(tree: &Tree<'_>) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Bool(value) => Self::Bool(*value),
            Tree::Number(value) => Self::Number(value.clone()),
            Tree::Text(text) => Self::String(text.to_string()),
            Tree::List(entries) => entries.iter().map(Self::from).collect(),
            Tree::Map(map) => map
                .iter()
                .map(|(key, value)| (key.to_owned(), Self::from(value)))
                .collect(),
        }
    }
}

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(entries) => serializer.collect_seq(entries),
            Self::Map(map) => serializer.collect_map(map.iter()),
        }
    }
}

impl<'a> Entries<'a> {
    /// No entries.
    pub(crate) const EMPTY: Self = Self(Vec::new());

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Tree<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    pub(crate) fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Tree<'a>> {
        if self.0.len() <= FEW {
            return self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        }
        self.find(key).ok().map(|index| &self.0[index].1)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Tree<'a>> {
        self.find(key).ok().map(|index| &mut self.0[index].1)
    }

    pub(crate) fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: Tree<'a>) {
        let key = key.into();
        match self.find(&key) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (key, value)),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if let Ok(index) = self.find(key) {
            self.0.remove(index);
        }
    }

    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&str, &Tree<'a>) -> bool) {
        self.0.retain(|(key, value)| is_kept(key, value));
    }

    /// Puts many values in at once.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = (Cow<'a, str>, Tree<'a>)>) {
        let before = std::mem::take(&mut self.0);
        *self = before.into_iter().chain(entries).collect();
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(key))
    }
}

impl<'a> FromIterator<(Cow<'a, str>, Tree<'a>)> for Entries<'a> {
    /// Of a key that comes twice, the last value counts.
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, Tree<'a>)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        if !entries.is_sorted_by(|(one, _), (other, _)| one < other) {
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            entries.dedup_by(|later, kept| {
                let is_same = later.0 == kept.0;
                if is_same {
                    std::mem::swap(later, kept);
                }
                is_same
            });
        }
        Self(entries)
    }
}
