use coral_api::{
    MirroredImageSpec,
    mirror::Rewrite,
    mirrored_image::{CopyState, CopyStatus, MirroredImageStatus},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::mutate::{Options, mutate};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn mirrored(image: &str, node_reference: &str, secret: Option<&str>, state: CopyState) -> MirroredImage {
    let copy = CopyStatus {
        node_reference: node_reference.to_owned(),
        pull_secret_name: secret.map(str::to_owned),
        state,
        ..CopyStatus::default()
    };
    let spec = MirroredImageSpec {
        image: image.to_owned(),
        rewrite: Rewrite::Always,
        ..MirroredImageSpec::default()
    };
    MirroredImage {
        status: Some(MirroredImageStatus {
            destinations: vec![copy],
            ..MirroredImageStatus::default()
        }),
        ..MirroredImage::new("x", spec)
    }
}

/// nginx needs no secret, redis one, tool is known by its digest, and late is not there yet. The copy of nginx has a copy, too.
pub(crate) fn copies() -> Copies {
    use CopyState::{Copying, Present};
    let mut copies = Copies::default();
    let digest = format!("ghcr.io/a/tool@{DIGEST}");
    let digest_copy = format!("localhost:7439/ghcr.io/a/tool@{DIGEST}");
    for (image, copy, secret, state) in [
        (
            "docker.io/library/nginx:1.29",
            "localhost:7439/docker.io/library/nginx:1.29",
            None,
            Present,
        ),
        (
            "docker.io/library/redis:8",
            "r.example.com/redis:8",
            Some("pull"),
            Present,
        ),
        (&digest, &digest_copy, None, Present),
        ("docker.io/library/late:1", "localhost:7439/late:1", None, Copying),
        (
            "localhost:7439/docker.io/library/nginx:1.29",
            "r.example.com/nginx:1.29",
            None,
            Present,
        ),
    ] {
        copies.insert(&mirrored(image, copy, secret, state));
    }
    copies
}

fn pod(metadata: Value, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
    pod["metadata"] = metadata;
    pod["spec"] = spec;
    pod
}

fn patched(pod: &Value, occasion: Occasion<'_>) -> Value {
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &rewrite(pod, occasion, &copies()).patch).expect("the patch applies");
    patched
}

