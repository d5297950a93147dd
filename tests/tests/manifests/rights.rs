//! The rights in the manifests, and the table of them in `docs/security.md`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{name, objects, read, repository, strings};

/// A row of the table: who, may do what, with what.
type Right = (String, String, String);

/// What the manifests below this folder grant, as the table writes it.
fn granted(folder: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let all = objects(folder);
    for (path, binding) in &all {
        let kind = binding["kind"].as_str().unwrap();
        if !kind.ends_with("RoleBinding") {
            continue;
        }
        let role = &binding["roleRef"];
        let (_, role) = all
            .iter()
            .find(|(_, object)| object["kind"] == role["kind"] && object["metadata"]["name"] == role["name"])
            .unwrap_or_else(|| panic!("{path} binds a role that is not there: {role}"));
        let place = if kind == "RoleBinding" { " in coral-system" } else { "" };
        for subject in binding["subjects"].as_array().unwrap() {
            assert_eq!(subject["kind"], "ServiceAccount", "{path}");
            let who = subject["name"].as_str().unwrap();
            for rule in role["rules"].as_array().unwrap() {
                rights.extend(objects_of(rule).into_iter().map(|what| {
                    (
                        who.to_owned(),
                        strings(&rule["verbs"]).join(", "),
                        format!("{what}{place}"),
                    )
                }));
            }
        }
    }
    rights
}

/// `resource.group/name`, for each that the rule is about.
fn objects_of(rule: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for group in strings(&rule["apiGroups"]) {
        for resource in strings(&rule["resources"]) {
            let (kind, part) = resource.split_once('/').unwrap_or((&resource, ""));
            let dot = if group.is_empty() { "" } else { "." };
            let slash = if part.is_empty() { "" } else { "/" };
            let full = format!("{kind}{dot}{group}{slash}{part}");
            let names = strings(&rule["resourceNames"]);
            if names.is_empty() {
                found.push(full);
            } else {
                found.extend(names.iter().map(|name| format!("{full} {name}")));
            }
        }
    }
    found
}

/// The rows of the table under this heading.
fn documented(heading: &str) -> BTreeSet<Right> {
    let text = read("docs/security.md");
    let (_, rest) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("docs/security.md has no {heading}"));
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        assert!(
            cells[3].len() > 10 && cells[4].len() > 10,
            "no reason, or no consequence: {row}"
        );
        let code = |index: usize| cells[index].trim_matches('`').to_owned();
        (code(0), code(1), code(2))
    })
    .collect()
}

#[test]
fn the_document_tells_of_every_right_and_of_none_that_is_not_there() {
    for (folder, heading) in [
        ("deploy/base", "## Every right"),
        ("deploy/components", "## Rights of optional parts"),
    ] {
        let (granted, documented) = (granted(folder), documented(heading));
        let missing: Vec<_> = granted.difference(&documented).collect();
        let stale: Vec<_> = documented.difference(&granted).collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "docs/security.md, {heading}: it lacks {missing:#?}, and has {stale:#?} which nobody has"
        );
        assert!(!granted.is_empty());
    }
}

#[test]
fn nothing_is_granted_by_a_wildcard_or_to_escalate() {
    for (path, object) in objects("deploy") {
        for rule in object["rules"].as_array().into_iter().flatten() {
            // The rules of webhooks are others.
            let Some(verbs) = rule.get("verbs") else { continue };
            for list in [verbs, &rule["apiGroups"], &rule["resources"]] {
                assert!(!strings(list).iter().any(|word| word.contains('*')), "{path}: {rule}");
            }
            for verb in ["escalate", "bind", "impersonate", "deletecollection"] {
                assert!(!strings(verbs).iter().any(|word| word == verb), "{path}: {rule}");
            }
        }
    }
}

/// One account may read one Secret: the webhook, its own.
#[test]
fn nobody_reads_secrets_that_are_not_named() {
    for (path, object) in objects("deploy/base") {
        for rule in object["rules"].as_array().into_iter().flatten() {
            if strings(&rule["resources"]).iter().any(|resource| resource == "secrets") {
                assert_eq!(strings(&rule["resourceNames"]), ["coral-webhook-tls"], "{path}");
                assert_eq!(object["kind"], "Role", "{path}");
            }
        }
    }
}

#[test]
fn every_rule_has_its_reason_beside_it() {
    for (path, object) in objects("deploy") {
        if !object["kind"].as_str().unwrap().ends_with("Role") {
            continue;
        }
        let text = std::fs::read_to_string(repository(&path)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut rules = 0;
        for (number, line) in lines.iter().enumerate() {
            if line.trim_start().starts_with("- apiGroups:") {
                rules += 1;
                let before = lines[number - 1].trim_start();
                assert!(
                    before.starts_with("# "),
                    "{path}:{}: a rule without a reason",
                    number + 1
                );
            }
        }
        assert!(rules > 0, "{path}: {}", name(&object));
    }
}
