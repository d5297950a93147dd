//! `Mirror`.

use coral_api::Mirror;
use coral_tests::Cluster;
use serde_json::{Value, json};

use super::{accepted, create, refused};

/// A spec with one image and one destination, and these fields besides.
fn with(fields: &Value) -> Value {
    let mut spec = json!({"images": ["nginx"], "destinations": [{"registry": "r.example"}]});
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

/// A spec whose destination has these fields besides its registry.
fn to(fields: &Value) -> Value {
    let mut spec = with(&json!({}));
    for (key, value) in fields.as_object().unwrap() {
        spec["destinations"][0][key] = value.clone();
    }
    spec
}

#[tokio::test]
async fn valid_mirrors_are_accepted() {
    let cluster = Cluster::shared().await.unwrap();
    let many: Vec<String> = (0..256)
        .map(|number| format!("registry.example:5000/some/where/image-{number}:v1"))
        .collect();
    let specs = [
        with(&json!({})),
        with(&json!({"images": many})),
        json!({"discover": {}, "destinations": [{"registry": "r.example"}]}),
        with(&json!({"images": [], "discover": {
            "namespaceSelector": {"matchLabels": {"team": "shop"}},
            "podSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
            "exclude": ["*.internal/**", "docker.io/library/*"]}})),
        with(
            &json!({"sourceSecrets": [{"namespace": "shop", "name": "regcred"}], "platforms": ["linux/amd64", "linux/arm/v7"],
            "rewrite": "OnFailure", "refreshInterval": "30m", "retention": {"unusedFor": "720h"}, "suspend": true}),
        ),
        with(&json!({"refreshInterval": "0s", "rewrite": "Always"})),
        to(
            &json!({"registry": "coral-registry.coral-system.svc:5000", "nodeAddress": "localhost:7439", "repositoryPrefix": "a/mirror",
            "secretName": "push", "caSecretName": "ca", "pullSecretName": "regcred", "plainHttp": true, "naming": "Flat"}),
        ),
        to(&json!({"registry": "[fd00::1]:5000", "nodeAddress": "10.0.0.7:30500"})),
        with(&json!({"sources": [
            {"registry": "registry.internal:5000", "caSecretName": "internal-ca"},
            {"registry": "registry.lan", "plainHttp": true, "caSecretName": null},
        ]})),
        with(&json!({"sources": []})),
    ];
    accepted::<Mirror>(&cluster, specs).await;
}

#[tokio::test]
async fn defaults_of_mirrors_are_filled_in() {
    let cluster = Cluster::shared().await.unwrap();
    let object = create::<Mirror>(&cluster, with(&json!({}))).await.unwrap();
    let expected = json!({
        "images": ["nginx"], "rewrite": "Never", "suspend": false,
        "destinations": [{"registry": "r.example", "naming": "Path", "plainHttp": false}],
    });
    assert_eq!(object["spec"], expected);
}

#[tokio::test]
async fn invalid_mirrors_are_refused_with_a_sentence() {
    let cluster = Cluster::shared().await.unwrap();
    let host = "must be a host, with or without a port";
    let path = "must be a path in lower case";
    let way = "either caSecretName or plainHttp: true must say how the registry is reached";
    let platform = "must be os/architecture or os/architecture/variant";
    let cases = [
        (json!({"images": ["nginx"]}), "spec.destinations: Required value"),
        (
            json!({"destinations": [{"registry": "r.example"}]}),
            "images or discover must say which images to copy",
        ),
        (
            with(&json!({"images": []})),
            "images or discover must say which images to copy",
        ),
        (with(&json!({"images": ["Nginx"]})), "is not an image reference"),
        (with(&json!({"images": ["a", "a"]})), "Duplicate value"),
        (with(&json!({"destinations": []})), "should have at least 1 items"),
        (to(&json!({"registry": "https://r.example"})), host),
        (to(&json!({"registry": "r.example/mirror"})), host),
        (to(&json!({"registry": ""})), "should be at least 1 chars long"),
        (to(&json!({"nodeAddress": "localhost:port"})), host),
        (to(&json!({"repositoryPrefix": "/mirror"})), path),
        (to(&json!({"repositoryPrefix": "Mirror"})), path),
        (to(&json!({"naming": "Deep"})), "supported values: \"Path\", \"Flat\""),
        (
            with(&json!({"sources": [{"registry": "r.example/path", "plainHttp": true}]})),
            host,
        ),
        (with(&json!({"sources": [{"registry": "r.example"}]})), way),
        (
            with(&json!({"sources": [{"registry": "r.example", "plainHttp": true, "caSecretName": "ca"}]})),
            way,
        ),
        (
            with(&json!({"sources": [{"registry": "r", "plainHttp": true}, {"registry": "r", "caSecretName": "ca"}]})),
            "Duplicate value",
        ),
        (
            with(&json!({"rewrite": "Sometimes"})),
            "supported values: \"Never\", \"OnFailure\", \"Always\"",
        ),
        (with(&json!({"platforms": ["amd64"]})), platform),
        (with(&json!({"platforms": ["Linux/amd64"]})), platform),
        (
            with(&json!({"refreshInterval": "5s"})),
            "must be 0s (only on demand) or a duration from 10s",
        ),
        (
            with(&json!({"retention": {"unusedFor": "1s"}})),
            "must be a duration from 1m",
        ),
        (
            with(&json!({"retention": {}})),
            "spec.retention.unusedFor: Required value",
        ),
        (
            with(&json!({"discover": {"exclude": ["a b"]}})),
            "must be the name of an image without tag and digest",
        ),
        (
            with(&json!({"discover": {"podSelector": {"matchExpressions": [{"key": "x", "operator": "In"}]}}})),
            "operators In and NotIn need values",
        ),
    ];
    refused::<Mirror>(&cluster, cases).await;
}
