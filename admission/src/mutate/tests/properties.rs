use std::collections::BTreeSet;

use coral_api::{ImageReference, keys};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::patched;
use crate::mutate::{
    Containers, Coverage, Decision, Kind, OBJECT, Operation, Options, Placement, PullPolicy, Tree, Wish, decide,
    inject, mutate, uninject,
};

const IMAGES: [&str; 7] = [
    "nginx",
    "nginx:1.29",
    "docker.io/library/nginx:1.29",
    "redis:8",
    "ghcr.io/a/b:c",
    "Bad Image",
    "",
];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn wish() -> impl Strategy<Value = Wish> {
    let names = || prop::collection::btree_set(prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1..4);
    (
        prop::option::of(prop::sample::select(vec![Placement::Required, Placement::Preferred])),
        prop::option::of(prop::sample::select(vec![PullPolicy::Never, PullPolicy::IfNotPresent])),
        prop_oneof![
            Just(Containers::All),
            names().prop_map(Containers::Only),
            names().prop_map(Containers::AllBut)
        ],
    )
        .prop_map(|(placement, pull_policy, containers)| Wish {
            placement,
            pull_policy,
            containers,
        })
}

/// Things that Coral does not know.
fn other_fields() -> impl Strategy<Value = Map<String, Value>> {
    let key = prop::sample::select(vec!["x", "y/z~w", "tolerations", "é"]);
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!("available")),
        Just(json!([1.5, {"a/b": [null]}]))
    ];
    prop::collection::btree_map(key.prop_map(str::to_owned), leaf, 0..3).prop_map(|map| map.into_iter().collect())
}

/// A place with nothing, null, or something in it.
fn place(
    key: &'static str,
    value: impl Strategy<Value = Value> + 'static,
) -> impl Strategy<Value = Map<String, Value>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(json!(null))), 4 => value.prop_map(Some)]
        .prop_map(move |value| value.map(|value| (key.to_owned(), value)).into_iter().collect())
}

fn container() -> impl Strategy<Value = Value> {
    let policy = prop::sample::select(vec!["Never", "Always", "IfNotPresent"]).prop_map(|policy| json!(policy));
    let image = prop::sample::select(&IMAGES[..]).prop_map(|image| json!(image));
    let name = prop::sample::select(&NAMES[..]).prop_map(|name| json!(name));
    (
        place("name", name),
        place("image", image),
        place("imagePullPolicy", policy),
        other_fields(),
    )
        .prop_map(|(name, image, policy, mut container)| {
            container.extend(name);
            container.extend(image);
            container.extend(policy);
            Value::Object(container)
        })
}

