//! Objects that are stored are read for ever: against the resource types of each version that is kept in `tests/fixtures/crds`, those of
//! today have every field, and refuse nothing that was allowed. `e2e_upgrade` has what takes a real API server.

use std::fs;

use coral_api::{NodeImages, Prefetch};
use serde_json::{Map, Value, json};

use super::{read, repository, strings};

const KEPT: &str = "tests/fixtures/crds";

/// The versions that are kept, as folders.
fn kept() -> Vec<String> {
    let mut folders: Vec<String> = fs::read_dir(repository(KEPT))
        .unwrap()
        .map(|entry| format!("{KEPT}/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

/// What a resource type refuses now, or does not have any more.
fn losses(before: &Value, after: &Value) -> Vec<String> {
    let mut losses = Vec::new();
    let mut same = |place: &str, before: &Value, after: &Value| {
        if before != after {
            losses.push(format!("{place} was {before}, and is {after}"));
        }
    };
    let (before, after) = (&before["spec"], &after["spec"]);
    for field in ["group", "scope"] {
        same(field, &before[field], &after[field]);
    }
    for field in ["kind", "plural", "singular"] {
        same(field, &before["names"][field], &after["names"][field]);
    }
    for short in strings(&before["names"]["shortNames"]) {
        same(
            &short,
            &true.into(),
            &strings(&after["names"]["shortNames"]).contains(&short).into(),
        );
    }
    for version in before["versions"].as_array().unwrap() {
        let versions = after["versions"].as_array().unwrap();
        let Some(today) = versions.iter().find(|today| today["name"] == version["name"]) else {
            losses.push(format!("version {} is gone", version["name"]));
            continue;
        };
        if version["served"] == true && today["served"] != true {
            losses.push(format!("version {} is not served", version["name"]));
        }
        for subresource in version["subresources"].as_object().into_iter().flatten() {
            if today["subresources"][subresource.0].is_null() {
                losses.push(format!("subresource {} is gone", subresource.0));
            }
        }
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        compare("", &schema(version), &schema(today), &mut losses);
    }
    losses
}

fn compare(place: &str, before: &Value, after: &Value, losses: &mut Vec<String>) {
    let mut lost = |what: String| losses.push(format!("{}: {what}", if place.is_empty() { "." } else { place }));
    let keywords = |schema: &Value| schema.as_object().cloned().unwrap_or_default();
    for (keyword, now) in keywords(after) {
        let was = &before[&keyword];
        let number = |value: &Value| value.as_f64();
        let is_stricter = match keyword.as_str() {
            "maximum" | "maxLength" | "maxItems" | "maxProperties" => {
                number(was).is_none_or(|was| number(&now) < Some(was))
            }
            "minimum" | "minLength" | "minItems" | "minProperties" => {
                number(was).is_none_or(|was| number(&now) > Some(was))
            }
            "required" => strings(&now).iter().any(|field| !strings(was).contains(field)),
            // A rule that is new for a field that is not.
            "x-kubernetes-validations" => rules(&now).iter().any(|rule| !rules(was).contains(rule)),
            "enum" => was
                .as_array()
                .is_none_or(|was| was.iter().any(|value| !now.as_array().unwrap().contains(value))),
            // Texts for people, and what is looked at below.
            "description" | "properties" | "items" | "additionalProperties" | "default" | "nullable" | "anyOf" => false,
            // Whatever else there is: who changes it has to think of what is stored.
            _ => *was != now,
        };
        if is_stricter {
            lost(format!("{keyword} was {was}, and is {now}"));
        }
    }
    for (keyword, was) in keywords(before) {
        let now = &after[&keyword];
        let is_lost = match keyword.as_str() {
            "type"
            | "format"
            | "x-kubernetes-preserve-unknown-fields"
            | "x-kubernetes-int-or-string"
            | "x-kubernetes-list-type"
            | "x-kubernetes-list-map-keys"
            | "anyOf"
            // It is given to objects that are stored without the field.
            | "default" => *now != was,
            "nullable" => was == true && *now != true,
            _ => false,
        };
        if is_lost {
            lost(format!("{keyword} was {was}, and is {now}"));
        }
    }
    let fields = |schema: &Value| schema["properties"].as_object().cloned().unwrap_or_default();
    for (name, field) in fields(before) {
        match fields(after).get(&name) {
            Some(today) => compare(&format!("{place}.{name}"), &field, today, losses),
            None => losses.push(format!("{place}.{name} is gone")),
        }
    }
    for (keyword, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if before[keyword].is_object() {
            compare(&format!("{place}{sign}"), &before[keyword], &after[keyword], losses);
        }
    }
}

/// What rules say, without the sentence for people.
fn rules(list: &Value) -> Vec<Value> {
    let rules = list.as_array().into_iter().flatten();
    rules.map(|rule| rule["rule"].clone()).collect()
}

fn resource_type(folder: &str, plural: &str) -> Value {
    serde_saphyr::from_str(&read(&format!("{folder}/{plural}.image.stvz.io.yaml"))).unwrap()
}

#[test]
fn resource_types_only_grow() {
    for folder in kept() {
        let mut compared = 0;
        for entry in fs::read_dir(repository(&folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if let Some(plural) = name.strip_suffix(".image.stvz.io.yaml") {
                let losses = losses(&resource_type(&folder, plural), &resource_type("deploy/crds", plural));
                assert!(losses.is_empty(), "since {folder}, {plural}: {losses:#?}");
                compared += 1;
            }
        }
        assert!(compared > 0, "{folder}");
    }
}

/// Where `part` has these fields, `whole` has them with the same values.
fn has_all(place: &str, part: &Value, whole: &Value) {
    match (part, whole) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, field) in fields {
                has_all(&format!("{place}.{name}"), field, &whole[name]);
            }
        }
        (Value::Array(items), Value::Array(all)) => {
            assert_eq!(items.len(), all.len(), "{place}");
            for (item, other) in items.iter().zip(all) {
                has_all(&format!("{place}[]"), item, other);
            }
        }
        _ => assert_eq!(part, whole, "{place}"),
    }
}

#[test]
fn todays_types_read_what_was_stored_and_write_it_again() {
    for folder in kept() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&read(&format!("{folder}/objects.yaml"))).unwrap();
        assert!(objects.len() >= 2, "{folder}");
        for object in objects {
            let again = match object["kind"].as_str().unwrap() {
                "Prefetch" => serde_json::to_value(serde_json::from_value::<Prefetch>(object.clone()).unwrap()),
                "NodeImages" => serde_json::to_value(serde_json::from_value::<NodeImages>(object.clone()).unwrap()),
                other => panic!("{folder}: nothing reads a {other}"),
            };
            has_all("", &object, &again.unwrap());
        }
    }
}

