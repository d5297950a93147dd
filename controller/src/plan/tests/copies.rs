//! Images that pods are sent away from.

use serde_json::json;

use super::model::Model;
use crate::plan::*;

const COPY: &str = "localhost:7439/mirror/docker.io/library/nginx:1.29";

/// An image whose copy is there, with what was last known of its origin.
fn mirrored(rewrite: &str, origin: &str) -> MirroredImage {
    serde_json::from_value(json!({
        "metadata": {"name": "nginx"},
        "spec": {"image": "docker.io/library/nginx:1.29", "rewrite": rewrite},
        "status": {
            "destinations": [{
                "mirror": "all", "reference": "coral-registry.coral-system.svc:5000/mirror/docker.io/library/nginx:1.29",
                "nodeReference": COPY, "pullSecretName": "pull", "state": "Present",
            }],
            "origin": {"state": origin, "checkedAt": "2026-01-01T00:00:00Z"},
        },
    }))
    .unwrap()
}

fn pulled_as(model: &mut Model) -> Option<String> {
    model.settle();
    model.object("a").spec.images[0].pull_as.clone()
}

#[test]
fn node_pulls_what_the_kubelet_will_ask_for_under_the_name_that_people_wrote() {
    let mut model = Model::with_nodes(&["a"]);
    model.add(
        "web",
        &json!({"images": ["nginx:1.29"], "imagePullSecrets": [{"name": "own"}]}),
    );
    model.mirrored_images = vec![mirrored("Always", "Available")];
    assert_eq!(pulled_as(&mut model).as_deref(), Some(COPY));
    let entry = &model.object("a").spec.images[0];
    assert_eq!(entry.image, "docker.io/library/nginx:1.29");
    let secrets: Vec<&str> = entry.pull_secrets.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(secrets, ["own", "pull"]);
    model.report("a", "nginx:1.29", "Present");
    model.settle();
    assert!(model.has_label("a", "nginx:1.29"));
}

#[test]
fn copy_comes_and_goes_with_what_is_known_of_the_origin() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx:1.29"]}));
    assert_eq!(pulled_as(&mut model), None);
    for (rewrite, origin, expected) in [
        ("OnFailure", "Available", None),
        ("OnFailure", "Unreachable", Some(COPY)),
        ("OnFailure", "Available", None),
        ("Always", "Available", Some(COPY)),
        ("Never", "NotFound", None),
    ] {
        model.mirrored_images = vec![mirrored(rewrite, origin)];
        assert_eq!(pulled_as(&mut model).as_deref(), expected, "{rewrite} {origin}");
    }
}

#[test]
fn image_that_is_to_go_goes_under_the_name_that_it_came_by() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx:1.29"], "removalPolicy": "Remove"}));
    model.mirrored_images = vec![mirrored("Always", "Available")];
    model.settle();
    model.report("a", "nginx:1.29", "Present");
    model.settle();
    model.silent.insert("a".into());
    model.delete("web");
    assert_eq!(pulled_as(&mut model).as_deref(), Some(COPY));
}
