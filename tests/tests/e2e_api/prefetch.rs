//! `Prefetch`.

use coral_api::Prefetch;
use coral_tests::Cluster;
use serde_json::{Value, json};

use super::{SHA256, accepted, refused};

async fn create(cluster: &Cluster, spec: Value) -> Result<Value, String> {
    super::create::<Prefetch>(cluster, spec).await
}

#[tokio::test]
async fn valid_objects_are_accepted() {
    let cluster = Cluster::shared().await.unwrap();
    let specs = [
        json!({"images": ["nginx"]}),
        json!({"images": ["nginx:1.29", "ghcr.io/acme/model:v7", "localhost:5000/a/b", "[::1]:5000/a"]}),
        json!({"images": [format!("nginx:1.29@{SHA256}"), format!("nginx@{SHA256}")]}),
        json!({"images": ["a"], "nodeSelector": {}}),
        json!({"images": ["a"], "nodeSelector": {"matchLabels": {"gpu": "true"}, "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "spot", "operator": "DoesNotExist"}]}}),
        json!({"images": ["a"], "imagePullSecrets": [{"name": "regcred"}]}),
        json!({"images": ["a"], "pullPolicy": "Always", "refreshInterval": "15m"}),
        json!({"images": ["a"], "pullPolicy": "Always", "refreshInterval": "0s"}),
        json!({"images": ["a"], "mode": "Once", "ttlSecondsAfterFinished": 3600}),
        json!({"images": ["a"], "parallelism": 3}),
        json!({"images": ["a"], "parallelism": "100%"}),
        json!({"images": ["a"], "priority": -5, "timeout": "1h30m", "backoffLimit": 1, "pin": true, "gate": true,
            "removalPolicy": "Remove", "suspend": true}),
        json!({"images": (0..256).map(|i| format!("registry.example:5000/some/where/image-{i}:v1")).collect::<Vec<_>>()}),
    ];
    accepted::<Prefetch>(&cluster, specs).await;
}

#[tokio::test]
async fn defaults_are_filled_in_by_the_api_server() {
    let cluster = Cluster::shared().await.unwrap();
    let object = create(&cluster, json!({"images": ["nginx"]})).await.unwrap();
    let expected = json!({
        "images": ["nginx"], "pullPolicy": "IfNotPresent", "mode": "Keep", "parallelism": "25%", "priority": 0,
        "timeout": "10m", "backoffLimit": 6, "pin": false, "gate": false, "removalPolicy": "Retain", "suspend": false,
    });
    assert_eq!(object["spec"], expected);
}

#[tokio::test]
async fn invalid_objects_are_refused_with_a_sentence() {
    let cluster = Cluster::shared().await.unwrap();
    let too_many: Vec<String> = (0..257).map(|i| format!("image-{i}")).collect();
    let long_tag = format!("nginx:{}", "a".repeat(129));
    let not_a_reference = "is not an image reference: want [HOST[:PORT]/]PATH[:TAG][@DIGEST]";
    let cases = [
        (json!({}), "spec.images: Required value"),
        (json!({"images": []}), "should have at least 1 items"),
        (json!({"images": too_many}), "must have at most 256 items"),
        (json!({"images": ["a", "a"]}), "Duplicate value"),
        (json!({"images": ["Nginx"]}), not_a_reference),
        (json!({"images": ["ghcr.io/Acme/app"]}), not_a_reference),
        (json!({"images": ["nginx "]}), not_a_reference),
        (json!({"images": ["nginx:"]}), not_a_reference),
        (json!({"images": [long_tag]}), not_a_reference),
        (json!({"images": ["nginx@sha256:abc"]}), not_a_reference),
        (json!({"images": ["https://ghcr.io/a"]}), not_a_reference),
        (
            json!({"images": ["a"], "mode": "Sometimes"}),
            "supported values: \"Keep\", \"Once\"",
        ),
        (
            json!({"images": ["a"], "pullPolicy": "Never"}),
            "supported values: \"IfNotPresent\", \"Always\"",
        ),
        (
            json!({"images": ["a"], "ttlSecondsAfterFinished": 5}),
            "ttlSecondsAfterFinished needs mode Once",
        ),
        (
            json!({"images": ["a"], "refreshInterval": "5m"}),
            "refreshInterval needs pullPolicy Always",
        ),
        (
            json!({"images": ["a"], "pullPolicy": "Always", "refreshInterval": "5s"}),
            "must be 0s (only on demand) or a duration from 10s",
        ),
        (
            json!({"images": ["a"], "timeout": "soon"}),
            "must be a duration from 1s to 24h",
        ),
        (
            json!({"images": ["a"], "timeout": "0s"}),
            "must be a duration from 1s to 24h",
        ),
        (
            json!({"images": ["a"], "timeout": "-5m"}),
            "must be a duration from 1s to 24h",
        ),
        (
            json!({"images": ["a"], "parallelism": 0}),
            "must be a number of nodes, at least 1, or a share",
        ),
        (
            json!({"images": ["a"], "parallelism": "0%"}),
            "must be a number of nodes, at least 1, or a share",
        ),
        (
            json!({"images": ["a"], "parallelism": "101%"}),
            "must be a number of nodes, at least 1, or a share",
        ),
        (
            json!({"images": ["a"], "backoffLimit": 0}),
            "should be greater than or equal to 1",
        ),
        (
            json!({"images": ["a"], "imagePullSecrets": [{"name": ""}]}),
            "should be at least 1 chars long",
        ),
        (
            json!({"images": ["a"], "nodeSelector": {"matchExpressions": [{"key": "x", "operator": "Near"}]}}),
            "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        (
            json!({"images": ["a"], "nodeSelector": {"matchExpressions": [{"key": "x", "operator": "In"}]}}),
            "operators In and NotIn need values",
        ),
        (
            json!({"images": ["a"], "nodeSelector": {"matchExpressions": [{"key": "x", "operator": "Exists", "values": ["y"]}]}}),
            "Exists and DoesNotExist must have none",
        ),
    ];
    refused::<Prefetch>(&cluster, cases).await;
}
