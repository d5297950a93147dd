//! Which images pods are sent away from, and where to.

use std::collections::HashMap;

use coral_api::{ImageReference, MirroredImage};

/// The copies that pods are sent to, by the identity of the original.
pub(super) type Copies = HashMap<String, Copied>;

/// The copy of an image that a pod which is created now would name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Copied {
    /// What nodes know it as, and so what the kubelet will ask for.
    pub(super) reference: String,
    /// Secret in the pod's namespace that it takes to pull the copy.
    pub(super) pull_secret_name: Option<String>,
}

/// Reads what the webhook reads, too: both decide by the same function.
pub(super) fn read(mirrored_images: &[&MirroredImage]) -> Copies {
    let replaced = |image: &&MirroredImage| {
        let copy = image.replacement()?;
        let original: ImageReference = image.spec.image.parse().ok()?;
        let reference: ImageReference = copy.node_reference.parse().ok()?;
        let copied = Copied {
            reference: reference.identity(),
            pull_secret_name: copy.pull_secret_name.clone(),
        };
        Some((original.identity(), copied))
    };
    mirrored_images.iter().filter_map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mirrored(image: &str, rewrite: &str, state: &str, node_reference: &str) -> MirroredImage {
        serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"image": image, "rewrite": rewrite},
            "status": {"destinations": [{
                "mirror": "m", "reference": "registry.example/x", "nodeReference": node_reference, "state": state,
                "pullSecretName": "pull",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn copies_are_found_by_any_spelling_of_the_original() {
        let images = [
            mirrored(
                "nginx",
                "Always",
                "Present",
                "localhost:7439/docker.io/library/nginx:latest",
            ),
            mirrored(
                "docker.io/library/redis:7",
                "Never",
                "Present",
                "localhost:7439/docker.io/library/redis:7",
            ),
            mirrored("ghcr.io/a/b:1", "Always", "Pending", "localhost:7439/ghcr.io/a/b:1"),
            mirrored("Bad Name", "Always", "Present", "localhost:7439/bad:1"),
            mirrored("ghcr.io/a/c:1", "Always", "Present", "Bad Name"),
        ];
        let copies = read(&images.iter().collect::<Vec<_>>());
        let expected = Copied {
            reference: "localhost:7439/docker.io/library/nginx:latest".to_owned(),
            pull_secret_name: Some("pull".to_owned()),
        };
        assert_eq!(
            copies,
            HashMap::from([("docker.io/library/nginx:latest".to_owned(), expected)])
        );
    }
}
