//! What people are told of a write that has succeeded.

use std::collections::HashMap;

use coral_api::{ImageReference, Prefetch, PrefetchStatus};
use coral_runtime::{Cache, Key};
use jiff::SignedDuration;
use kube::{Resource as _, ResourceExt as _};

use crate::{
    notice::{gate_of_node, gate_of_prefetch, notices},
    plan::{GateOutcome, Write},
    recorder::{LostLabel, Recorder},
    write::Written,
};

/// What there is to tell of a write when it has succeeded.
pub(crate) enum Aftermath {
    /// A Prefetch has a new status.
    Status {
        /// The one that the new one was planned from. By the time the answer is there, the watch may have brought the new one.
        old: Option<Box<PrefetchStatus>>,
    },
    /// A node has lost its startup taint.
    Gate {
        node: String,
        /// The Prefetches that it waited for, as `namespace/name`.
        prefetches: Vec<String>,
        outcome: GateOutcome,
        waited: SignedDuration,
    },
    /// A node has lost labels of images.
    LabelsLost { node: String, labels: Vec<String> },
}

impl Aftermath {
    pub(crate) fn of(write: &Write, prefetches: &Cache<Prefetch>) -> Option<Self> {
        match write {
            Write::PrefetchStatus { namespace, name, .. } => {
                let known = prefetches.get(&(Some(namespace.clone()), name.clone()));
                let old = known.and_then(|known| known.status.clone());
                Some(Self::Status { old: old.map(Box::new) })
            }
            Write::RemoveStartupTaint {
                node,
                prefetches,
                outcome,
                waited,
                ..
            } => Some(Self::Gate {
                node: node.clone(),
                prefetches: prefetches.clone(),
                outcome: outcome.clone(),
                waited: *waited,
            }),
            Write::NodeLabels { node, labels } => {
                let removed = labels.iter().filter(|(_, value)| value.is_none());
                let labels: Vec<String> = removed.map(|(key, _)| key.clone()).collect();
                (!labels.is_empty()).then(|| Self::LabelsLost {
                    node: node.clone(),
                    labels,
                })
            }
            _ => None,
        }
    }
}

/// The Prefetches that want an image, by the label of the image. Made when it is needed, for most labels come and never go.
#[derive(Debug, Default)]
pub(crate) struct Labels(Option<HashMap<String, Vec<(Key, String)>>>);

impl Labels {
    /// Takes in that a Prefetch has changed.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    fn of(&mut self, prefetches: &Cache<Prefetch>) -> &HashMap<String, Vec<(Key, String)>> {
        self.0.get_or_insert_with(|| {
            let mut labels: HashMap<_, Vec<_>> = HashMap::new();
            for prefetch in prefetches.objects() {
                for spelling in &prefetch.spec.images {
                    if let Ok(image) = spelling.parse::<ImageReference>() {
                        let key = (prefetch.namespace(), prefetch.name_any());
                        let entry = labels.entry(image.label_key()).or_default();
                        entry.push((key, spelling.clone()));
                    }
                }
            }
            labels
        })
    }
}

/// Tells of it.
pub(crate) fn tell(
    recorder: &Recorder,
    written: &Written,
    aftermath: Aftermath,
    prefetches: &Cache<Prefetch>,
    labels_of_images: &mut Labels,
) {
    match aftermath {
        Aftermath::Status { old } => {
            if let Written::Prefetch(object) = written
                && let Some(new) = &object.status
            {
                for notice in notices(old.as_deref(), new) {
                    recorder.tell(Box::new(object.object_ref(&())), notice);
                }
            }
        }
        Aftermath::Gate {
            node,
            prefetches: waited_for,
            outcome,
            waited,
        } => {
            if let Written::Node(object) = written {
                recorder.tell(Box::new(object.object_ref(&())), gate_of_node(&outcome, waited));
            }
            for key in waited_for {
                let object = key
                    .split_once('/')
                    .and_then(|(namespace, name)| prefetches.get(&(Some(namespace.to_owned()), name.to_owned())));
                if let (Some(object), Some(notice)) = (object, gate_of_prefetch(&key, &node, &outcome, waited)) {
                    recorder.tell(Box::new(object.object_ref(&())), notice);
                }
            }
        }
        Aftermath::LabelsLost { node, labels } => {
            let wanted = labels_of_images.of(prefetches);
            let lost: Vec<LostLabel> = labels
                .iter()
                .flat_map(|label| {
                    wanted
                        .get(label)
                        .into_iter()
                        .flatten()
                        .map(move |wanted| (label, wanted))
                })
                .filter_map(|(label, (key, image))| {
                    Some(LostLabel {
                        label: label.clone(),
                        about: Box::new(prefetches.get(key)?.object_ref(&())),
                        image: image.clone(),
                    })
                })
                .collect();
            // What nobody wants any more went with its Prefetch: there is nobody left to tell.
            if !lost.is_empty() {
                recorder.labels_lost(node, lost);
            }
        }
    }
}
