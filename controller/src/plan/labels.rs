//! The labels that say which images are on a node.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{ImageReference, keys, node_images::DesiredImage};
use kube::ResourceExt as _;

use super::{NodeView, Write};

/// The write that brings a node's image labels to what its agent has said of the images that it is asked for.
pub(super) fn write(node: &NodeView<'_>, desired: &BTreeMap<String, DesiredImage>) -> Option<Write> {
    let available: BTreeSet<String> = desired
        .keys()
        .filter(|image| node.holds(image))
        .filter_map(|image| image.parse::<ImageReference>().ok())
        .map(|image| image.label_key())
        .collect();
    let present = node.node.labels();
    let added = available
        .iter()
        .filter(|key| present.get(*key).is_none_or(|value| value != keys::AVAILABLE))
        .map(|key| (key.clone(), Some(keys::AVAILABLE.to_owned())));
    let removed = present
        .keys()
        .filter(|key| is_image_label(key) && !available.contains(*key))
        .map(|key| (key.clone(), None));
    let labels: BTreeMap<String, Option<String>> = added.chain(removed).collect();
    (!labels.is_empty()).then(|| Write::NodeLabels {
        node: node.name.to_owned(),
        labels,
    })
}

/// Whether the key is one that [`ImageReference::label_key`] makes. Other keys, even with Coral's prefix, are left alone.
fn is_image_label(key: &str) -> bool {
    key.strip_prefix(keys::PREFIX)
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
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