fn node_selector() -> impl Strategy<Value = Value> {
    let hash = "nginx:1.29".parse::<ImageReference>().unwrap().label_key();
    let key = prop::sample::select(vec![
        "disk".to_owned(),
        "a/b~c".to_owned(),
        hash,
        "image.stvz.io/mine".to_owned(),
    ]);
    let value = prop::sample::select(vec!["available", "ssd"]).prop_map(|value| json!(value));
    prop::collection::btree_map(key, value, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn term(key: &str, weight: usize) -> Value {
    json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": ["available"]}]}})
}

fn affinity() -> impl Strategy<Value = Value> {
    let hash = "redis:8".parse::<ImageReference>().unwrap().label_key();
    let terms = prop::collection::vec(
        prop::sample::select(vec![term("disk", 5), term(&hash, 7), json!({"x": null})]),
        0..3,
    )
    .prop_map(Value::Array);
    let terms = place("preferredDuringSchedulingIgnoredDuringExecution", terms);
    let node = (terms, other_fields()).prop_map(|(mut node, others)| {
        node.extend(others);
        Value::Object(node)
    });
    (place("nodeAffinity", node), other_fields()).prop_map(|(mut affinity, others)| {
        affinity.extend(others);
        Value::Object(affinity)
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let list = || prop::collection::vec(container(), 0..4).prop_map(Value::Array);
    (
        place("nodeSelector", node_selector()),
        place("affinity", affinity()),
        place("initContainers", list()),
        place("containers", list()),
        other_fields(),
    )
        .prop_map(|(selector, affinity, init, containers, mut spec)| {
            for part in [selector, affinity, init, containers] {
                spec.extend(part);
            }
            Value::Object(spec)
        })
}

fn object(kind: Kind, metadata: &Map<String, Value>, spec: Value) -> Value {
    let api_version = match kind {
        Kind::Pod | Kind::ReplicationController => "v1",
        Kind::Job | Kind::CronJob => "batch/v1",
        _ => "apps/v1",
    };
    let spec = kind
        .spec_path()
        .iter()
        .rev()
        .fold(spec, |inner, key| json!({*key: inner}));
    let mut object = json!({"apiVersion": api_version, "kind": kind.as_str(), "metadata": metadata});
    object["spec"] = spec["spec"].clone();
    object
}

fn plain() -> impl Strategy<Value = Value> {
    let annotations =
        other_fields().prop_map(|fields| fields.into_iter().map(|(key, _)| (key, json!("text"))).collect());
    let annotations = place("annotations", annotations.prop_map(Value::Object));
    (prop::sample::select(Kind::ALL.to_vec()), annotations, spec())
        .prop_map(|(kind, annotations, spec)| object(kind, &annotations, spec))
}

fn kind_of(object: &Value) -> Kind {
    Kind::of(object).unwrap()
}

fn spec_of(object: &mut Value) -> &mut Value {
    let path = kind_of(object).spec_path();
    path.iter().fold(object, |value, key| &mut value[*key])
}

/// The object with annotations that ask for the wish.
fn asking(object: &Value, wish: &Wish) -> Value {
    let mut object = object.clone();
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    for (key, value) in wish.write() {
        object["metadata"]["annotations"][key] = json!(value);
    }
    object
}

/// What the object is to be, written as plainly as can be.
fn model(object: &Value, wish: &Wish) -> Value {
    let mut object = object.clone();
    let spec = spec_of(&mut object);
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            names.extend(container["name"].as_str().map(str::to_owned));
        }
    }
    let mut labels = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let name = container["name"].as_str().map(str::to_owned);
            let name = name.filter(|name| names.iter().filter(|other| *other == name).count() == 1);
            let is_chosen = match (&wish.containers, &name) {
                (Containers::All, _) => true,
                (Containers::Only(_) | Containers::AllBut(_), None) => false,
                (Containers::Only(names), Some(name)) => names.contains(name),
                (Containers::AllBut(names), Some(name)) => !names.contains(name),
            };
            if !is_chosen {
                continue;
            }
            if let Ok(image) = container["image"]
                .as_str()
                .unwrap_or_default()
                .parse::<ImageReference>()
            {
                labels.insert(image.label_key());
            }
            if let (Some(policy), Some(_)) = (wish.pull_policy, name) {
                container["imagePullPolicy"] = json!(policy.as_str());
            }
        }
    }
    match wish.placement {
        Some(Placement::Required) => {
            for label in labels {
                if spec["nodeSelector"][&label].is_null() {
                    spec["nodeSelector"][&label] = json!("available");
                }
            }
        }
        Some(Placement::Preferred) if !labels.is_empty() => {
            let weight = 100 / labels.len();
            let terms = &mut spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
            if terms.is_null() {
                *terms = json!([]);
            }
            let terms = terms.as_array_mut().unwrap();
            for label in labels {
                let wanted = term(&label, weight);
                if !terms.iter().any(|term| term["preference"] == wanted["preference"]) {
                    terms.push(wanted);
                }
            }
        }
        _ => {}
    }
    // Reading a missing key by index has put a null there.
    if object["spec"]["template"].is_null()
        && let Some(spec) = object["spec"].as_object_mut()
    {
        spec.remove("template");
    }
    object
}

fn without_record(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(keys::INJECTED_ANNOTATION);
    }
    object
}

fn admitted(object: &Value, operation: Operation<'_>) -> Option<Value> {
    let options = Options {
        operation,
        coverage: None,
    };
    // What is refused is refused by the cases.
    let outcome = mutate(object, &options).ok()?;
    Some(patched(object, &outcome.patch))
}

