//! `kubectl coral install`, `upgrade` and `uninstall` on a cluster that nobody else uses.
#![expect(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::{ffi::OsStr, path::Path, process::Command};

use coral_api::{Prefetch, keys};
use coral_tests::{Cluster, ClusterOptions, images};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        },
        apps::v1::{DaemonSet, Deployment},
        core::v1::{Namespace, Node},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{
    coral::{Ran, command, fed},
    remains::{Everything, kubectl},
};
use tempfile::TempDir;

/// Runs `kubectl coral …`, from the PATH.
fn coral(cluster: &Cluster, arguments: &[&str]) -> Ran {
    command(cluster, arguments).output().unwrap().into()
}

/// Runs `kubectl coral …` on a terminal of its own, where somebody answers. Both streams are one there.
fn on_a_terminal(cluster: &Cluster, arguments: &[&str], answers: &str) -> Ran {
    let plain = command(cluster, arguments);
    let mut words = vec![plain.get_program().to_string_lossy()];
    words.extend(plain.get_args().map(OsStr::to_string_lossy));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (key, value) in plain.get_envs() {
        script.env(key, value.unwrap_or_default());
    }
    fed(&mut script, answers)
}

/// A cluster with the image of Coral in its registry, which is that of the cluster that other tests share.
async fn cluster(dir: &Path) -> (Cluster, String) {
    let shared = Cluster::shared().await.unwrap();
    let cluster = Cluster::start(ClusterOptions {
        dir: dir.to_owned(),
        // Coral is installed as it comes, and so keeps 15 % of the disk free. A developer's machine may have less.
        node_disk: Some("1g".to_owned()),
        ..ClusterOptions::default()
    })
    .await
    .unwrap();
    let image = format!("{}/coral:dev", cluster.registry());
    let copied = Command::new(cluster.tools().node("crane"))
        .args([
            "copy",
            "--insecure",
            &format!("{}/coral:dev", shared.registry()),
            &image,
        ])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    (cluster, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_path_ends_with_nothing_left() {
    let folder = TempDir::with_prefix_in("install-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (cluster, image) = cluster(folder.path()).await;
    let _diagnose = cluster.diagnose_on_panic();
    let app = images::tiny(&cluster.open_registry(), "team/app", "v1", 100_000, "app")
        .unwrap()
        .reference;
    create_workload(&cluster, &app).await;
    let before = Everything::of(&cluster);
    assert_eq!(before.mentions, [""; 0]);

    installed(&cluster, &image, keys::SYSTEM_NAMESPACE);
    used(&cluster, &app, keys::SYSTEM_NAMESPACE).await;
    let asked = coral(&cluster, &["uninstall"]).failed(1, &["hint: --yes agrees to it"]);
    assert_eq!(asked.stdout, "");
    coral(&cluster, &["uninstall", "--yes"]).succeeded();
    nothing_is_left(&cluster, keys::SYSTEM_NAMESPACE).await;
    assert!(cluster.node("node-1").unwrap().has_image(&app).unwrap());
    let again = coral(&cluster, &["uninstall", "--yes"]).succeeded();
    assert_eq!(
        (again.stdout.as_str(), again.stderr.as_str()),
        ("", "nothing of Coral is in this cluster\n")
    );
    let after = Everything::of(&cluster);
    assert_eq!(after.mentions, [""; 0]);
    assert_eq!(after.names, before.names);

    installed(&cluster, &image, "images");
    used(&cluster, &app, "images").await;
    uninstalled_in_pieces(&cluster).await;
    let after = Everything::of(&cluster);
    assert_eq!(after.mentions, [""; 0]);
    assert_eq!(after.names, before.names);
    cluster.down().await.unwrap();
}

/// A workload that does not know of Coral.
async fn create_workload(cluster: &Cluster, app: &str) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "app"},
        "spec": {
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": app}]},
            },
        },
    }))
    .unwrap();
    let api: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    api.create(&PostParams::default(), &deployment).await.unwrap();
}

