//! Image records with labels, which containerd has behind CRI.

use std::collections::BTreeMap;

use tonic::Status;

use super::{Held, State};

/// The label that makes CRI report an image as pinned, with its value.
pub(crate) const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// Labels of one name.
pub(crate) type Labels = BTreeMap<String, String>;

/// One name of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) labels: Labels,
}

/// What a list of records is narrowed to: the three forms of containerd's filters that there is a use for.
enum Filter<'a> {
    Name(&'a str),
    Digest(&'a str),
    HasLabel(&'a str),
}

impl<'a> Filter<'a> {
    fn read(text: &'a str) -> Result<Self, Status> {
        if let Some(name) = text.strip_prefix("name==") {
            Ok(Self::Name(name))
        } else if let Some(digest) = text.strip_prefix("target.digest==") {
            Ok(Self::Digest(digest))
        } else if let Some(label) = text.strip_prefix("labels.\"").and_then(|rest| rest.strip_suffix('"')) {
            Ok(Self::HasLabel(label))
        } else {
            Err(Status::invalid_argument(format!(
                "the filter {text} is none that is known here"
            )))
        }
    }

    fn admits(&self, record: &Record) -> bool {
        match self {
            Self::Name(name) => record.name == *name,
            Self::Digest(digest) => record.digest == *digest,
            Self::HasLabel(label) => record.labels.contains_key(*label),
        }
    }
}

impl Held {
    fn names<'a>(&'a self, id: &'a str) -> impl Iterator<Item = String> + 'a {
        let id = format!("sha256:{id}");
        self.tags.iter().chain(&self.digests).cloned().chain([id])
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.labels.values().any(is_pinned)
    }
}

fn is_pinned(labels: &Labels) -> bool {
    let (key, value) = PINNED;
    labels.get(key).is_some_and(|pinned| pinned == value)
}

impl State {
    /// The records that one of the filters admits; all of them when there is no filter.
    pub(crate) fn records(&self, filters: &[String]) -> Result<Vec<Record>, Status> {
        let filters: Vec<Filter<'_>> = filters
            .iter()
            .map(|text| Filter::read(text))
            .collect::<Result<_, _>>()?;
        let records = self.held.iter().flat_map(|(id, held)| {
            held.names(id).map(|name| Record {
                digest: held.digest.clone(),
                labels: held.labels.get(&name).cloned().unwrap_or_default(),
                name,
            })
        });
        Ok(records
            .filter(|record| filters.is_empty() || filters.iter().any(|filter| filter.admits(record)))
            .collect())
    }

    /// The names that have the label.
    pub(crate) fn pinned(&self) -> Vec<String> {
        let labels = self.held.values().flat_map(|held| &held.labels);
        labels
            .filter(|(_, labels)| is_pinned(labels))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Deletes one name of an image. The image stays, if only under its ID.
    pub(crate) fn delete_record(&mut self, name: &str) -> Result<(), Status> {
        self.deleted_records.push(name.to_owned());
        for held in self.held.values_mut() {
            let digests = held.digests.len();
            held.digests.retain(|digest| digest != name);
            if held.tags.remove(name) || held.digests.len() < digests {
                held.labels.remove(name);
                return Ok(());
            }
        }
        Err(Status::not_found(format!("image {name:?}: not found")))
    }

    /// Changes these labels of a record, and no others. An empty value takes a label away.
    pub(crate) fn label(&mut self, name: &str, changes: Labels) -> Result<Record, Status> {
        for (id, held) in &mut self.held {
            if !held.names(id).any(|other| other == name) {
                continue;
            }
            let labels = held.labels.entry(name.to_owned()).or_default();
            for (key, value) in changes {
                if value.is_empty() {
                    labels.remove(&key);
                } else {
                    labels.insert(key, value);
                }
            }
            return Ok(Record {
                name: name.to_owned(),
                digest: held.digest.clone(),
                labels: labels.clone(),
            });
        }
        Err(Status::not_found(format!("image {name:?}: not found")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{Catalogue, Flavour};

    const APP: &str = "registry.example/app:v1";

    fn state() -> State {
        let mut state = State::new(Flavour::Containerd, Catalogue::of_everything(1));
        state.hold(APP).unwrap();
        state.hold("registry.example/other:v1").unwrap();
        state
    }

    fn records(state: &State, filter: &str) -> Vec<Record> {
        state.records(&[filter.to_owned()]).unwrap()
    }

    #[test]
    fn every_name_of_an_image_has_a_record() {
        let state = state();
        assert_eq!(state.records(&[]).unwrap().len(), 6);
        let record = records(&state, &format!("name=={APP}")).remove(0);
        let names: Vec<String> = records(&state, &format!("target.digest=={}", record.digest))
            .into_iter()
            .map(|record| record.name)
            .collect();
        assert_eq!(names.len(), 3);
        assert!(names.contains(&format!("registry.example/app@{}", record.digest)));
        assert!(state.records(&["size==1".to_owned()]).is_err());
    }

    #[test]
    fn a_deleted_name_leaves_the_others() {
        let mut state = state();
        let digest = state.status(APP).unwrap().repo_digests.remove(0);
        state.delete_record(APP).unwrap();
        assert_eq!(state.status(APP), None);
        let image = state.status(&digest).unwrap();
        assert!(image.repo_tags.is_empty());
        state.delete_record(&digest).unwrap();
        assert!(state.status(&image.id).is_some());
        assert!(state.delete_record(&digest).is_err());
    }

    #[test]
    fn a_label_pins_an_image_and_an_empty_value_unpins_it() {
        let mut state = state();
        let (key, value) = PINNED;
        let label = |value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        state.label(APP, label(value)).unwrap();
        assert!(state.status(APP).unwrap().pinned);
        assert_eq!(state.pinned(), [APP]);
        assert!(!state.status("registry.example/other:v1").unwrap().pinned);
        assert_eq!(records(&state, &format!("labels.{key:?}"))[0].name, APP);
        state.label(APP, label("")).unwrap();
        assert!(!state.status(APP).unwrap().pinned);
        assert!(records(&state, &format!("labels.{key:?}")).is_empty());
        assert!(state.label("registry.example/third", label(value)).is_err());
    }
}
