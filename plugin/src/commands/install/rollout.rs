//! Waits until what was applied runs.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kube::{Client, api::DynamicObject, core::ApiResource};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    apply,
    client::{Cluster, RequestError},
    error::Error,
    manifests, output,
    printer::Printer,
    progress::steps::Steps,
    rollout::{self, Stage},
};

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Something that is not ready when it is there.
#[derive(Clone, Debug)]
pub(super) struct Part {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
}

impl Part {
    /// The object as something to wait for, if it is that.
    pub(super) fn new(object: &Value) -> Option<Self> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let waits = ["CustomResourceDefinition", "DaemonSet", "Deployment", "StatefulSet"].contains(&kind);
        waits.then(|| Self {
            resource: manifests::resource(object).0,
            namespace: text("namespace"),
            name: text("name").unwrap_or_default(),
        })
    }

    async fn look(&self, cluster: &Cluster) -> Result<Value, Error> {
        let object: DynamicObject = cluster
            .request(async |client: Client| {
                apply::api(client, &self.resource, self.namespace.as_deref())
                    .get(&self.name)
                    .await
            })
            .await?;
        output::object(&object, &self.resource)
    }
}

/// Waits, and says where everything runs.
pub(super) async fn until_ready(
    cluster: &Cluster,
    parts: &[Part],
    namespace: &str,
    end: Option<Instant>,
    timeout: Duration,
    printer: &Printer,
) -> Result<Vec<String>, Error> {
    let mut steps = Steps::new(printer);
    let mut told = BTreeSet::new();
    loop {
        let mut waiting = Vec::new();
        let mut running = Vec::new();
        for part in parts {
            let object = part.look(cluster).await?;
            match rollout::stage(&object) {
                Stage::Ready => {
                    running.extend(rollout::extent(&object).map(|extent| format!("{} {extent}", part.name)));
                }
                Stage::Waiting(what) => waiting.push(format!("{}: {what}", part.name)),
            }
        }
        if waiting.is_empty() {
            return Ok(running);
        }
        let waiting = waiting.join(", ");
        steps.show(&waiting);
        for (reason, message) in troubles(cluster, namespace).await? {
            if told.insert(reason.clone()) {
                steps.tell(&format!("warning: {reason}: {message}"));
            }
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(Error::NotRunning {
                after: timeout,
                waiting,
                namespace: namespace.to_owned(),
            });
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What keeps Pods of Coral's from running: which Pod and why, and in the kubelet's words. Who may not read Pods does without.
async fn troubles(cluster: &Cluster, namespace: &str) -> Result<Vec<(String, String)>, Error> {
    let (pods, _) = manifests::resource(&json!({"apiVersion": "v1", "kind": "Pod"}));
    let api = |client: Client| apply::api(client, &pods, Some(namespace));
    let mut troubles = Vec::new();
    let each = |pod: DynamicObject| {
        let labels = pod.metadata.labels.as_ref();
        let part = labels.and_then(|labels| labels.get("app.kubernetes.io/name").cloned());
        let value = json!({"status": pod.data["status"]});
        if let (Some(part), Some((reason, message))) = (part, rollout::trouble(&value)) {
            troubles.push((format!("{part}: {reason}"), message));
        }
    };
    match cluster.list_selected(api, Some("app.kubernetes.io/name"), each).await {
        Ok(()) | Err(RequestError::Forbidden { .. }) => Ok(troubles),
        Err(error) => Err(error.into()),
    }
}