/// What the README does with Coral, and what else leaves something in a cluster.
async fn used(cluster: &Cluster, app: &str, namespace: &str) {
    let arguments = ["prefetch", app, "--name", "web", "--wait", "--timeout", "90s"];
    coral(cluster, &arguments).succeeded();
    let shown = coral(cluster, &["status", "web"]).succeeded();
    assert_eq!(shown.stdout.matches("present").count(), 2, "{}", shown.stdout);
    let shown = coral(cluster, &["images", "--node", "node-1"]).succeeded();
    assert!(
        shown.stdout.contains("team/app") && shown.stdout.contains("default/web"),
        "{}",
        shown.stdout
    );
    let template = || kubectl(cluster, &["get", "deploy/app", "--output=jsonpath={.spec.template}"]).stdout;
    let plain = template();
    coral(cluster, &["inject", "deploy/app", "--selectors", "--pull-policy"]).succeeded();
    assert!(template().contains(keys::PREFIX), "{}", template());
    kubectl(cluster, &["rollout", "status", "deploy/app", "--timeout=90s"]).succeeded();
    coral(cluster, &["uninject", "deploy/app"]).succeeded();
    assert_eq!(template(), plain);
    coral(cluster, &["allow-secret", "regcred"]).succeeded();
    let roles: Api<RoleBinding> = Api::namespaced(cluster.client(), "default");
    let binding = roles.get("coral-agent-regcred").await.unwrap();
    assert_eq!(binding.subjects.unwrap()[0].namespace.as_deref(), Some(namespace));
    let taint = json!({"spec": {"taints": [
        {"key": "example.org/other", "effect": "PreferNoSchedule"},
        {"key": "image.stvz.io/left-behind", "effect": "PreferNoSchedule"},
    ]}});
    Api::<Node>::all(cluster.client())
        .patch("node-2", &PatchParams::default(), &Patch::Merge(&taint))
        .await
        .unwrap();
}

/// Coral is taken out of a cluster in which a workload needs it and a Prefetch does not go, and half of it is missing.
async fn uninstalled_in_pieces(cluster: &Cluster) {
    coral(cluster, &["inject", "deploy/app", "--selectors", "--pull-policy"]).succeeded();
    let prefetches: Api<Prefetch> = Api::namespaced(cluster.client(), "default");
    let finalizers = |finalizers: &[&str]| json!({"metadata": {"finalizers": finalizers}});
    let change = |change: Value| {
        let prefetches = prefetches.clone();
        async move {
            prefetches
                .patch("web", &PatchParams::default(), &Patch::Merge(&change))
                .await
                .unwrap()
        }
    };
    change(finalizers(&["example.org/keep"])).await;

    // Nobody has said what is to become of the workload.
    let stranded = "warning: without Coral, new pods of default/deployment/app find no node, or no image";
    coral(cluster, &["uninstall", "--yes"]).failed(1, &[&stranded.replace("warning", "error"), "hint: --uninject"]);
    let dry = coral(cluster, &["uninstall", "--dry-run=client"]).succeeded();
    assert!(dry.stderr.contains(stranded), "{}", dry.stderr);
    for (answers, questions) in [("n\n", 1), ("y\nno\n", 2), ("y\n", 2)] {
        let ran = on_a_terminal(cluster, &["uninstall"], answers);
        assert_eq!(ran.code, Some(1), "{answers:?}: {}", ran.stdout);
        assert!(ran.stdout.contains(stranded), "{}", ran.stdout);
        assert_eq!(
            ran.stdout.matches("[y/N]").count(),
            questions,
            "{answers:?}: {}",
            ran.stdout
        );
        assert!(
            ran.stdout.contains("nothing was changed"),
            "{answers:?}: {}",
            ran.stdout
        );
    }
    let agents: Api<DaemonSet> = Api::namespaced(cluster.client(), "images");
    agents.get("coral-agent").await.unwrap();

    // It cannot come to its end, and says at what it stopped.
    let ran = on_a_terminal(cluster, &["uninstall", "--timeout", "20s"], "y\nYes\n");
    assert_eq!(ran.code, Some(4), "{}", ran.stdout);
    let said = [
        "deployment.apps/app uninjected",
        "customresourcedefinition.apiextensions.k8s.io/prefetches.image.stvz.io is gone",
        "which its finalizers hold: customresourcecleanup.apiextensions.k8s.io",
        "hint: the same command again goes on from here",
    ];
    for words in said {
        assert!(ran.stdout.contains(words), "{words:?} is missing in {}", ran.stdout);
    }
    // Somebody helps by hand, and takes away what says where Coral is.
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client());
    bindings
        .delete(keys::AGENT_SERVICE_ACCOUNT, &DeleteParams::default())
        .await
        .unwrap();
    change(finalizers(&[])).await;
    let ran = coral(cluster, &["uninstall", "--yes"]).succeeded();
    assert!(ran.stderr.contains("nothing of Coral is left"), "{}", ran.stderr);
    nothing_is_left(cluster, "images").await;
    kubectl(cluster, &["rollout", "status", "deploy/app", "--timeout=90s"]).succeeded();
}

