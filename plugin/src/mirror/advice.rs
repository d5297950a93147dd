//! What a person can do about a copy that is not there.

use coral_api::{FailureReason, ImageReference};

/// What to do, as a sentence for a `hint:` line. `registry` is that of the copy, and empty where the failure is about the original.
pub(crate) fn advice(reason: FailureReason, image: &str, registry: &str) -> String {
    let origin = image
        .parse::<ImageReference>()
        .map_or_else(|_| "the registry".to_owned(), |image| image.registry().to_owned());
    let is_about_copy = !registry.is_empty();
    let place = if is_about_copy { registry } else { &origin };
    match reason {
        FailureReason::NotFound => format!("check the name and the tag: {origin} has no such image"),
        FailureReason::Unauthorized | FailureReason::PullSecretUnreadable => {
            "the originals' credentials are spec.sourceSecrets of the Mirror, which `kubectl coral allow-secret --mirror` lets Coral read; those of \
             the registry of the copies are secretName of its destination, a Secret in Coral's namespace"
                .to_owned()
        }
        FailureReason::RegistryUnavailable | FailureReason::Timeout => {
            let field = if is_about_copy { "caSecretName" } else { "spec.sources" };
            format!(
                "check that Coral's Pods reach {place} (DNS, proxy, firewall, certificate: {field}), or, where it answered with an error, \
                 what it logs; Coral tries again by itself"
            )
        }
        FailureReason::RateLimited => {
            format!("{origin} asks for fewer requests: spec.sourceSecrets or a longer spec.refreshInterval help; Coral tries again by itself")
        }
        FailureReason::NoSpace | FailureReason::DiskPressure => format!(
            "{place} is full: enlarge it, or let unused copies go (spec.retention, `kubectl coral mirror gc`)"
        ),
        FailureReason::InvalidReference => "correct the image in spec.images of the Mirror, or use naming Flat".to_owned(),
        _ => "the message has the registry's own words".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_registry_that_it_is_about() {
        assert!(advice(FailureReason::NotFound, "nginx:1", "r.lan").contains("docker.io has no such image"));
        assert!(advice(FailureReason::RegistryUnavailable, "nginx:1", "r.lan").contains("reach r.lan"));
        let origin = advice(FailureReason::RegistryUnavailable, "nginx:1", "");
        assert!(
            origin.contains("reach docker.io") && origin.contains("spec.sources"),
            "{origin}"
        );
        assert!(advice(FailureReason::NoSpace, "nginx:1", "r.lan").contains("r.lan is full"));
    }
}
