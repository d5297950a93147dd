//! What somebody does who wants copies of all that a team runs, and what becomes of it when the registry of the originals dies. The mirror
//! controller runs as it is installed, with its own rights; the webhook decides about pods; everybody speaks TLS and has passwords.
//!
//! There are three registries: that of the originals, the one in the cluster, and an open one outside of it for further copies.

use coral_api::{
    ImageReference, Prefetch,
    conditions::{self, READY},
    keys,
};
use coral_mirror::{Naming, Place};
use coral_tests::{
    NodeOptions,
    cluster::NodeHandle,
    images::{self, Registry},
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::{
    away::Waiting,
    site::{NAMESPACE, Site},
    support::PATIENCE,
};

/// The namespace of the team.
const TEAM: &str = "shop";
/// A workload whose image nobody runs yet.
const BATCH: &str = "batch";
/// One that uses copies from the beginning, and has a second one outside of the cluster.
const TOOL: &str = "tool";
const WEB: &str = "web";
/// One that goes.
const OLD: &str = "old";
const ORIGINS: &str = "registry-auth";

/// The workloads, and ways to look at what becomes of them.
pub(crate) struct Journey<'a> {
    site: &'a Site,
    origins: Registry,
}

impl<'a> Journey<'a> {
    /// A team with a private registry, before anything of Coral's is there.
    pub(crate) async fn begin(site: &'a Site) -> Self {
        let journey = Self {
            site,
            origins: site.cluster.authenticated_registry().unwrap(),
        };
        site.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM, "labels": {"team": TEAM}},
        }));
        let access = site.cluster.registry_auth();
        site.kubectl(&[
            "--namespace",
            TEAM,
            "create",
            "secret",
            "docker-registry",
            "regcred",
            &format!("--docker-server={}", access.host),
            &format!("--docker-username={}", access.user),
            &format!("--docker-password={}", access.password),
        ])
        .succeeded();
        for (name, replicas) in [(WEB, 1), (TOOL, 1), (OLD, 0), (BATCH, 0)] {
            images::tiny(&journey.origins, &format!("team/{name}"), "v1", 100_000, name).unwrap();
            journey.deploy(name, replicas);
        }
        for name in [WEB, TOOL] {
            journey.rolled_out(name);
            assert_eq!(journey.image_of(name).await, journey.image(name));
        }
        journey
    }

    /// What people write.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/team/{name}:v1", self.origins.host())
    }

    /// What the image is called below a place.
    fn below(&self, place: &str, name: &str) -> String {
        let place = Place::new(place, Naming::Path).unwrap();
        place.copy_of(&self.image(name).parse().unwrap()).unwrap().to_string()
    }

    /// What nodes know the copy in the cluster as.
    fn copy(&self, name: &str) -> String {
        self.below("localhost:7439/mirror", name)
    }

    /// The copy that is not in the cluster.
    fn copy_outside(&self, name: &str) -> String {
        self.below(&format!("{}/backup", self.site.cluster.registry()), name)
    }

    fn deploy(&self, name: &str, replicas: u32) {
        let labels = json!({"app": name});
        self.site.apply(&json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": TEAM},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "imagePullSecrets": [{"name": "regcred"}],
                        "containers": [{"name": "main", "image": self.image(name)}],
                    },
                },
            },
        }));
    }

    fn rolled_out(&self, name: &str) {
        let workload = format!("deployment/{name}");
        self.site
            .kubectl(&["--namespace", TEAM, "rollout", "status", &workload, "--timeout=90s"])
            .succeeded();
    }

    /// Replaces the pods of a workload, and returns the image of the new one.
    async fn again(&self, name: &str) -> String {
        let workload = format!("deployment/{name}");
        self.site
            .kubectl(&["--namespace", TEAM, "rollout", "restart", &workload])
            .succeeded();
        self.rolled_out(name);
        self.image_of(name).await
    }

    /// The image of the newest pod of a workload.
    async fn image_of(&self, name: &str) -> String {
        let pods: Api<Pod> = self.site.pods(TEAM);
        let listed = pods
            .list(&kube::api::ListParams::default().labels(&format!("app={name}")))
            .await
            .unwrap();
        let newest = listed.into_iter().max_by_key(Pod::creation_timestamp).unwrap();
        newest.spec.unwrap().containers.remove(0).image.unwrap()
    }

    /// Copies are asked for: in the cluster for all of the team while originals are gone, and of one image also outside, always.
    pub(crate) fn ask_for_copies(&self) {
        let access = self.site.cluster.registry_auth();
        let authority = format!("--from-file=ca.crt={}", access.authority.display());
        let create = ["create", "secret", "generic", "coral-mirror-ca", &authority];
        self.site
            .kubectl(&[&["--namespace", NAMESPACE], &create[..]].concat())
            .succeeded();
        self.site
            .coral(&["allow-secret", "regcred", "--namespace", TEAM, "--mirror"])
            .succeeded();
        let asked = self.site.coral(&[
            "mirror",
            "--discover",
            "--namespace-selector",
            &format!("team={TEAM}"),
            "--name",
            "everything",
            "--to",
            "coral-registry.coral-system.svc:5000/mirror",
            "--node-address",
            "localhost:7439",
            "--push-secret",
            "coral-registry-push",
            "--ca-secret",
            "coral-registry-ca",
            "--source-secret",
            &format!("{TEAM}/regcred"),
            "--source-ca",
            &format!("{}=coral-mirror-ca", access.host),
            "--rewrite",
            "on-failure",
            "--remove-unused-after",
            "1m",
            "--refresh-interval",
            "10s",
            "--wait",
            "--timeout",
            "90s",
        ]);
        let said = asked.succeeded().stderr;
        assert!(said.contains("4 of 4 images are copied"), "{said}");
        self.site.apply(&json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Mirror",
            "metadata": {"name": "outside"},
            "spec": {
                "images": [self.image(TOOL)],
                "sourceSecrets": [{"namespace": TEAM, "name": "regcred"}],
                "sources": [{"registry": access.host, "caSecretName": "coral-mirror-ca"}],
                "destinations": [
                    {"registry": self.site.cluster.registry(), "repositoryPrefix": "backup", "plainHttp": true},
                    {
                        "registry": "coral-registry.coral-system.svc:5000",
                        "nodeAddress": "localhost:7439",
                        "repositoryPrefix": "tools",
                        "secretName": "coral-registry-push",
                        "caSecretName": "coral-registry-ca",
                    },
                ],
                "refreshInterval": "10s",
                "rewrite": "Always",
            },
        }));
        self.site
            .kubectl(&["wait", "--for=condition=Ready", "mirror/outside", "--timeout=90s"])
            .succeeded();
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.site.coral(&[arguments, &["--output=json"]].concat()).succeeded();
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// What new pods use instead of an image.
    fn replacement(&self, name: &str) -> Option<String> {
        let verdict = self.json(&["mirror", "check", &self.image(name)]);
        verdict["replacement"].as_str().map(str::to_owned)
    }

    /// Everything is as it should be, and that is what is said.
    pub(crate) async fn all_is_well(&self) {
        for name in [WEB, TOOL, OLD, BATCH] {
            let image = self.image(name);
            let digest = self.origins.digest(&image).unwrap();
            let status = &self.json(&["mirror", "status", &image])["status"];
            assert_eq!(status["origin"]["state"], "Available", "{status}");
            assert_eq!(status["digest"], digest, "{status}");
            let copies = status["destinations"].as_array().unwrap();
            assert_eq!(copies.len(), if name == TOOL { 3 } else { 1 }, "{status}");
            for copy in copies {
                assert_eq!(
                    (&copy["state"], &copy["digest"]),
                    (&json!("Present"), &json!(digest)),
                    "{status}"
                );
            }
        }
        let outside = self.site.cluster.open_registry();
        assert_eq!(
            outside.digest(&self.copy_outside(TOOL)).unwrap(),
            self.origins.digest(&self.image(TOOL)).unwrap()
        );
        assert_eq!(self.replacement(WEB), None);
        assert_eq!(self.again(WEB).await, self.image(WEB));
        // Which of its copies is first is nobody's promise.
        let always = self.replacement(TOOL).expect("it is always a copy");
        assert_eq!(self.again(TOOL).await, always);
        let rubbish = self.site.coral(&["mirror", "gc", "--dry-run"]).succeeded();
        assert_eq!(rubbish.stdout.trim_end(), "nothing is to be removed");
        self.site
            .kubectl(&["--namespace", TEAM, "delete", "deployment", OLD])
            .succeeded();
    }

    /// The registry of the originals dies, which is noticed by itself.
    pub(crate) async fn originals_go(&self) {
        self.site.cluster.kill(ORIGINS).unwrap();
        self.until_replaced(WEB, true).await;
        self.until_replaced(BATCH, true).await;
        let said = self
            .site
            .coral(&["mirror", "status", &self.image(WEB)])
            .succeeded()
            .stdout;
        let row = said.lines().nth(1).unwrap();
        assert!(row.contains("unreachable"), "{said}");
        assert!(said.contains("Connection refused"), "{said}");
        assert_eq!(self.again(WEB).await, self.copy(WEB));
        let node = self.site.cluster.node("node-1").unwrap();
        assert!(node.has_image(&self.copy(WEB)).unwrap(), "{:?}", node.images());
    }

    async fn until_replaced(&self, name: &str, expected: bool) {
        let copy = expected.then(|| self.copy(name));
        let what = format!("new pods that name {} to use {copy:?}", self.image(name));
        eventually(&what, PATIENCE, async || {
            let replacement = self.replacement(name);
            Ok(if replacement == copy {
                Look::Done(())
            } else {
                Look::NotYet(replacement)
            })
        })
        .await
        .unwrap();
    }

    /// Nodes are asked to have the image of the batch, which none has ever had; a node that joins has it, too, and runs what names the original.
    pub(crate) async fn a_new_node_gets_the_copies(&self) -> NodeHandle {
        let image = self.image(BATCH);
        let prefetch = [
            "prefetch",
            &image,
            "--name",
            BATCH,
            "--namespace",
            TEAM,
            "--pull-secret",
            "regcred",
            "--wait",
            "--timeout",
            "90s",
        ];
        self.site.coral(&prefetch).succeeded();
        let small = NodeOptions {
            disk: Some("1g".to_owned()),
            ..NodeOptions::default()
        };
        let node = self.site.cluster.add_node(small).await.unwrap();
        self.is_on(2).await;
        let copy = self.copy(BATCH);
        assert!(node.has_image(&copy).unwrap(), "{:?}", node.images().unwrap());
        let key = image.parse::<ImageReference>().unwrap().label_key();
        let nodes: Api<Node> = Api::all(self.site.cluster.client());
        let labels = nodes.get(node.name()).await.unwrap().labels().clone();
        assert_eq!(
            labels.get(&key).map(String::as_str),
            Some("available"),
            "the label is that of the original"
        );
        // What was fetched before is what the kubelet asks for, and what was not is pulled through the relay.
        for (name, policy) in [(BATCH, "Never"), (WEB, "IfNotPresent")] {
            self.pod_on(&node, name, policy).await;
        }
        node
    }

    async fn is_on(&self, nodes: i32) {
        let api: Api<Prefetch> = Api::namespaced(self.site.cluster.client(), TEAM);
        eventually(&format!("the image to be on {nodes} nodes"), PATIENCE, async || {
            let status = api.get(BATCH).await?.status.unwrap_or_default();
            let is_ready = conditions::is_true(&status.conditions, READY) && status.nodes.ready == nodes;
            Ok(if is_ready { Look::Done(()) } else { Look::NotYet(status) })
        })
        .await
        .unwrap();
    }

    /// A pod that names an original runs its copy.
    async fn pod_on(&self, node: &NodeHandle, name: &str, policy: &str) {
        let pod = format!("{name}-there");
        self.site.apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": TEAM},
            "spec": {
                "nodeName": node.name(),
                "terminationGracePeriodSeconds": 0,
                "imagePullSecrets": [{"name": "regcred"}],
                "containers": [{"name": "main", "image": self.image(name), "imagePullPolicy": policy}],
            },
        }));
        self.site.runs(TEAM, &pod).await;
        let seen = self.site.pods(TEAM).get(&pod).await.unwrap();
        let noted = seen.annotations().get(keys::ORIGINAL_IMAGES_ANNOTATION).cloned();
        assert_eq!(noted, Some(json!({"main": self.image(name)}).to_string()));
        assert_eq!(
            seen.spec.unwrap().containers[0].image.as_deref(),
            Some(self.copy(name).as_str())
        );
    }

    /// Who waits on the first node when there is no relay.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting {
            site: self.site,
            namespace: TEAM,
            prefetch: BATCH,
            node: "node-1",
            original: self.image(BATCH),
            copy: self.copy(BATCH),
        }
    }

    /// The image whose copy the nodes were asked to have, and what they know it as.
    pub(crate) fn fetched(&self) -> String {
        self.copy(BATCH)
    }

    /// Nothing is looked at for a while, which changes nothing for pods.
    pub(crate) fn suspend(&self, suspend: bool) {
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        for mirror in ["everything", "outside"] {
            self.site
                .kubectl(&["patch", "mirror", mirror, "--type=merge", "--patch", &patch])
                .succeeded();
        }
        assert_eq!(self.replacement(WEB), Some(self.copy(WEB)));
    }

    /// What nobody has used for long enough would go. From here the registry in the cluster cannot be asked, so its copies stay, and that is said.
    pub(crate) async fn rubbish_is_told_of(&self) {
        let old = self.image(OLD);
        let plan = eventually("the copy that nobody needs to be told of", PATIENCE, async || {
            let plan = self.json(&["mirror", "gc", "--dry-run"]);
            let is_told_of = plan["kept"].as_array().is_some_and(|kept| !kept.is_empty());
            Ok(if is_told_of {
                Look::Done(plan)
            } else {
                Look::NotYet(plan)
            })
        });
        let plan = plan.await.unwrap();
        let kept = plan["kept"].as_array().unwrap();
        assert_eq!((kept.len(), &kept[0]["image"]), (1, &json!(old)), "{plan}");
        assert!(
            kept[0]["why"].as_str().unwrap().contains("the marks of clusters"),
            "{plan}"
        );
        assert_eq!(plan["removals"], json!([]));
    }

    /// The registry of the originals is back, and so are the originals.
    pub(crate) async fn originals_come_back(&self) {
        self.site.heal().await;
        self.until_replaced(WEB, false).await;
        assert_eq!(self.again(WEB).await, self.image(WEB));
        let state = &self.json(&["mirror", "status", &self.image(WEB)])["status"]["origin"]["state"];
        assert_eq!(*state, "Available");
    }

    /// Brings back what the team has taken away, and takes away what it has made.
    pub(crate) fn clean_up(&self) {
        self.deploy(OLD, 0);
    }
}
