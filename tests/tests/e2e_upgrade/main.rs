//! Coral is brought to another build and back while nodes are labelled and workloads are admitted, by Helm and by the command; and objects
//! of an older version are read.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]
#![expect(clippy::print_stdout, reason = "a test that takes long says how long what takes")]

mod observers;
#[path = "../support/mod.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use coral_api::{ImageReference, keys};
use coral_tests::{
    Cluster, ClusterOptions,
    cluster::tools::Checks,
    images,
    progress::Silent,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _, api::ListParams};
use observers::Observers;
use serde_json::Value;
use support::{
    PATIENCE,
    coral::{Ran, command},
};
use tempfile::TempDir;

/// The parts that run.
const PARTS: [&str; 3] = [
    "daemonset/coral-agent",
    "deployment/coral-controller",
    "deployment/coral-webhook",
];
/// Helm's name for the installation.
const RELEASE: &str = "coral";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// A cluster with two builds of Coral in its registry: the same programs, under other digests.
struct Site {
    cluster: Cluster,
    helm: PathBuf,
    builds: [String; 2],
    folder: TempDir,
}

impl Site {
    async fn start() -> Self {
        let shared = Cluster::shared().await.unwrap();
        let folder = TempDir::with_prefix_in("upgrade-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let cluster = Cluster::start(ClusterOptions {
            dir: folder.path().join("cluster"),
            // Coral is installed as it comes, and so keeps 15 % of the disk free. A developer's machine may have less.
            node_disk: Some("1g".to_owned()),
            ..ClusterOptions::default()
        })
        .await
        .unwrap();
        let builds = ["one", "two"].map(|tag| format!("{}/coral:{tag}", cluster.registry()));
        let crane = |arguments: &[&str]| {
            let ran: Ran = Command::new(cluster.tools().node("crane"))
                .args(arguments)
                .arg("--insecure")
                .output()
                .unwrap()
                .into();
            ran.succeeded();
        };
        let source = format!("{}/coral:dev", shared.registry());
        crane(&["copy", &source, &builds[0]]);
        crane(&[
            "mutate",
            &builds[0],
            "--tag",
            &builds[1],
            "--label",
            "org.opencontainers.image.revision=two",
        ]);
        Self {
            helm: Checks::build(&Silent).await.unwrap().helm(),
            cluster,
            builds,
            folder,
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Ran {
        let mut kubectl = Command::new(self.cluster.tools().control_plane("kubectl"));
        kubectl
            .arg("--kubeconfig")
            .arg(self.cluster.kubeconfig())
            .args(arguments);
        kubectl.output().unwrap().into()
    }

    fn helm(&self, arguments: &[&str]) -> Ran {
        let mut helm = Command::new(&self.helm);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, self.folder.path().join("helm"));
        }
        helm.env("KUBECONFIG", self.cluster.kubeconfig())
            .args(arguments)
            .args(["--namespace", keys::SYSTEM_NAMESPACE]);
        helm.output().unwrap().into()
    }

    /// `helm install` or `upgrade`, of this build.
    fn release(&self, verb: &[&str], tag: &str) {
        let chart = repository("charts/coral");
        let (repository, tag) = (
            format!("image.repository={}/coral", self.cluster.registry()),
            format!("image.tag={tag}"),
        );
        let chart = [RELEASE, &*chart.to_string_lossy()];
        let values = ["--set", &repository, "--set", &tag, "--wait", "--timeout", "3m"];
        self.helm(&[verb, &chart, &values].concat()).succeeded();
    }

    fn coral(&self, arguments: &[&str]) -> Ran {
        command(&self.cluster, arguments).output().unwrap().into()
    }

    /// Waits until every pod of Coral's is of this build, and runs.
    async fn runs(&self, build: &str) {
        for part in PARTS {
            let arguments = [
                "rollout",
                "status",
                part,
                "--timeout=120s",
                "--namespace",
                keys::SYSTEM_NAMESPACE,
            ];
            self.kubectl(&arguments).succeeded();
        }
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), keys::SYSTEM_NAMESPACE);
        eventually(&format!("every pod to be of {build}"), PATIENCE, async || {
            let found = pods.list(&ListParams::default()).await?.items;
            let images: Vec<String> = found
                .iter()
                .map(|pod| {
                    pod.spec.as_ref().unwrap().containers[0]
                        .image
                        .clone()
                        .unwrap_or_default()
                })
                .collect();
            // Two agents, two controllers, two webhooks.
            let is_so = images.len() == 6 && images.iter().all(|image| image == build);
            Ok(if is_so { Look::Done(()) } else { Look::NotYet(images) })
        })
        .await
        .unwrap();
    }

    /// A new Prefetch becomes Ready.
    fn works(&self, name: &str) -> String {
        let image = images::tiny(
            &self.cluster.open_registry(),
            &format!("team/{name}"),
            "v1",
            100_000,
            name,
        )
        .unwrap()
        .reference;
        let arguments = ["prefetch", &image, "--name", name, "--wait", "--timeout", "90s"];
        self.coral(&arguments).succeeded();
        image
    }

    /// Does something meanwhile, and there must be no gap.
    async fn observed(&self, what: &str, image: &str, change: impl AsyncFnOnce()) {
        let key = image.parse::<ImageReference>().unwrap().label_key();
        let nodes: Api<Node> = Api::all(self.cluster.client());
        eventually("both nodes to have the label", PATIENCE, async || {
            let nodes = nodes.list(&ListParams::default()).await?.items;
            let count = nodes.iter().filter(|node| node.labels().contains_key(&key)).count();
            Ok(if count == 2 {
                Look::Done(())
            } else {
                Look::NotYet(count)
            })
        })
        .await
        .unwrap();
        let began = Instant::now();
        let observers = Observers::start(&self.cluster, image, &key);
        change().await;
        let seen = observers.stop();
        println!(
            "{what}: {:.1} s, {} workloads admitted, nodes seen {:?}",
            began.elapsed().as_secs_f64(),
            seen.admitted,
            seen.labelled
        );
        assert!(seen.gaps.is_empty(), "{what}: {:?}", seen.gaps);
        assert!(seen.admitted > 20 && seen.labelled.len() == 2, "{what}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_build_and_back_leave_no_gap_in_labels_and_admissions() {
    let site = Site::start().await;
    let _diagnose = site.cluster.diagnose_on_panic();
    let [one, two] = &site.builds;
    older_objects_are_read(&site);

    // With Helm, to a newer build.
    let took = Instant::now();
    site.release(&["install", "--create-namespace"], "one");
    site.runs(one).await;
    println!("helm install: {:.1} s", took.elapsed().as_secs_f64());
    let app = site.works("app");
    site.observed("helm upgrade", &app, async || {
        site.release(&["upgrade"], "two");
        site.runs(two).await;
    })
    .await;
    site.works("after-upgrade");
    site.helm(&["uninstall", RELEASE, "--wait", "--timeout", "2m"])
        .succeeded();
    what_helm_leaves(&site);

    // With the command, back to an older one. It finds what Helm has left.
    site.coral(&["install", "--image", two, "--force-conflicts"])
        .succeeded();
    site.runs(two).await;
    site.observed("kubectl coral upgrade", &app, async || {
        site.coral(&["upgrade", "--image", one]).succeeded();
        site.runs(one).await;
    })
    .await;
    site.works("after-downgrade");
    site.coral(&["uninstall", "--yes"]).succeeded();
    site.cluster.down().await.unwrap();
}

/// Objects that were stored under the resource types of an older version are read and changed under those of today.
fn older_objects_are_read(site: &Site) {
    let kept = repository("tests/fixtures/crds");
    for version in std::fs::read_dir(kept).unwrap() {
        let version = version.unwrap().path();
        let objects = version.join("objects.yaml").to_string_lossy().into_owned();
        for entry in std::fs::read_dir(&version).unwrap() {
            let file = entry.unwrap().path().to_string_lossy().into_owned();
            if file != objects {
                site.kubectl(&["apply", "--server-side", "--filename", &file])
                    .succeeded();
            }
        }
        let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
        site.kubectl(&established).succeeded();
        site.kubectl(&["apply", "--server-side", "--validate=strict", "--filename", &objects])
            .succeeded();
        let status = ["apply", "--server-side", "--subresource=status", "--filename", &objects];
        site.kubectl(&status).succeeded();
        let stored = || -> Value {
            let ran = site
                .kubectl(&["get", "--filename", &objects, "--output=json"])
                .succeeded();
            let list: Value = serde_json::from_str(&ran.stdout).unwrap();
            let items = list["items"].as_array().unwrap().iter();
            items
                .map(|object| serde_json::json!([object["spec"], object["status"]]))
                .collect()
        };
        let before = stored();
        assert!(before[0][1].is_object() && before[1][1].is_object(), "{before}");

        // As docs/upgrade.md says it for Helm, which leaves resource types alone.
        let today = repository("charts/coral/crds").to_string_lossy().into_owned();
        site.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &today])
            .succeeded();
        site.kubectl(&established).succeeded();
        let after = stored();
        assert_eq!(before, after, "{}", version.display());
        // Nothing that is stored is refused when it is written again.
        let change = [
            "label",
            "--overwrite",
            "--filename",
            &objects,
            "example.org/changed=yes",
        ];
        site.kubectl(&change).succeeded();
        let again = ["apply", "--server-side", "--force-conflicts", "--filename", &objects];
        site.kubectl(&again).succeeded();
        site.kubectl(&["delete", "--filename", &objects]).succeeded();
    }
}

/// What docs/upgrade.md says that `helm uninstall` leaves: resource types, and so Prefetches.
fn what_helm_leaves(site: &Site) {
    let arguments = [
        "get",
        "all,serviceaccounts,secrets,roles,rolebindings,networkpolicies,poddisruptionbudgets",
        "--namespace",
        keys::SYSTEM_NAMESPACE,
        "--selector=app.kubernetes.io/part-of=coral",
        "--output=name",
    ];
    assert_eq!(site.kubectl(&arguments).succeeded().stdout, "");
    let arguments = [
        "get",
        "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings",
        "--selector=app.kubernetes.io/part-of=coral",
        "--output=name",
    ];
    assert_eq!(site.kubectl(&arguments).succeeded().stdout, "");
    let prefetches = site.kubectl(&["get", "prefetches", "--output=name"]).succeeded();
    assert!(prefetches.stdout.contains("/app"), "{}", prefetches.stdout);
}
