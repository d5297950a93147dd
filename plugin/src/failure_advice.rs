//! What a person can do about an image that is not on a node.

use coral_api::{FailureReason, ImageReference};

use crate::originals::{is_relayed, relay_advice};

/// What to do, as a sentence for a `hint:` line. `image` is what the node asked for.
pub(crate) fn advice(reason: FailureReason, image: &str) -> String {
    let registry = image
        .parse::<ImageReference>()
        .map_or_else(|_| "the registry".to_owned(), |image| image.registry().to_owned());
    match reason {
        FailureReason::NotFound => format!("check the name and the tag: {registry} has no such image"),
        FailureReason::Unauthorized => format!(
            "{registry} wants credentials: name a pull secret of this namespace in spec.imagePullSecrets of the Prefetch, and check the spelling, since registries also answer so for images that do not exist"
        ),
        FailureReason::RegistryUnavailable if is_relayed(image) => relay_advice(),
        FailureReason::RegistryUnavailable => {
            format!("check that the nodes reach {registry} (DNS, proxy, firewall, certificate); Coral tries again by itself")
        }
        FailureReason::RateLimited => {
            format!("{registry} asks for fewer requests: a pull secret or a lower spec.parallelism helps; Coral tries again by itself")
        }
        FailureReason::Timeout => {
            "the pull took longer than spec.timeout of the Prefetch: raise it, or look at the network of the node".to_owned()
        }
        FailureReason::DiskPressure => {
            "the node is short of disk: free some, and Coral goes on by itself".to_owned()
        }
        FailureReason::NoSpace => {
            "the image does not fit on the node's image file system: free space there or enlarge it".to_owned()
        }
        FailureReason::InvalidReference => "correct the image in spec.images of the Prefetch".to_owned(),
        FailureReason::PlatformMismatch => {
            "the image has no variant for the node's platform: select other nodes, for example with --node-selector kubernetes.io/arch=amd64"
                .to_owned()
        }
        FailureReason::PullSecretUnreadable => {
            "a Secret in spec.imagePullSecrets does not exist in this namespace, or Coral's agents may not read it: `kubectl coral allow-secret NAME`".to_owned()
        }
        FailureReason::RuntimeUnavailable => {
            "the container runtime of the node does not answer: look at its service and at Coral's agent there".to_owned()
        }
        FailureReason::RemovalRefused => {
            "the image stays until nothing needs it; Coral tries again by itself".to_owned()
        }
        FailureReason::Unknown => "the message has the container runtime's own words".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_registry_that_was_asked() {
        let text = advice(FailureReason::NotFound, "ghcr.io/acme/app:v1");
        assert_eq!(text, "check the name and the tag: ghcr.io has no such image");
        assert!(advice(FailureReason::Unauthorized, "nginx:1.29").starts_with("docker.io wants credentials"));
    }

    #[test]
    fn advice_for_copies_speaks_of_the_relay() {
        let text = advice(
            FailureReason::RegistryUnavailable,
            "localhost:7439/mirror/docker.io/library/nginx:1.29",
        );
        assert!(text.contains("coral-relay"), "{text}");
        assert!(advice(FailureReason::RegistryUnavailable, "nginx:1.29").contains("reach docker.io"));
    }

    #[test]
    fn advice_survives_what_is_not_a_reference() {
        assert_eq!(
            advice(FailureReason::NotFound, "Not An Image"),
            "check the name and the tag: the registry has no such image"
        );
    }
}
