//! The list of what refers to a manifest, for registries that keep none: an index under a tag that is made of the digest.

use bytes::Bytes;
use coral_registry::Manifest;
use serde_json::{Value, json};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The tag.
pub(crate) fn tag(subject: &str) -> String {
    subject.replacen(':', "-", 1)
}

/// The list with these referrers in it, too. `None` if all of them are. A list that is none is replaced.
pub(crate) fn with(list: Option<&Manifest>, referrers: &[&Manifest]) -> Option<Manifest> {
    let mut index = list
        .and_then(|list| serde_json::from_slice::<Value>(&list.bytes).ok())
        .filter(|index| index["manifests"].is_array())
        .unwrap_or_else(|| json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}));
    let entries = index["manifests"].as_array_mut()?;
    let before = entries.len();
    for referrer in referrers {
        if !entries.iter().any(|entry| entry["digest"] == referrer.digest) {
            entries.push(entry(referrer));
        }
    }
    if entries.len() == before {
        return None;
    }
    let bytes = Bytes::from(index.to_string());
    Some(Manifest {
        media_type: INDEX_TYPE.to_owned(),
        digest: coral_registry::digest(&bytes),
        bytes,
    })
}

/// What the specification wants to be said of a referrer.
fn entry(referrer: &Manifest) -> Value {
    let document: Value = serde_json::from_slice(&referrer.bytes).unwrap_or_default();
    let mut entry = json!({
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.bytes.len(),
    });
    let kind = [&document["artifactType"], &document["config"]["mediaType"]]
        .into_iter()
        .find(|kind| kind.as_str().is_some_and(|kind| !kind.is_empty()));
    if let Some(kind) = kind {
        entry["artifactType"] = kind.clone();
    }
    if document["annotations"].is_object() {
        entry["annotations"] = document["annotations"].clone();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(document: &Value) -> Manifest {
        let bytes = Bytes::from(document.to_string());
        Manifest {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: coral_registry::digest(&bytes),
            bytes,
        }
    }

    #[test]
    fn referrers_are_added_once_and_what_is_there_stays() {
        let signature = manifest(&json!({"artifactType": "a/sig", "annotations": {"x": "y"}, "layers": []}));
        let contents = manifest(&json!({"config": {"mediaType": "a/sbom"}, "layers": []}));
        let first = with(None, &[&signature]).unwrap();
        let both = with(Some(&first), &[&signature, &contents]).unwrap();
        let index: Value = serde_json::from_slice(&both.bytes).unwrap();
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0]["artifactType"], "a/sig");
        assert_eq!(entries[0]["annotations"]["x"], "y");
        assert_eq!(entries[0]["size"], signature.bytes.len());
        assert_eq!(entries[1]["artifactType"], "a/sbom");
        assert_eq!(with(Some(&both), &[&contents]), None);
        let nonsense = manifest(&json!("nonsense"));
        assert_eq!(with(Some(&nonsense), &[&signature]), Some(first));
    }
}
