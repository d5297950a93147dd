//! Every verb of `kubectl coral` on a real API server, as people see it. Tables and failures of the plugin in all their forms are tested
//! beside the plugin, with an API server that says what it is told; here stands what only a real one, real agents and a real webhook say.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod change;
mod explain;
mod inject;
mod manners;
mod mirror;
mod prefetch;
mod refusals;
mod shown;
mod status;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{
    Scene,
    coral::{Ran, coral, fed},
};

impl Scene {
    /// Runs `kubectl …` in the namespace of the scene.
    fn kubectl(&self, arguments: &[&str], input: &str) -> Ran {
        let mut kubectl = Command::new(self.cluster.tools().control_plane("kubectl"));
        kubectl
            .arg("--kubeconfig")
            .arg(self.cluster.kubeconfig())
            .args(["--namespace", self.namespace.name()])
            .args(arguments);
        fed(&mut kubectl, input)
    }

    /// Creates an object as it is written, with warnings and all.
    fn create(&self, object: &Value) {
        self.kubectl(&["create", "--filename", "-"], &object.to_string())
            .succeeded();
    }

    /// An object of the cluster as it is now.
    fn get(&self, name: &str) -> Value {
        let ran = self.kubectl(&["get", name, "--output", "json"], "").succeeded();
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// What `kubectl coral …` prints as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&coral(self, arguments).succeeded().stdout).unwrap()
    }
}

/// A Deployment without pods, so that nothing has to run.
fn deployment(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        // Kubernetes annotates it sooner or later; so there are annotations from the beginning.
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {"team": "shop"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template(name, image)},
    })
}

/// A template of pods with one container.
fn template(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"}],
        },
    })
}
