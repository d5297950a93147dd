//! Objects to measure with, as people have them.

use serde_json::{Value, json};

/// Containers of the large object.
const CONTAINERS: usize = 20;

/// A Deployment of twenty containers, each with what containers usually have.
pub(crate) fn deployment() -> Value {
    let containers: Vec<Value> = (0..CONTAINERS).map(container).collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "large",
            "labels": {"app.kubernetes.io/name": "large", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"image.stvz.io/inject": "selectors,pull-policy", "meta.helm.sh/release-name": "large"},
        },
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app.kubernetes.io/name": "large"}},
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "large"}, "annotations": {"prometheus.io/scrape": "true"}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": containers,
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "config", "configMap": {"name": "large"}}],
                    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "web", "effect": "NoSchedule"}],
                },
            },
        },
    })
}

fn container(number: usize) -> Value {
    let env: Vec<Value> = (0..8)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": "something that is neither short nor long"}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 2});
    json!({
        "name": format!("part-{number}"),
        "image": format!("registry.example.com/team/part-{number}:v1.{number}.0"),
        "command": ["/bin/part", "--listen=:8080", "--verbosity=2"],
        "ports": [{"name": format!("http-{number}"), "containerPort": 8080 + number, "protocol": "TCP"}],
        "env": env,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/part", "readOnly": true}],
        "livenessProbe": probe,
        "readinessProbe": probe,
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    })
}

/// A Pod with one container and nothing else.
pub(crate) fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "bare-", "annotations": {"image.stvz.io/inject": "selectors"}},
        "spec": {"containers": [{"name": "web", "image": "nginx:1.29"}]},
    })
}