/// The objects have every field that there was, or nobody would notice that one is lost.
#[test]
fn stored_objects_have_every_field() {
    fn fields(schema: &Value, object: &Value, place: &str) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            assert!(!object[name].is_null(), "{place} is in no object");
            fields(field, &object[name], &place);
            fields(&field["items"], &object[name][0], &format!("{place}[0]"));
        }
    }
    for folder in kept() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&read(&format!("{folder}/objects.yaml"))).unwrap();
        for (plural, kind) in [("prefetches", "Prefetch"), ("nodeimages", "NodeImages")] {
            let object = objects.iter().find(|object| object["kind"] == kind).unwrap();
            let schema = &resource_type(&folder, plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            for part in ["spec", "status"] {
                fields(&schema["properties"][part], &object[part], &format!("{kind}.{part}"));
            }
        }
    }
}

#[test]
fn what_is_stricter_or_gone_is_noticed() {
    let with = |schema: Value| {
        json!({"spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "K", "shortNames": ["k"]}, "versions": [
            {"name": "v1", "served": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}},
        ]}})
    };
    let of = |field: Value| with(json!({"type": "object", "properties": {"a": field}}));
    let text = json!({"type": "string", "maxLength": 10, "enum": ["x", "y"]});
    for (before, after, said) in [
        (of(text.clone()), with(json!({"type": "object"})), Some(".a is gone")),
        (
            of(text.clone()),
            of(json!({"type": "string", "maxLength": 9, "enum": ["x", "y"]})),
            Some(".a: maxLength"),
        ),
        (
            of(text.clone()),
            of(json!({"type": "string", "maxLength": 11, "enum": ["x", "y", "z"]})),
            None,
        ),
        (
            of(text.clone()),
            of(json!({"type": "string", "enum": ["y"]})),
            Some(".a: enum"),
        ),
        (of(text.clone()), of(json!({"type": "string"})), None),
        (of(json!({"type": "string"})), of(text), Some(".a: maxLength")),
        (
            of(json!({"type": "string"})),
            of(json!({"type": "string", "pattern": "^x"})),
            Some(".a: pattern"),
        ),
        (
            of(json!({"type": "integer", "minimum": 1})),
            of(json!({"type": "integer", "minimum": 0})),
            None,
        ),
        (
            of(json!({"type": "integer"})),
            of(json!({"type": "string"})),
            Some(".a: type"),
        ),
        (
            of(json!({"type": "integer", "default": 1})),
            of(json!({"type": "integer", "default": 2})),
            Some(".a: default"),
        ),
        (
            of(json!({"type": "string"})),
            of(json!({"type": "string", "x-kubernetes-validations": [{"rule": "self != ''", "message": "no"}]})),
            Some(".a: x-kubernetes-validations"),
        ),
        (
            of(json!({"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}})),
            of(json!({"type": "array", "items": {"type": "object", "properties": {}}})),
            Some(".a[].b is gone"),
        ),
        (
            of(json!({"type": "string"})),
            with(
                json!({"type": "object", "required": ["b"], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
            ),
            Some("required"),
        ),
        (
            of(json!({"type": "string"})),
            with(
                json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string", "maxLength": 1}}}),
            ),
            None,
        ),
    ] {
        let losses = losses(&before, &after);
        match said {
            None => assert!(losses.is_empty(), "{losses:?}"),
            Some(said) => assert!(losses.iter().any(|loss| loss.contains(said)), "{said}: {losses:?}"),
        }
    }
    let mut gone = of(json!({"type": "string"}));
    gone["spec"]["versions"][0]["served"] = false.into();
    gone["spec"]["versions"][0]["subresources"] = Map::new().into();
    assert_eq!(losses(&of(json!({"type": "string"})), &gone).len(), 2);
}
