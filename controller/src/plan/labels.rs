//! The labels that say which images are on a node.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::keys;
use kube::ResourceExt as _;

use super::{Write, view::NodeView, wish::Catalogue};

/// The write that brings a node's image labels to what its agent has said of the images that it is asked for.
///
/// A node that is not Ready gets no further labels, and loses all of them when its agent is silent, too. They come back when the node
/// is Ready again.
pub(super) fn write(node: &NodeView<'_>, is_silent: bool, catalogue: &Catalogue) -> Option<Write> {
    let available: BTreeSet<&str> = node
        .cells()
        .iter()
        .filter(|cell| !is_silent && !cell.askers.is_empty() && node.holds(cell.image))
        .map(|cell| catalogue.image(cell.image).label.as_str())
        .collect();
    let present = node.node.labels();
    let added = available
        .iter()
        .filter(|key| node.is_ready && present.get(**key).is_none_or(|value| value != keys::AVAILABLE))
        .map(|key| ((*key).to_owned(), Some(keys::AVAILABLE.to_owned())));
    let removed = present
        .keys()
        .filter(|key| is_image_label(key) && !available.contains(key.as_str()))
        .map(|key| (key.clone(), None));
    let labels: BTreeMap<String, Option<String>> = added.chain(removed).collect();
    (!labels.is_empty()).then(|| Write::NodeLabels {
        node: node.name.to_owned(),
        labels,
    })
}

/// Whether the key is one that [`ImageReference::label_key`](coral_api::ImageReference::label_key) makes. Other keys, even with Coral's
/// prefix, are left alone.
fn is_image_label(key: &str) -> bool {
    key.strip_prefix(keys::PREFIX)
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use coral_api::ImageReference;

    use super::*;

    #[test]
    fn only_image_labels_are_coral_s_to_remove() {
        let label = "nginx".parse::<ImageReference>().unwrap().label_key();
        assert!(is_image_label(&label));
        for key in [
            "image.stvz.io/not-ready",
            "image.stvz.io/",
            "other.io/0123456789abcdef0123456789abcdef",
            "image.stvz.iox/0",
        ] {
            assert!(!is_image_label(key), "{key}");
        }
    }
}
