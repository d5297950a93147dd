//! Objects for tests, written as the API server would give them.

use coral_api::{NodeImages, Prefetch};
use serde_json::Value;

/// A Prefetch from its metadata, spec and status.
pub(crate) fn prefetch(value: Value) -> Prefetch {
    object(value, "Prefetch")
}

/// A `NodeImages` from its metadata, spec and status.
pub(crate) fn node_images(value: Value) -> NodeImages {
    object(value, "NodeImages")
}

fn object<K: serde::de::DeserializeOwned>(mut value: Value, kind: &str) -> K {
    value["apiVersion"] = "image.stvz.io/v1alpha1".into();
    value["kind"] = kind.into();
    serde_json::from_value(value).expect("the fixture is an object of that kind")
}