fn originals(pod: &Value) -> Value {
    let annotation = &pod["metadata"]["annotations"][keys::ORIGINAL_IMAGES_ANNOTATION];
    annotation
        .as_str()
        .map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

#[test]
fn images_with_a_copy_are_replaced_and_noted() {
    let full = |digest: &str| format!("ghcr.io/a/tool:v1@{digest}");
    let other = DIGEST.replace('a', "b");
    for (image, expected) in [
        ("nginx:1.29", Some("localhost:7439/docker.io/library/nginx:1.29")),
        (
            "docker.io/library/nginx:1.29",
            Some("localhost:7439/docker.io/library/nginx:1.29"),
        ),
        ("nginx:1.30", None),
        ("nginx", None),
        (&full(DIGEST), Some(&*format!("localhost:7439/ghcr.io/a/tool@{DIGEST}"))),
        (
            &format!("ghcr.io/a/tool@{DIGEST}"),
            Some(&*format!("localhost:7439/ghcr.io/a/tool@{DIGEST}")),
        ),
        (&full(&other), None),
        ("ghcr.io/a/tool:v1", None),
        ("late:1", None),
        ("Bad Image", None),
        ("", None),
        ("localhost:7439/docker.io/library/nginx:1.29", None),
    ] {
        let before = pod(
            json!({"name": "a"}),
            json!({"containers": [{"name": "web", "image": image, "x": 1}]}),
        );
        let after = patched(&before, Occasion::Creation);
        match expected {
            None => assert_eq!(after, before, "{image}"),
            Some(expected) => {
                assert_eq!(
                    after["spec"],
                    json!({"containers": [{"name": "web", "image": expected, "x": 1}]}),
                    "{image}"
                );
                assert_eq!(originals(&after), json!({"web": image}));
            }
        }
    }
}

#[test]
fn every_place_that_names_an_image_is_looked_at() {
    let before = pod(
        json!({"generateName": "a-", "annotations": {"a/b": "c"}}),
        json!({
            "initContainers": [{"name": "i", "image": "busybox"}, {"name": "j", "image": "nginx:1.29"}],
            "containers": [{"name": "c", "image": "redis:8"}, {"name": "n"}, 7],
            "volumes": [{"name": "d", "emptyDir": {}}, {"name": "i", "image": {"reference": "nginx:1.29", "pullPolicy": "Always"}}],
            "imagePullSecrets": [{"name": "mine"}],
        }),
    );
    let copy = "localhost:7439/docker.io/library/nginx:1.29";
    let after = patched(&before, Occasion::Creation);
    let expected = json!({
        "initContainers": [{"name": "i", "image": "busybox"}, {"name": "j", "image": copy}],
        "containers": [{"name": "c", "image": "r.example.com/redis:8"}, {"name": "n"}, 7],
        "volumes": [{"name": "d", "emptyDir": {}}, {"name": "i", "image": {"reference": copy, "pullPolicy": "Always"}}],
        "imagePullSecrets": [{"name": "mine"}, {"name": "pull"}],
    });
    assert_eq!(after["spec"], expected);
    assert_eq!(after["metadata"]["annotations"]["a/b"], json!("c"));
    assert_eq!(
        originals(&after),
        json!({"j": "nginx:1.29", "c": "redis:8", "volumes/i": "nginx:1.29"})
    );
}

#[test]
fn a_secret_is_added_only_where_a_copy_needs_one_that_is_not_there() {
    for (image, secrets, expected) in [
        ("nginx:1.29", json!(null), json!(null)),
        ("redis:8", json!(null), json!([{"name": "pull"}])),
        ("redis:8", json!([]), json!([{"name": "pull"}])),
        ("redis:8", json!([{"name": "pull"}]), json!([{"name": "pull"}])),
    ] {
        let spec = json!({"containers": [{"name": "a", "image": image}], "imagePullSecrets": secrets});
        let after = patched(&pod(json!({}), spec), Occasion::Creation);
        assert_eq!(after["spec"]["imagePullSecrets"], expected, "{image}");
    }
}

#[test]
fn some_pods_are_left_alone() {
    let spec = json!({"containers": [{"name": "a", "image": "nginx:1.29"}]});
    for metadata in [
        json!({"labels": {"image.stvz.io/mirror": "false"}}),
        json!({"annotations": {"kubernetes.io/config.mirror": "x"}}),
        json!(null),
    ] {
        let before = pod(metadata, spec.clone());
        assert_eq!(patched(&before, Occasion::Creation), before);
    }
    let mut deployment = pod(json!({}), spec.clone());
    deployment["kind"] = json!("Deployment");
    assert_eq!(patched(&deployment, Occasion::Creation), deployment);
    let asked = pod(json!({"labels": {"image.stvz.io/mirror": "true"}}), spec);
    assert_ne!(patched(&asked, Occasion::Creation), asked);
}

#[test]
fn of_a_pod_that_is_there_only_new_ephemeral_containers_are_changed() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let spec =
        |ephemeral: Value| json!({"containers": [container("a", "nginx:1.29")], "ephemeralContainers": ephemeral});
    let stored = pod(json!({}), spec(json!([container("old", "nginx:1.29")])));
    let before = pod(
        json!({}),
        spec(json!([
            container("old", "nginx:1.29"),
            container("new", "nginx:1.29"),
            // The secret for it cannot be added.
            container("other", "redis:8")
        ])),
    );
    let after = patched(&before, Occasion::EphemeralContainers(&stored));
    let mut expected = before.clone();
    expected["spec"]["ephemeralContainers"][1]["image"] = json!("localhost:7439/docker.io/library/nginx:1.29");
    assert_eq!(after, expected);
}

#[test]
fn what_was_noted_of_other_images_goes() {
    let note = |text: Value| json!({"annotations": {"image.stvz.io/original-images": text.to_string()}});
    let spec = |image: &str| json!({"containers": [{"name": "a", "image": image}]});
    // Written by somebody who exported a Pod, and then changed its image.
    let stale = pod(note(json!({"a": "nginx:1.29"})), spec("busybox"));
    assert_eq!(
        patched(&stale, Occasion::Creation),
        pod(json!({"annotations": {}}), spec("busybox"))
    );
    let changed = pod(note(json!({"a": "busybox"})), spec("nginx:1.29"));
    assert_eq!(
        originals(&patched(&changed, Occasion::Creation)),
        json!({"a": "nginx:1.29"})
    );
    let exported = patched(&pod(json!({}), spec("nginx:1.29")), Occasion::Creation);
    assert_eq!(patched(&exported, Occasion::Creation), exported);
}

