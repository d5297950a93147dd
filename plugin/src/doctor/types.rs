//! Whether the resource types are there, served, and those that this command knows.

use serde_json::Value;

use super::{
    Check, Finding, Subject,
    facts::{Facts, ResourceType},
    versions::UPGRADE,
};
use crate::{human, rollout};

const KIND: &str = "crd";

/// Says so where nothing of Coral is in the cluster, or nothing but the resource types.
pub(super) fn not_installed(facts: &Facts) -> Option<Finding> {
    let has_parts = match &facts.parts {
        Ok(parts) => !parts.is_empty(),
        // Who may not look at them cannot say that they are missing.
        Err(_) => true,
    };
    let is_bound = *facts.is_bound.as_ref().unwrap_or(&has_parts);
    let known_missing = |one: &ResourceType| matches!(one.found, Ok(None));
    let types_missing =
        facts.types.iter().all(known_missing) || facts.prefetches.as_ref().is_err_and(|unread| unread.is_unknown_type);
    let install = "kubectl coral install";
    if types_missing && !is_bound && (facts.parts.is_err() || !has_parts) {
        Some(Finding::problem(Check::Installation, "Coral is not installed in this cluster").remedy(install))
    } else if !types_missing && facts.is_bound == Ok(false) && !has_parts {
        let what = "of Coral there are only the resource types in this cluster: no part of it is installed";
        Some(Finding::problem(Check::Installation, what).remedy(install))
    } else {
        None
    }
}

/// Looks at each resource type.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.types.iter().flat_map(|one| check_one(one, facts)).collect();
    if findings.is_empty() {
        let served = human::counted(facts.types.len(), "resource type");
        findings.push(Finding::ok(
            Check::ResourceTypes,
            format!("{served}, served as this command knows them"),
        ));
    }
    findings
}

fn check_one(one: &ResourceType, facts: &Facts) -> Vec<Finding> {
    let about = |finding: Finding| vec![finding.about(Subject::cluster_wide(KIND, &one.name))];
    let found = match &one.found {
        Ok(Some(found)) => found,
        Ok(None) => {
            return about(Finding::problem(Check::ResourceTypes, "this resource type is missing").remedy(UPGRADE));
        }
        Err(unread) => return vec![Finding::unread(Check::ResourceTypes, "resource types", unread)],
    };
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return about(
            Finding::problem(
                Check::ResourceTypes,
                "this resource type is being deleted, and with it every object of it",
            )
            .remedy(format!("wait until it is gone, then `{UPGRADE}`")),
        );
    }
    if let rollout::Stage::Waiting(what) = rollout::stage(found) {
        return about(
            Finding::problem(Check::ResourceTypes, format!("this resource type {what}"))
                .remedy(format!("kubectl describe crd {}", one.name)),
        );
    }
    match difference(&one.expected["spec"], &found["spec"], "spec") {
        Some(path) => about(
            Finding::warning(
                Check::ResourceTypes,
                format!(
                    "it is not what this command, {}, has: {}",
                    facts.client_version,
                    short(&path)
                ),
            )
            .remedy(UPGRADE),
        ),
        None => Vec::new(),
    }
}

/// The first place at which the server has something else than what was applied. What the server adds by itself is no difference, but a
/// field of a resource is.
pub(super) fn difference(expected: &Value, found: &Value, path: &str) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let is_exact = path.ends_with(".properties");
            let added = found.keys().find(|key| is_exact && !expected.contains_key(*key));
            if let Some(added) = added {
                return Some(format!("{path}.{added} is there"));
            }
            // What is said of a field does not change what it does.
            let mut telling = expected
                .iter()
                .filter(|(key, value)| !(*key == "description" && value.is_string()));
            telling.find_map(|(key, value)| {
                let path = format!("{path}.{key}");
                match found.get(key) {
                    Some(other) => difference(value, other, &path),
                    None if is_empty(value) => None,
                    None => Some(format!("{path} is missing")),
                }
            })
        }
        (Value::Array(expected), Value::Array(found)) => {
            if expected.len() != found.len() {
                return Some(format!("{path} has {} entries, not {}", found.len(), expected.len()));
            }
            let mut pairs = expected.iter().zip(found).enumerate();
            pairs.find_map(|(place, (one, other))| difference(one, other, &format!("{path}[{place}]")))
        }
        (one, other) if one == other || numbers_agree(one, other) => None,
        _ => Some(format!("{path} differs")),
    }
}

/// The place without what is the same of every field.
fn short(path: &str) -> String {
    let path = path
        .split_once(".openAPIV3Schema.properties.")
        .map_or(path, |(_, field)| field);
    path.replace(".properties.", ".")
}

/// What the server leaves out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn numbers_agree(one: &Value, other: &Value) -> bool {
    matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if (one - other).abs() < f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_named_without_the_schema_around_it() {
        let path = "spec.versions[0].schema.openAPIV3Schema.properties.status.properties.nodes.type differs";
        assert_eq!(short(path), "status.nodes.type differs");
        assert_eq!(short("spec.scope is missing"), "spec.scope is missing");
    }

    #[test]
    fn what_the_server_adds_by_itself_is_no_difference() {
        let expected = json!({"names": {"kind": "Prefetch"}, "versions": [{"name": "v1", "minimum": 1, "nullable": false, "description": "new words",
            "schema": {"properties": {"images": {"type": "array"}}}}]});
        let same = json!({"names": {"kind": "Prefetch", "listKind": "PrefetchList"}, "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "minimum": 1.0, "schema": {"properties": {"images": {"type": "array"}}}}]});
        assert_eq!(difference(&expected, &same, "spec"), None);
        let properties = "/versions/0/schema/properties";
        for (pointer, value, found) in [
            ("/names/kind", json!("Prefech"), "spec.names.kind differs"),
            ("/versions", json!([]), "spec.versions has 0 entries, not 1"),
            (
                properties,
                json!({}),
                "spec.versions[0].schema.properties.images is missing",
            ),
            (
                properties,
                json!({"images": {"type": "array"}, "older": {}}),
                "spec.versions[0].schema.properties.older is there",
            ),
        ] {
            let mut other = same.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(difference(&expected, &other, "spec").as_deref(), Some(found));
        }
    }
}
