//! Workloads: out of the documentation, into the cluster, and what becomes of them.

use std::{fs, path::Path, process::Command};

use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Pod},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

use crate::support::{
    PATIENCE, Scene,
    coral::{Ran, fed},
};

/// A file of this checkout.
pub(crate) fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join(path).to_string_lossy().into_owned()
}

/// The example of this name in the documentation, with other images.
pub(crate) fn example(name: &str, images: &[(&str, &str)]) -> Value {
    let text = fs::read_to_string(repository("docs/webhook.md")).unwrap();
    let marker = format!("```yaml\n# example: {name}\n");
    let (_, rest) = text
        .split_once(&marker)
        .unwrap_or_else(|| panic!("there is no example {name}"));
    let mut example = rest.split_once("```").unwrap().0.to_owned();
    for (written, instead) in images {
        assert!(example.contains(written), "example {name} has no {written}");
        example = example.replace(written, instead);
    }
    serde_saphyr::from_str(&example).unwrap()
}

/// Runs kubectl as an administrator, in the namespace of the scene if it is told no other.
pub(crate) fn kubectl(scene: &Scene, arguments: &[&str]) -> Ran {
    kubectl_with(scene, arguments, "")
}

fn kubectl_with(scene: &Scene, arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new(scene.cluster.tools().control_plane("kubectl"));
    command
        .arg("--kubeconfig")
        .arg(scene.cluster.kubeconfig())
        .args(arguments);
    if !arguments.contains(&"--namespace") {
        command.args(["--namespace", scene.namespace.name()]);
    }
    fed(&mut command, input)
}

/// Waits until every replica of the webhook is there, and admissions go through it.
pub(crate) async fn webhook_is_up(scene: &Scene) {
    let arguments = [
        "rollout",
        "status",
        "deployment/coral-webhook",
        "--namespace",
        "coral-system",
        "--timeout=300s",
    ];
    kubectl(scene, &arguments).succeeded();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": "x-", "annotations": {"image.stvz.io/inject": "selectors"}},
        "spec": {"containers": [{"name": "a", "image": "x:1"}]},
    }))
    .unwrap();
    let pods: Api<Pod> = scene.namespace.api();
    eventually("the webhook to answer", PATIENCE, async || {
        let pod = pods.create(&crate::dry_run(), &pod).await?;
        let selector = pod.spec.and_then(|spec| spec.node_selector);
        Ok(selector.map_or(Look::NotYet("the pod is admitted as it is"), |_| Look::Done(())))
    })
    .await
    .unwrap();
}

impl Scene {
    /// Applies an object as people do. Returns the warnings.
    pub(crate) fn apply(&self, object: &Value) -> String {
        let ran = kubectl_with(self, &["apply", "--filename", "-"], &object.to_string()).succeeded();
        ran.stderr
    }

    /// Sends an object for show: everything is done but keeping it.
    pub(crate) fn try_create(&self, object: &Value) -> Ran {
        let arguments = ["create", "--dry-run=server", "--output=json", "--filename", "-"];
        kubectl_with(self, &arguments, &object.to_string())
    }

    /// As it would be kept.
    pub(crate) fn create_for_show(&self, object: &Value) -> Value {
        serde_json::from_str(&self.try_create(object).succeeded().stdout).unwrap()
    }

    pub(crate) async fn deployment(&self, name: &str) -> Deployment {
        let deployments: Api<Deployment> = self.namespace.api();
        deployments.get(name).await.unwrap()
    }

    /// Waits for a pod that is as it should be.
    pub(crate) async fn pod(&self, selector: &str, is_right: impl Fn(&Pod) -> bool) -> Pod {
        let pods: Api<Pod> = self.namespace.api();
        eventually(&format!("a pod with {selector}"), PATIENCE, async || {
            let pods = pods.list(&ListParams::default().labels(selector)).await?.items;
            let found = pods.iter().find(|pod| is_right(pod)).cloned();
            Ok(found.map_or_else(|| Look::NotYet(statuses(&pods)), Look::Done))
        })
        .await
        .unwrap()
    }

    /// Waits until all pods run this image, and are this many.
    pub(crate) async fn running(&self, selector: &str, number: usize, image: &str) -> Vec<Pod> {
        self.all_running(selector, number, |pod| {
            pod.spec
                .as_ref()
                .is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image))
        })
        .await
    }

    /// Waits until all pods run on this node, and are this many.
    pub(crate) async fn running_on(&self, selector: &str, number: usize, node: &str) -> Vec<Pod> {
        self.all_running(selector, number, |pod| {
            pod.spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.as_deref() == Some(node))
        })
        .await
    }

    async fn all_running(&self, selector: &str, number: usize, is_right: impl Fn(&Pod) -> bool) -> Vec<Pod> {
        let pods: Api<Pod> = self.namespace.api();
        eventually(&format!("{number} pods with {selector} to run"), PATIENCE, async || {
            let pods = pods.list(&ListParams::default().labels(selector)).await?.items;
            let is_running = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
            };
            Ok(
                if pods.len() == number && pods.iter().all(|pod| is_running(pod) && is_right(pod)) {
                    Look::Done(pods)
                } else {
                    Look::NotYet(statuses(&pods))
                },
            )
        })
        .await
        .unwrap()
    }

    /// What the kubelets say of an image: it was there, and none of them pulled it.
    pub(crate) async fn started_without_a_pull(&self, image: &str) {
        let events: Api<Event> = self.namespace.api();
        let messages = eventually("the kubelet to say that the image was there", PATIENCE, async || {
            let events = events.list(&ListParams::default()).await?.items;
            let messages: Vec<String> = events.into_iter().filter_map(|event| event.message).collect();
            let is_there = |message: &String| message.contains(image) && message.contains("already present on machine");
            Ok(if messages.iter().any(is_there) {
                Look::Done(messages)
            } else {
                Look::NotYet(messages)
            })
        })
        .await
        .unwrap();
        let pulls: Vec<&String> = messages
            .iter()
            .filter(|message| message.starts_with("Pulling image") && message.contains(image))
            .collect();
        assert!(pulls.is_empty(), "{pulls:?}");
    }
}

fn statuses(pods: &[Pod]) -> Vec<(String, Option<Value>)> {
    let status = |pod: &Pod| pod.status.as_ref().and_then(|status| serde_json::to_value(status).ok());
    pods.iter().map(|pod| (pod.name_any(), status(pod))).collect()
}