/// Asserts that it makes no difference whether the decision is made about the objects or about what the server reads of them.
fn same_from_text(object: &Value, stored: Option<&Value>) {
    let (text, stored_text) = (object.to_string(), stored.map(ToString::to_string));
    let (tree, stored_tree) = (
        Tree::read(text.as_bytes(), &OBJECT).unwrap(),
        stored_text
            .as_ref()
            .map(|text| Tree::read(text.as_bytes(), &OBJECT).unwrap()),
    );
    // A number may not be quite the same when it has been text.
    let whole = |text: &String| serde_json::from_str::<Value>(text).unwrap();
    let (object, stored) = (whole(&text), stored_text.as_ref().map(whole));
    assert_eq!(tree, Tree::of(&object, &OBJECT), "{text}");
    let mut coverage = Coverage::default();
    coverage.insert("redis:8".parse().unwrap(), true);
    let options = Options {
        operation: stored.as_ref().map_or(Operation::Create, Operation::Update),
        coverage: Some(&coverage),
    };
    let from_text = decide(&tree, stored_tree.as_ref(), Some(&coverage)).map(Decision::into_outcome);
    assert_eq!(from_text, mutate(&object, &options), "{text}");
}

fn with_images(object: &Value, rotate: usize) -> Value {
    let mut object = object.clone();
    let spec = spec_of(&mut object);
    for list in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            if let Some(index) = IMAGES.iter().position(|image| container["image"] == *image) {
                container["image"] = json!(IMAGES[(index + rotate) % IMAGES.len()]);
            }
        }
    }
    object
}

