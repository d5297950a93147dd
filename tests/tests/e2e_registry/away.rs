//! What people are told while no relay answers: of a pod that was sent to a copy, and of a Prefetch whose nodes were.

use coral_tests::wait::{Look, eventually};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;

use super::{
    site::{NAMESPACE, Site},
    support::PATIENCE,
};

/// A Prefetch, and a pod that needs its image, on a node that has lost it.
pub(crate) struct Waiting<'a> {
    pub(crate) site: &'a Site,
    pub(crate) namespace: &'a str,
    pub(crate) prefetch: &'a str,
    pub(crate) node: &'a str,
    /// What people wrote, and what nodes ask for.
    pub(crate) original: String,
    pub(crate) copy: String,
}

const POD: &str = "waiting";

impl Waiting<'_> {
    /// The node loses the image: both wait for the relay, and everybody who is asked says so.
    pub(crate) async fn is_told_of(&self) {
        let node = self.site.cluster.node(self.node).unwrap();
        node.remove_image(&self.copy).unwrap();
        self.site.apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": POD, "namespace": self.namespace},
            "spec": {
                "nodeName": self.node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": self.original}],
            },
        }));
        self.site.has_no_image(self.namespace, POD).await;
        let pod = format!("pod/{POD}");
        let explained = self.coral(&["explain", &pod]);
        let copy = format!(", by its copy {}: ", self.copy);
        for part in [copy.as_str(), "the DaemonSet coral-relay"] {
            assert!(explained.contains(part), "{part} is missing in:\n{explained}");
        }
        // The agent's attempt fails as the kubelet's does.
        eventually("the status to tell of the relay", PATIENCE, async || {
            let status = self.coral(&["status", self.prefetch, "--failed"]);
            let told = [
                ": RegistryUnavailable\n",
                "connection refused",
                "the DaemonSet coral-relay",
            ];
            Ok(if told.into_iter().all(|part| status.contains(part)) {
                Look::Done(())
            } else {
                Look::NotYet(status)
            })
        })
        .await
        .unwrap();
        // New pods go on being sent there: it is about the registries, not about nodes, that this is decided.
        let check = self.coral(&["mirror", "check", &self.original]);
        assert!(check.contains(&self.copy), "{check}");
        self.metrics_tell_of_the_originals().await;
    }

    /// What the alerts go by is told by the replica that works.
    async fn metrics_tell_of_the_originals(&self) {
        let registry = self.original.split('/').next().unwrap();
        let gone = format!(r#"coral_mirror_originals{{registry="{registry}",state="Unreachable"}}"#);
        let wanted = ListParams::default().labels("app.kubernetes.io/name=coral-mirror");
        let pods = self.site.pods(NAMESPACE).list(&wanted).await.unwrap();
        let told: Vec<String> = pods
            .iter()
            .map(|pod| {
                let path = format!(
                    "/api/v1/namespaces/{NAMESPACE}/pods/{}:8080/proxy/metrics",
                    pod.name_any()
                );
                self.site.kubectl(&["get", "--raw", &path]).succeeded().stdout
            })
            .collect();
        let leads = |told: &&String| told.lines().any(|line| line == "coral_mirror_leads 1");
        let leader: Vec<&String> = told.iter().filter(leads).collect();
        assert_eq!(leader.len(), 1, "{told:?}");
        assert!(leader[0].contains(&gone), "{gone} is missing in:\n{}", leader[0]);
    }

    /// There are relays again: nobody has to do anything.
    pub(crate) async fn is_over(&self) {
        self.site.runs(self.namespace, POD).await;
        let node = self.site.cluster.node(self.node).unwrap();
        eventually("the status to tell of no failure", PATIENCE, async || {
            let status = self.coral(&["status", self.prefetch, "--failed"]);
            Ok(if status.contains("RegistryUnavailable") {
                Look::NotYet(status)
            } else {
                Look::Done(())
            })
        })
        .await
        .unwrap();
        assert!(node.has_image(&self.copy).unwrap(), "{:?}", node.images().unwrap());
        let delete = ["--namespace", self.namespace, "delete", "pod", POD];
        self.site.kubectl(&delete).succeeded();
    }

    fn coral(&self, arguments: &[&str]) -> String {
        let arguments = [arguments, &["--namespace", self.namespace]].concat();
        self.site.coral(&arguments).succeeded().stdout
    }
}
