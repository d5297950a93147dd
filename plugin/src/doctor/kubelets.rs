//! Settings of kubelets that defeat prefetching.

use serde_json::Value;

use super::{
    Check, Finding, Subject,
    facts::{Facts, Report},
    versions::minor,
};
use crate::human;

/// The minor version of Kubernetes 1 from which kubelets verify credentials unless they are told not to.
const VERIFIES_SINCE: u32 = 35;
/// Percent of the image filesystem: so near to the threshold the next image may be the one that is too much.
const NEARLY: i64 = 5;

/// Looks at the kubelets that were asked.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    if facts.nodes.is_err() {
        // Without nodes there are none to ask, and that has been said.
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut read = 0_usize;
    let mut serial = 0_usize;
    for (node, settings) in &facts.kubelets.asked {
        let about = |finding: Finding| finding.about(Subject::node(node));
        let settings = match settings {
            Ok(settings) => settings,
            Err(unread) if unread.is_forbidden => {
                findings.push(
                    Finding::note(
                        Check::Kubelets,
                        "could not look at the settings of kubelets: that takes the right to get nodes/proxy",
                    )
                    .about(Subject::node(node)),
                );
                continue;
            }
            Err(_) => {
                // The answer has the name and the address of the node in it, so it would keep alike findings apart.
                findings.push(about(
                    Finding::warning(
                        Check::Kubelets,
                        "the API server does not reach its kubelet: no settings, and no logs of its pods either",
                    )
                    .remedy(format!("kubectl get --raw /api/v1/nodes/{node}/proxy/configz")),
                ));
                continue;
            }
        };
        read += 1;
        serial += usize::from(settings["serializeImagePulls"] != Value::Bool(false));
        let report = facts.reports.as_ref().ok().and_then(|reports| reports.get(node));
        let found = [
            full(settings, report),
            age(settings),
            verification(settings, facts.server_version.as_deref().ok()),
        ];
        findings.extend(found.into_iter().flatten().map(about));
    }
    if serial > 0 {
        findings.push(Finding::note(
            Check::Kubelets,
            format!(
                "kubelets pull one image after another (serializeImagePulls, on {} of {} looked at): what is not prefetched waits for what is before it; Coral's own pulls do not",
                human::count(serial),
                human::count(read)
            ),
        ));
    }
    findings.push(Finding::ok(
        Check::Kubelets,
        match facts.kubelets.of {
            0 => "there is none that is Ready".to_owned(),
            all => format!("settings of {} looked at", of(read, all)),
        },
    ));
    findings
}

fn of(read: usize, all: usize) -> String {
    if read == all {
        human::counted(all, "kubelet")
    } else {
        format!("{} of {}", human::count(read), human::counted(all, "kubelet"))
    }
}

/// Whether the kubelet deletes images already, or soon. It counts as the kubelet does.
fn full(settings: &Value, report: Option<&Report>) -> Option<Finding> {
    let threshold = |field: &str, default: i64| settings[field].as_i64().unwrap_or(default);
    let high = threshold("imageGCHighThresholdPercent", 85);
    let low = threshold("imageGCLowThresholdPercent", 80);
    let filesystem = report?.filesystem?;
    let (free, capacity) = (filesystem.free_bytes?, filesystem.capacity_bytes?);
    if capacity <= 0 || high >= 100 {
        return None;
    }
    let used = 100 - free.saturating_mul(100) / capacity;
    let remedy = "give the nodes larger disks, or their kubelets a higher imageGCHighThresholdPercent; Prefetches with `pin: true` keep their images all the same (containerd)";
    let thresholds = format!("imageGCHighThresholdPercent is {high}, …Low {low}");
    if used >= high {
        let what = format!(
            "the image filesystem is so full that the kubelet deletes images that no container uses, prefetched ones too ({thresholds})"
        );
        Some(Finding::problem(Check::Kubelets, what).remedy(remedy))
    } else if used + NEARLY >= high {
        let what = format!(
            "the image filesystem is nearly so full that the kubelet deletes images that no container uses ({thresholds})"
        );
        Some(Finding::warning(Check::Kubelets, what).remedy(remedy))
    } else {
        None
    }
}

/// Whether the kubelet deletes images that nobody used for some time.
fn age(settings: &Value) -> Option<Finding> {
    let text = settings["imageMaximumGCAge"].as_str().unwrap_or("0s");
    if text.is_empty() || human::parse_duration(text).is_ok_and(|age| age.is_zero()) {
        return None;
    }
    let what = format!(
        "the kubelet deletes images that no container used for {text} (imageMaximumGCAge), and Coral fetches them again"
    );
    let remedy = "set imageMaximumGCAge to 0s; Prefetches with `pin: true` keep their images all the same (containerd)";
    Some(Finding::warning(Check::Kubelets, what).remedy(remedy))
}

/// Whether the kubelet lets pods have images that it has not pulled itself (KEP-2535). To it, what Coral pulled is preloaded.
fn verification(settings: &Value, server_version: Option<&str>) -> Option<Finding> {
    let gate = settings["featureGates"]["KubeletEnsureSecretPulledImages"].as_bool();
    let by_default = server_version
        .and_then(minor)
        .is_none_or(|minor| minor >= VERIFIES_SINCE);
    if !gate.unwrap_or(by_default) {
        return None;
    }
    let policy = "imagePullCredentialsVerificationPolicy";
    match settings[policy].as_str()? {
        "AlwaysVerify" => Some(
            Finding::problem(
                Check::Kubelets,
                format!(
                    "the kubelet does not believe in images that it has not pulled itself ({policy} is AlwaysVerify): with pull policy IfNotPresent it asks the registry all the same, and with Never pods fail with ErrImageNeverPull"
                ),
            )
            .remedy("set it to NeverVerifyPreloadedImages, the default; or to NeverVerifyAllowlistedImages with the images that are prefetched"),
        ),
        "NeverVerifyAllowlistedImages" => {
            let listed = settings["preloadedImagesVerificationAllowlist"].as_array().map_or(0, Vec::len);
            Some(
                Finding::warning(
                    Check::Kubelets,
                    format!(
                        "only prefetched images of a list ({}) are used without asking the registry, and with pull policy Never at all ({policy} is NeverVerifyAllowlistedImages)",
                        match listed {
                            1 => "1 entry".to_owned(),
                            number => format!("{} entries", human::count(number)),
                        }
                    ),
                )
                .remedy("see that preloadedImagesVerificationAllowlist covers what is prefetched, or set the default, NeverVerifyPreloadedImages"),
            )
        }
        _ => None,
    }
}