fn arbitrary() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "apiVersion",
            "kind",
            "metadata",
            "annotations",
            "spec",
            "template",
            "jobTemplate",
            "containers",
            "initContainers",
            "name",
            "image",
            "imagePullPolicy",
            "nodeSelector",
            "affinity",
            "nodeAffinity",
            "preferredDuringSchedulingIgnoredDuringExecution",
            "preference",
            "weight",
            "matchExpressions",
            keys::INJECT_ANNOTATION,
            keys::INJECTED_ANNOTATION,
            keys::INCLUDE_ANNOTATION,
            keys::PLACEMENT_ANNOTATION,
            "ownerReferences",
            "controller",
        ])
        .prop_map(str::to_owned),
        ".*",
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|bool| json!(bool)),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(vec!["v1", "Pod", "apps/v1", "Deployment", "selectors", "preferred", "nginx", "Never", "available", "{}",
            r#"{"nodeSelector":["image.stvz.io/x"],"pullPolicy":{"a":{"set":"Never","before":null}},"made":{"affinity":"null"}}"#])
            .prop_map(|text| json!(text)),
        ".*".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn applying_the_patch_gives_the_model(object in plain(), wish in wish()) {
        let asking = asking(&object, &wish);
        if let Some(admitted) = admitted(&asking, Operation::Create) {
            prop_assert_eq!(without_record(&admitted), model(&asking, &wish));
            let outcome = mutate(&asking, &Options::default()).unwrap();
            prop_assert!(outcome.patch.iter().all(|operation| !operation.path().as_str().is_empty()));
            if wish.is_nothing() {
                prop_assert_eq!(outcome.patch, []);
            }
        }
    }

    #[test]
    fn admitting_twice_changes_nothing_more(object in plain(), first in wish(), second in wish(), rotate in 0..4_usize) {
        let one = asking(&object, &first);
        let Some(stored) = admitted(&one, Operation::Create) else { return Ok(()) };
        prop_assert_eq!(admitted(&stored, Operation::Create), Some(stored.clone()));
        prop_assert_eq!(admitted(&stored, Operation::Update(&stored)), Some(stored.clone()));
        // Within one request, the object is called for again with the same stored object beside it.
        let update = with_images(&asking(&stored, &second), rotate);
        if let Some(updated) = admitted(&update, Operation::Update(&stored)) {
            prop_assert_eq!(admitted(&updated, Operation::Update(&stored)), Some(updated));
        }
    }

    #[test]
    fn an_update_gives_what_a_new_object_would_get(object in plain(), first in wish(), second in wish(), rotate in 0..4_usize) {
        let Some(stored) = admitted(&asking(&object, &first), Operation::Create) else { return Ok(()) };
        if !kind_of(&object).is_mutable() {
            return Ok(());
        }
        let mut update = with_images(&stored, rotate);
        for key in crate::mutate::wish::WRITTEN {
            update["metadata"]["annotations"].as_object_mut().unwrap().remove(key);
        }
        let update = asking(&update, &second);
        let anew = asking(&with_images(&object, rotate), &second);
        if let Some(updated) = admitted(&update, Operation::Update(&stored)) {
            prop_assert_eq!(without_record(&updated), model(&anew, &second));
        }
    }

    #[test]
    fn without_the_annotations_everything_is_as_it_was(object in plain(), wish in wish()) {
        let Some(stored) = admitted(&asking(&object, &wish), Operation::Create) else { return Ok(()) };
        if !kind_of(&object).is_mutable() {
            return Ok(());
        }
        let mut update = stored.clone();
        for key in crate::mutate::wish::WRITTEN {
            update["metadata"]["annotations"].as_object_mut().unwrap().remove(key);
        }
        let mut expected = object.clone();
        if !expected["metadata"]["annotations"].is_object() {
            expected["metadata"]["annotations"] = json!({});
        }
        prop_assert_eq!(admitted(&update, Operation::Update(&stored)), Some(expected));
    }

    #[test]
    fn uninject_after_inject_changes_nothing_at_all(object in plain(), first in wish(), second in wish()) {
        let injected = patched(&object, &inject(&object, &first, None).unwrap().patch);
        prop_assert_eq!(patched(&injected, &uninject(&injected).unwrap()), object.clone());
        // Asking for something else in between makes no difference, nor does the webhook.
        let injected = patched(&injected, &inject(&injected, &second, None).unwrap().patch);
        let injected = admitted(&injected, Operation::Create).unwrap_or(injected);
        prop_assert_eq!(patched(&injected, &uninject(&injected).unwrap()), object);
    }

    #[test]
    fn the_webhook_agrees_with_what_the_plugin_did(object in plain(), wish in wish()) {
        let injected = patched(&object, &inject(&object, &wish, None).unwrap().patch);
        if let Some(admitted) = admitted(&injected, Operation::Create) {
            prop_assert_eq!(admitted, injected);
        }
    }

    #[test]
    fn what_the_server_reads_is_as_good_as_the_object(object in plain(), first in wish(), second in wish(), rotate in 0..4_usize) {
        let one = asking(&object, &first);
        same_from_text(&one, None);
        let Some(stored) = admitted(&one, Operation::Create) else { return Ok(()) };
        same_from_text(&with_images(&asking(&stored, &second), rotate), Some(&stored));
    }

    #[test]
    fn what_the_server_reads_of_anything_is_as_good(object in arbitrary(), stored in arbitrary(), metadata in arbitrary(), spec in arbitrary(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let mut shaped = self::object(kind, &Map::new(), spec);
        shaped["metadata"] = metadata;
        for object in [&object, &shaped] {
            same_from_text(object, None);
            same_from_text(object, Some(&stored));
            same_from_text(object, Some(&shaped));
        }
    }

    #[test]
    fn no_json_is_too_odd(object in arbitrary(), stored in arbitrary(), metadata in arbitrary(), spec in arbitrary(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let mut shaped = self::object(kind, &Map::new(), spec);
        shaped["metadata"] = metadata;
        for object in [&object, &shaped] {
            for operation in [Operation::Create, Operation::Update(&stored), Operation::Update(&shaped)] {
                if let Some(admitted) = admitted(object, operation) {
                    prop_assert_eq!(self::admitted(&admitted, operation), Some(admitted));
                }
            }
            if let Ok(outcome) = inject(object, &Wish { placement: Some(Placement::Required), ..Wish::default() }, None) {
                patched(object, &outcome.patch);
            }
            if let Ok(patch) = uninject(object) {
                patched(object, &patch);
            }
        }
    }
}
