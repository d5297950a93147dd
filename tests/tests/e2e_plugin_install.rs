//! `kubectl coral install`, `upgrade` and `uninstall` on a cluster that nobody else uses.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use coral_api::keys;
use coral_tests::{Cluster, ClusterOptions, images};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Namespace, Node},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// Runs `kubectl coral …`, from the PATH.
fn coral(cluster: &Cluster, arguments: &[&str]) -> Ran {
    let tests = env::current_exe().unwrap();
    let plugin = tests.ancestors().nth(2).unwrap().to_owned();
    assert!(
        plugin.join("kubectl-coral").exists(),
        "cargo build --package kubectl-coral"
    );
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = [plugin].into_iter().chain(env::split_paths(&path)).collect();
    let output = Command::new(cluster.tools().control_plane("kubectl"))
        .arg("coral")
        .args(arguments)
        .env("PATH", env::join_paths(folders).unwrap())
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
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
    let node = Api::<Node>::all(cluster.client());

    for namespace in ["coral-system", "images"] {
        installed(&cluster, &image, namespace);
        let app = images::tiny(&cluster.open_registry(), "team/app", namespace, 100_000, namespace)
            .unwrap()
            .reference;
        coral(
            &cluster,
            &["prefetch", &app, "--name", "web", "--wait", "--timeout", "90s"],
        )
        .succeeded();
        let shown = coral(&cluster, &["images", "--node", "node-1"]).succeeded();
        assert!(
            shown.stdout.contains("team/app") && shown.stdout.contains("default/web"),
            "{shown:?}"
        );
        coral(&cluster, &["allow-secret", "regcred"]).succeeded();
        let roles: Api<RoleBinding> = Api::namespaced(cluster.client(), "default");
        let binding = roles.get("coral-agent-regcred").await.unwrap();
        assert_eq!(binding.subjects.unwrap()[0].namespace.as_deref(), Some(namespace));
        let taint = json!({"spec": {"taints": [
            {"key": "example.org/other", "effect": "PreferNoSchedule"},
            {"key": "image.stvz.io/left-behind", "effect": "PreferNoSchedule"},
        ]}});
        node.patch("node-2", &PatchParams::default(), &Patch::Merge(&taint))
            .await
            .unwrap();

        let asked = coral(&cluster, &["uninstall"]);
        assert_eq!(asked.code, Some(1), "{asked:#?}");
        assert!(asked.stderr.contains("hint: --yes agrees to it"), "{}", asked.stderr);
        let gone = coral(&cluster, &["uninstall", "--yes"]).succeeded();
        assert!(gone.stderr.contains("nothing of Coral is left"), "{}", gone.stderr);
        nothing_is_left(&cluster, namespace).await;
        assert!(cluster.node("node-1").unwrap().has_image(&app).unwrap());
        let again = coral(&cluster, &["uninstall", "--yes"]).succeeded();
        assert_eq!(
            (again.stdout.as_str(), again.stderr.as_str()),
            ("", "nothing of Coral is in this cluster\n")
        );
    }
    cluster.down().await.unwrap();
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
    let other = coral(cluster, &["install", "--image", image, "--namespace", "elsewhere"]);
    assert_eq!(other.code, Some(1), "{other:#?}");
    assert!(
        other.stderr.contains(&format!("is installed in namespace {namespace}")),
        "{}",
        other.stderr
    );
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
