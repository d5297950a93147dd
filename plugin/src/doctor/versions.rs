//! Whether the command, the parts and Kubernetes fit together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Check, Finding, Subject,
    facts::{Facts, NodeFacts},
};
use crate::{human, installation};

/// The oldest minor version of Kubernetes 1 whose API server knows everything in `deploy/`: match conditions of webhooks.
const OLDEST_MINOR: u32 = 28;
/// Minor versions that a kubelet may be behind its API server.
const KUBELET_LAG: u32 = 3;

/// The command that brings the cluster to what this command has, wherever in it Coral is.
pub(super) const UPGRADE: &str = "kubectl coral upgrade";

/// Compares versions.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.parts {
        Ok(_) => check_parts(facts, &mut findings),
        Err(unread) => findings.push(Finding::unread(Check::Versions, "the parts of Coral", unread)),
    }
    match &facts.server_version {
        Ok(version) => check_server(version, facts, &mut findings),
        Err(unread) => findings.push(Finding::unread(Check::Versions, "the version of Kubernetes", unread)),
    }
    if findings.is_empty() {
        let coral = match versions(facts).first() {
            Some(version) => format!("Coral {version}, as this command"),
            None => format!("this command is {}, and the parts do not tell", facts.client_version),
        };
        let kubernetes = facts.server_version.as_deref().unwrap_or("of unknown version");
        findings.push(Finding::ok(
            Check::Versions,
            format!("{coral}; Kubernetes {kubernetes}"),
        ));
    }
    findings.extend(different_builds(facts));
    findings
}

/// What the labels of the parts say.
fn versions(facts: &Facts) -> Vec<String> {
    let parts = facts.parts.as_deref().unwrap_or_default();
    let versions = parts
        .iter()
        .filter_map(|part| part["metadata"]["labels"][installation::VERSION].as_str());
    let versions: BTreeSet<&str> = versions.collect();
    versions.into_iter().map(str::to_owned).collect()
}

fn check_parts(facts: &Facts, findings: &mut Vec<Finding>) {
    let versions = versions(facts);
    match versions.as_slice() {
        [] => {}
        [version] if *version == facts.client_version => {}
        [version] => findings.push(
            Finding::warning(
                Check::Versions,
                format!(
                    "the cluster has Coral {version}, and this command is {}",
                    facts.client_version
                ),
            )
            .remedy(format!("`{UPGRADE}`, or the command of that version")),
        ),
        several => findings.push(
            Finding::warning(
                Check::Versions,
                format!("the parts are of different versions: {}", several.join(", ")),
            )
            .remedy(UPGRADE),
        ),
    }
}

/// What the pods of a part run, where they do not all run the same.
fn different_builds(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A tag that moved gives the pods of one part different programs, until somebody starts them anew.
    let mut builds: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pod in facts.pods.as_deref().unwrap_or_default() {
        let ids = pod.image_ids.iter().map(String::as_str);
        builds.entry(&pod.part).or_default().extend(ids);
    }
    for (part, ids) in builds {
        if ids.len() > 1 {
            let what = format!("pods of {part} run {} different images", ids.len());
            findings.push(
                Finding::note(Check::Versions, what)
                    .remedy("normal during an upgrade, and with several architectures; else give --image a digest, or a tag that does not move"),
            );
        }
    }
    findings
}

fn check_server(version: &str, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(server) = minor(version) else {
        return;
    };
    if server < OLDEST_MINOR {
        findings.push(
            Finding::problem(
                Check::Versions,
                format!("Kubernetes {version} is older than 1.{OLDEST_MINOR}: it does not know all that Coral's webhook needs"),
            )
            .remedy("upgrade Kubernetes"),
        );
    }
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    let skew = |node: &&NodeFacts| {
        minor(&node.kubelet_version).is_some_and(|kubelet| kubelet > server || kubelet + KUBELET_LAG < server)
    };
    for node in nodes.iter().filter(skew) {
        let kubelet = &node.kubelet_version;
        let what =
            format!("the kubelet is {kubelet}, which Kubernetes does not support with an API server of {version}");
        findings.push(
            Finding::warning(Check::Versions, what)
                .about(Subject::node(&node.name))
                .remedy(format!(
                    "kubelets may be up to {} behind the API server, and never ahead",
                    human::counted(3, "minor version")
                )),
        );
    }
}

/// The minor version in a text such as `v1.36.3` or `v1.30+`.
pub(super) fn minor(version: &str) -> Option<u32> {
    let rest = version.trim_start_matches('v').strip_prefix("1.")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_are_read_from_what_vendors_make_of_them() {
        for (text, expected) in [
            ("v1.36.3", Some(36)),
            ("v1.33.4-eks-abc", Some(33)),
            ("1.30+", Some(30)),
            ("v2.0.0", None),
            ("", None),
        ] {
            assert_eq!(minor(text), expected, "{text}");
        }
    }
}