fn generated() -> impl Strategy<Value = Value> {
    let image = || {
        prop::sample::select(vec![
            "nginx:1.29",
            "redis:8",
            "busybox",
            "late:1",
            "Bad Image",
            "r.example.com/redis:8",
            "localhost:7439/docker.io/library/nginx:1.29",
        ])
    };
    let container = || {
        (prop::sample::select(vec!["a", "b", "c", "d"]), image())
            .prop_map(|(name, image)| json!({"name": name, "image": image, "é/~": [null]}))
    };
    let list = || prop::collection::vec(container(), 0..3);
    let volume = image().prop_map(|image| json!({"name": "v", "image": {"reference": image}, "x": 1}));
    let annotations = prop::sample::select(vec![
        json!(null),
        json!({}),
        json!({"x": "y"}),
        json!({"image.stvz.io/inject": "selectors,pull-policy"}),
        json!({"image.stvz.io/inject": "selectors", "image.stvz.io/placement": "preferred", "image.stvz.io/exclude": "a"}),
        json!({"image.stvz.io/original-images": "{\"a\":\"nginx:1.29\"}"}),
        json!({"image.stvz.io/original-images": "nonsense"}),
    ]);
    let secrets = prop::sample::select(vec![
        json!(null),
        json!([]),
        json!([{"name": "pull"}]),
        json!([{"name": "x"}]),
    ]);
    (list(), list(), prop::option::of(volume), annotations, secrets).prop_map(
        |(init, containers, volume, annotations, secrets)| {
            // Kubernetes refuses Pods in which a name comes twice.
            let mut seen = HashSet::new();
            let mut only_once = |list: Vec<Value>| -> Vec<Value> {
                list.into_iter()
                    .filter(|container| seen.insert(container["name"].to_string()))
                    .collect()
            };
            let (init, containers) = (only_once(init), only_once(containers));
            let mut spec =
                json!({"containers": containers, "tolerations": [{"key": "a/b"}], "imagePullSecrets": secrets});
            if !init.is_empty() {
                spec["initContainers"] = json!(init);
            }
            if let Some(volume) = volume {
                spec["volumes"] = json!([volume]);
            }
            pod(json!({"name": "p", "annotations": annotations}), spec)
        },
    )
}

fn admitted(pod: &Value) -> Value {
    let mut admitted = pod.clone();
    json_patch::patch(&mut admitted, &mutate(pod, &Options::default()).unwrap().patch).unwrap();
    admitted
}

/// A Pod as it was before its images were replaced, without what may be added then.
fn undone(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let noted = originals(&pod);
    for list in CONTAINER_LISTS {
        for container in pod["spec"]
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(original) = noted.get(container["name"].as_str().unwrap()) {
                container["image"] = original.clone();
            }
        }
    }
    if let Some(original) = noted.get("volumes/v") {
        pod["spec"]["volumes"][0]["image"]["reference"] = original.clone();
    }
    pod["spec"]["imagePullSecrets"] = Value::Null;
    pod["metadata"]["annotations"] = Value::Null;
    pod
}

proptest! {
    #[test]
    fn rewriting_twice_changes_nothing_more(pod in generated()) {
        let once = patched(&pod, Occasion::Creation);
        prop_assert_eq!(rewrite(&once, Occasion::Creation, &copies()), Rewritten::default());
    }

    #[test]
    fn nothing_else_changes_and_the_note_tells_what_was_there(mut pod in generated()) {
        // Who writes a note himself is not protected from himself.
        if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
            annotations.remove(keys::ORIGINAL_IMAGES_ANNOTATION);
        }
        let after = patched(&pod, Occasion::Creation);
        prop_assert_eq!(undone(&after), undone(&pod));
        let mut annotations = after["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        annotations.remove(keys::ORIGINAL_IMAGES_ANNOTATION);
        prop_assert_eq!(annotations, pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default());
    }

    #[test]
    fn placement_and_copies_compose_in_any_order(mut pod in generated()) {
        if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
            annotations.remove(keys::ORIGINAL_IMAGES_ANNOTATION);
        }
        let first = patched(&admitted(&pod), Occasion::Creation);
        // As the API server does: who was called before something changed is called again.
        prop_assert_eq!(&admitted(&first), &first);
        let other = admitted(&patched(&pod, Occasion::Creation));
        prop_assert_eq!(&patched(&other, Occasion::Creation), &other);
        prop_assert_eq!(&other["spec"], &first["spec"]);
    }

    #[test]
    fn no_pod_is_too_odd(metadata in odd(), spec in odd(), stored in odd()) {
        let before = pod(metadata, spec);
        let once = patched(&before, Occasion::Creation);
        prop_assert_eq!(rewrite(&once, Occasion::Creation, &copies()).patch, vec![]);
        patched(&before, Occasion::EphemeralContainers(&stored));
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "annotations",
        "labels",
        keys::ORIGINAL_IMAGES_ANNOTATION,
        keys::MIRROR_LABEL,
        "containers",
        "initContainers",
        "ephemeralContainers",
        "volumes",
        "image",
        "reference",
        "imagePullSecrets",
        "name",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(1.5)),
        prop::sample::select(vec!["nginx:1.29", "redis:8", "{\"nginx:1.29\":\"x\"}", "é"]).prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