fn installed(cluster: &Cluster, image: &str, namespace: &str) {
    let arguments = ["install", "--image", image, "--namespace", namespace];
    let dry = coral(cluster, &[&arguments[..], &["--dry-run=server"]].concat()).succeeded();
    assert!(dry.stdout.contains("(server dry run)"), "{}", dry.stdout);
    let first = coral(cluster, &arguments).succeeded();
    assert!(
        first.stdout.lines().all(|line| line.ends_with(" created")),
        "{}",
        first.stdout
    );
    let runs = format!("runs in namespace {namespace}: coral-controller with");
    assert!(first.stderr.contains(&runs), "{}", first.stderr);
    assert!(first.stderr.contains("coral-agent on 2 nodes"), "{}", first.stderr);
    let second = coral(cluster, &arguments).succeeded();
    assert!(
        second.stdout.lines().all(|line| line.ends_with(" unchanged")),
        "{}",
        second.stdout
    );
    let installed = format!("is installed in namespace {namespace}");
    coral(cluster, &["install", "--image", image, "--namespace", "elsewhere"]).failed(1, &[&installed]);
    let upgraded = coral(cluster, &["upgrade", "--image", image, "--set-agent-memory", "96Mi"]).succeeded();
    assert!(
        upgraded.stdout.contains("daemonset.apps/coral-agent configured"),
        "{}",
        upgraded.stdout
    );
}

/// All that Coral puts into a cluster is gone, and what is not Coral's is there.
async fn nothing_is_left(cluster: &Cluster, namespace: &str) {
    let client = cluster.client();
    let namespaces = Api::<Namespace>::all(client.clone());
    assert!(namespaces.get_opt(namespace).await.unwrap().is_none());
    assert_eq!(
        names::<CustomResourceDefinition>(cluster, |name| name.ends_with(keys::GROUP)).await,
        [""; 0]
    );
    let is_corals = |name: &str| name.starts_with("coral");
    assert_eq!(names::<ClusterRole>(cluster, is_corals).await, [""; 0]);
    assert_eq!(names::<ClusterRoleBinding>(cluster, is_corals).await, [""; 0]);
    assert_eq!(names::<Role>(cluster, is_corals).await, [""; 0]);
    assert_eq!(names::<RoleBinding>(cluster, is_corals).await, [""; 0]);
    assert_eq!(names::<MutatingWebhookConfiguration>(cluster, is_corals).await, [""; 0]);
    assert_eq!(names::<ValidatingAdmissionPolicy>(cluster, is_corals).await, [""; 0]);
    assert_eq!(
        names::<ValidatingAdmissionPolicyBinding>(cluster, is_corals).await,
        [""; 0]
    );
    assert_eq!(names::<NetworkPolicy>(cluster, is_corals).await, [""; 0]);
    assert_eq!(names::<PodDisruptionBudget>(cluster, is_corals).await, [""; 0]);
    for node in Api::<Node>::all(client).list(&ListParams::default()).await.unwrap() {
        let metadata = [node.labels(), node.annotations()];
        let ours: Vec<&String> = metadata
            .into_iter()
            .flat_map(|map| map.keys())
            .filter(|key| key.starts_with(keys::PREFIX))
            .collect();
        assert!(ours.is_empty(), "{ours:?}");
        let taints = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
        let taints: Vec<&str> = taints.iter().map(|taint| taint.key.as_str()).collect();
        let expected: &[&str] = if node.name_any() == "node-2" {
            &["example.org/other"]
        } else {
            &[]
        };
        assert_eq!(taints, expected);
    }
}

async fn names<K>(cluster: &Cluster, is_meant: impl Fn(&str) -> bool) -> Vec<String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let objects = Api::<K>::all(cluster.client())
        .list(&ListParams::default())
        .await
        .unwrap();
    let names = objects.items.iter().map(kube::ResourceExt::name_any);
    names.filter(|name| is_meant(name)).collect()
}
