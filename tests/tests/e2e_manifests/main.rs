//! The manifests on a real API server, which checks each field of them strictly, and what the documents show to be run.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod allowlist;
mod chart;
mod documents;
mod monitoring;
mod pull_secrets;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use coral_tests::{
    Cluster,
    wait::{Look, eventually},
};
use serde_json::{Value, json};
use support::{Scene, coral::Ran};

/// How long the API server may take to follow a change of what it decides by.
const PATIENCE: Duration = Duration::from_mins(1);

/// A file or folder of this checkout.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// Runs kubectl as an administrator.
fn kubectl(cluster: &Cluster, arguments: &[&str], input: &str) -> Ran {
    let mut kubectl = Command::new(cluster.tools().control_plane("kubectl"));
    kubectl.arg("--kubeconfig").arg(cluster.kubeconfig()).args(arguments);
    let mut child = kubectl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read its input may be gone before it was written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// What kustomize makes of a folder, or of these instructions in a folder of their own.
fn kustomize(cluster: &Cluster, folder: &Path) -> Vec<Value> {
    let ran = kubectl(cluster, &["kustomize", &folder.to_string_lossy()], "").succeeded();
    assert!(!ran.stderr.contains("deprecated"), "{}", ran.stderr);
    serde_saphyr::from_multiple(&ran.stdout).unwrap()
}

/// The API server's answer to these objects, without keeping any: unknown and doubled fields are errors.
fn strictly(cluster: &Cluster, namespace: Option<&str>, objects: &[Value]) -> Ran {
    let mut arguments = vec![
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "--filename=-",
    ];
    if let Some(namespace) = namespace {
        arguments.extend(["--namespace", namespace]);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    kubectl(cluster, &arguments, &list.to_string())
}

/// Whether the cluster has no such kind, because it belongs to something that is not installed here.
fn is_of_others(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap();
    ["monitoring.coreos.com/", "cert-manager.io/"]
        .iter()
        .any(|group| version.starts_with(group))
}

/// Instructions of kustomize in a folder beside `deploy/`, which it wants to be below a common root.
fn instructions(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let deploy = fs::canonicalize(repository("deploy")).unwrap();
    // kustomize takes no absolute paths.
    let up = "../".repeat(folder.path().canonicalize().unwrap().components().count() - 1);
    let text = text.replace(
        "DEPLOY",
        &format!("{up}{}", deploy.to_string_lossy().trim_start_matches('/')),
    );
    fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_field_of_the_base_and_of_each_component() {
    let cluster = Cluster::shared().await.unwrap();
    let base = kustomize(&cluster, &repository("deploy"));
    strictly(&cluster, None, &base).succeeded();
    let mut components = 0;
    for entry in fs::read_dir(repository("deploy/components")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let folder = instructions(&format!(
            "resources: [DEPLOY]\ncomponents: [DEPLOY/components/{name}]\n"
        ));
        let mut objects = kustomize(&cluster, folder.path());
        assert!(objects != base, "{name}");
        objects.retain(|object| !is_of_others(object));
        strictly(&cluster, None, &objects).succeeded();
        components += 1;
    }
    assert!(components >= 4);

    // What is checked is checked.
    let mut agent = base.into_iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    agent["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = json!({});
    strictly(&cluster, None, &[agent]).failed(1, &["unknown field", "readinesProbe"]);
}

/// With certificates that others make, the token of the webhook is worth little.
#[tokio::test(flavor = "multi_thread")]
async fn with_cert_manager_the_webhook_may_only_read_prefetches() {
    let cluster = Cluster::shared().await.unwrap();
    let folder = instructions("resources: [DEPLOY]\ncomponents: [DEPLOY/components/cert-manager]\n");
    let objects = kustomize(&cluster, folder.path());
    let of_webhook = |kind: &str| -> Vec<&Value> {
        let is_meant = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == "coral-webhook";
        objects.iter().filter(is_meant).collect()
    };
    assert_eq!((of_webhook("Role"), of_webhook("RoleBinding")), (vec![], vec![]));
    let rules = &of_webhook("ClusterRole")[0]["rules"];
    let expected =
        json!([{"apiGroups": ["image.stvz.io"], "resources": ["prefetches"], "verbs": ["get", "list", "watch"]}]);
    assert_eq!(*rules, expected);
    let certificate = of_webhook("Certificate")[0];
    let volume = &of_webhook("Deployment")[0]["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"];
    assert_eq!(certificate["spec"]["secretName"], *volume);
    let service = &of_webhook("MutatingWebhookConfiguration")[0]["webhooks"][0]["clientConfig"]["service"];
    let host = format!(
        "{}.{}.svc",
        service["name"].as_str().unwrap(),
        service["namespace"].as_str().unwrap()
    );
    assert_eq!(certificate["spec"]["dnsNames"], json!([host]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_overlay_puts_everything_into_its_namespace() {
    let scene = Scene::new("overlay").await;
    let objects = kustomize(&scene.cluster, &repository("deploy/examples/overlay"));
    let text = serde_json::to_string(&objects).unwrap();
    assert!(!text.contains("coral-system"), "{text}");
    assert!(text.contains("registry.example/coral:0.1.0"));
    // It cannot be tried with a namespace that is not there.
    let text = text.replace("image-prefetching", scene.namespace.name());
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    strictly(&scene.cluster, None, &objects).succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_pass_the_restricted_standard_but_for_what_the_agent_needs() {
    let scene = Scene::new("standard").await;
    let enforce = |level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        let arguments = ["label", "namespace", scene.namespace.name(), &label, "--overwrite"];
        kubectl(&scene.cluster, &arguments, "").succeeded();
    };
    let admitted = |workload: &Value| {
        let mut pod = workload["spec"]["template"].clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "tried".into();
        // These are of the real namespace.
        pod["spec"].as_object_mut().unwrap().remove("serviceAccountName");
        strictly(&scene.cluster, Some(scene.namespace.name()), &[pod])
    };
    let objects = kustomize(&scene.cluster, &repository("deploy"));
    let named = |name: &str| {
        let is_meant = |object: &&Value| object["metadata"]["name"] == name && !object["spec"]["template"].is_null();
        objects.iter().find(is_meant).unwrap()
    };
    enforce("restricted");
    admitted(named("coral-controller")).succeeded();
    admitted(named("coral-webhook")).succeeded();
    let refused = admitted(named("coral-agent")).failed(1, &["violates PodSecurity"]);
    let (_, violations) = refused
        .stderr
        .split_once("violates PodSecurity \"restricted:latest\": ")
        .unwrap();
    assert_eq!(
        violations.trim(),
        "restricted volume types (volume \"run\" uses restricted volume type \"hostPath\"), \
         runAsNonRoot != true (pod or container \"agent\" must set securityContext.runAsNonRoot=true), \
         runAsUser=0 (pod must not set runAsUser=0)"
    );
    // The folder is all that the weaker standard has against it.
    enforce("baseline");
    let refused = admitted(named("coral-agent")).failed(1, &["violates PodSecurity"]);
    assert!(
        refused
            .stderr
            .trim()
            .ends_with("\"baseline:latest\": hostPath volumes (volume \"run\")"),
        "{}",
        refused.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_of_policies_are_of_the_right_types() {
    let cluster = Cluster::shared().await.unwrap();
    let arguments = [
        "get",
        "validatingadmissionpolicies",
        "--selector=app.kubernetes.io/part-of=coral",
        "--output=json",
    ];
    eventually("the types in every policy to be looked at", PATIENCE, async || {
        let found: Value = serde_json::from_str(&kubectl(&cluster, &arguments, "").succeeded().stdout).unwrap();
        let policies = found["items"].as_array().unwrap().clone();
        assert!(policies.len() >= 2, "{policies:?}");
        for policy in &policies {
            if policy["status"]["observedGeneration"] != policy["metadata"]["generation"] {
                return Ok(Look::NotYet(policy["status"].clone()));
            }
            assert_eq!(
                policy["status"]["typeChecking"],
                json!({}),
                "{}",
                policy["metadata"]["name"]
            );
        }
        Ok(Look::Done(()))
    })
    .await
    .unwrap();
}
