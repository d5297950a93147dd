//! Whether the parts may do what they must, and whoever runs this command what its verbs need.

use super::{
    Check, Finding, Subject,
    facts::{Facts, Right},
    versions::UPGRADE,
};

/// Looks at every right that was asked about.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (account, right, is_allowed) in &facts.access.accounts {
        match is_allowed {
            Ok(true) => {}
            Ok(false) => findings.push(
                Finding::problem(Check::Rights, format!("it may not {}", sentence(right)))
                    .about(Subject::namespaced("serviceaccount", &facts.namespace, account))
                    .remedy(format!("`{UPGRADE}` gives its rights back")),
            ),
            Err(unread) => findings.push(Finding::unread(Check::Rights, "the rights of Coral's parts", unread)),
        }
    }
    let mut missing: Vec<(&str, Vec<String>)> = Vec::new();
    for (right, verb, is_allowed) in &facts.access.own {
        match is_allowed {
            Ok(true) => {}
            Ok(false) => match missing.iter_mut().find(|(known, _)| known == verb) {
                Some((_, rights)) => rights.push(sentence(right)),
                None => missing.push((verb, vec![sentence(right)])),
            },
            Err(unread) => findings.push(Finding::unread(Check::Rights, "your rights", unread)),
        }
    }
    findings.dedup();
    if findings.is_empty() {
        let yours = if missing.is_empty() {
            "you have what the command needs"
        } else {
            "you have some of what the command needs"
        };
        findings.push(Finding::ok(
            Check::Rights,
            format!("Coral's parts have theirs, and {yours}"),
        ));
    }
    for (verb, rights) in missing {
        findings.push(
            Finding::note(
                Check::Rights,
                format!(
                    "you may not {}, which `kubectl coral {verb}` needs",
                    rights.join(", nor ")
                ),
            )
            .remedy("ask for the right, where you need it"),
        );
    }
    findings
}

/// `watch nodeimages.image.stvz.io/status in namespace shop`
fn sentence(right: &Right) -> String {
    let mut text = format!("{} {}", right.verb, right.resource);
    if !right.group.is_empty() {
        text = format!("{text}.{}", right.group);
    }
    if let Some(part) = &right.subresource {
        text = format!("{text}/{part}");
    }
    if let Some(name) = &right.name {
        text = format!("{text} {name}");
    }
    match &right.namespace {
        Some(namespace) => format!("{text} in namespace {namespace}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_named_as_kubectl_names_them() {
        let mut right = Right {
            verb: "patch".to_owned(),
            group: "image.stvz.io".to_owned(),
            resource: "nodeimages".to_owned(),
            subresource: Some("status".to_owned()),
            ..Right::default()
        };
        assert_eq!(sentence(&right), "patch nodeimages.image.stvz.io/status");
        right.namespace = Some("shop".to_owned());
        right.name = Some("a".to_owned());
        right.group = String::new();
        assert_eq!(sentence(&right), "patch nodeimages/status a in namespace shop");
    }
}
