//! The Helm chart, rendered by Helm: the same objects as `kubectl coral install` applies, and kustomize makes.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use coral_tests::{cluster::tools::Checks, progress::Silent};
use serde_json::{Map, Value};

use super::{
    is_of_others, kustomize, repository, strictly,
    support::{
        Scene,
        coral::{self, Ran},
    },
};

/// Helm, with everything of its own in a folder that goes.
struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    async fn new() -> Self {
        Self {
            program: Checks::build(&Silent).await.unwrap().helm(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut helm = Command::new(&self.program);
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            helm.env(variable, self.home.path().join(folder));
        }
        helm.env("KUBECONFIG", "/dev/null")
            .args(arguments)
            .output()
            .unwrap()
            .into()
    }

    /// What it says to the chart with these values.
    fn template(&self, namespace: &str, values: &[&str]) -> Ran {
        let chart = repository("charts/coral");
        let chart = chart.to_string_lossy();
        let mut arguments = vec!["template", "coral", &chart, "--namespace", namespace];
        arguments.extend(["--set", "image.repository=registry.example/coral"]);
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.run(&arguments)
    }

    fn objects(&self, namespace: &str, values: &[&str]) -> Vec<Value> {
        let rendered = self.template(namespace, values).succeeded();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered.stdout).unwrap();
        objects.into_iter().filter(|object| !object.is_null()).collect()
    }
}

/// What the command would apply, but for the namespace, which Helm makes, and the resource types, which are beside the templates.
fn installed(scene: &Scene, arguments: &[&str]) -> Vec<Value> {
    let version = concat!("registry.example/coral:v", env!("CARGO_PKG_VERSION"));
    let mut install = coral::command(&scene.cluster, &["install", "--dry-run=client", "--output=json"]);
    let ran: Ran = install
        .args(["--image", version])
        .args(arguments)
        .output()
        .unwrap()
        .into();
    let list: Value = serde_json::from_str(&ran.succeeded().stdout).unwrap();
    let mut objects = list["items"].as_array().unwrap().clone();
    objects.retain(is_in_templates);
    objects.iter_mut().for_each(drop_nulls);
    objects
}

/// To the API server, null is as good as nothing.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn is_in_templates(object: &Value) -> bool {
    object["kind"] != "Namespace" && object["kind"] != "CustomResourceDefinition"
}

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let count = objects.len();
    let named: BTreeMap<String, Value> = objects.into_iter().map(|object| (name(&object), object)).collect();
    assert_eq!(named.len(), count, "{:?}", named.keys());
    named
}

fn are_the_same(what: &str, ours: Vec<Value>, theirs: Vec<Value>) {
    let (ours, theirs) = (by_name(ours), by_name(theirs));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>(),
        "{what}"
    );
    for (name, object) in ours {
        assert!(
            object == theirs[&name],
            "{what}: {name}\nchart: {object}\nother: {}",
            theirs[&name]
        );
    }
}

/// `install` makes Secrets for it, which a chart that is the same for all cannot have.
const NOT_IN_THE_CHART: &[&str] = &["registry"];

/// Optional parts: as `deploy/` calls them, and as the chart does; in the order in which the chart has them.
fn components() -> Vec<(String, String)> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository("deploy/components")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if NOT_IN_THE_CHART.contains(&name.as_str()) {
            continue;
        }
        let mut words = name.split('-');
        let first = words.next().unwrap().to_owned();
        let key = words.fold(first, |key, word| key + &word[..1].to_uppercase() + &word[1..]);
        names.push((name, key));
    }
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_gives_what_install_and_kustomize_give() {
    let (scene, helm) = (Scene::new("chart").await, Helm::new().await);
    let base = helm.objects("coral-system", &[]);
    are_the_same("base", base.clone(), installed(&scene, &[]));

    let unlabelled = |mut objects: Vec<Value>| {
        objects.retain(is_in_templates);
        for object in &mut objects {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let metadata = object["metadata"].as_object_mut().unwrap();
            // It does not know of admission policies that they are in no namespace.
            if kind.starts_with("ValidatingAdmissionPolicy") {
                metadata.remove("namespace");
            }
            // `install` and the chart say the version, and kustomize leaves that to those who write overlays.
            if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
                labels.remove("app.kubernetes.io/version");
            }
            if let Some(image) = object.pointer_mut("/spec/template/spec/containers/0/image") {
                *image = "coral".into();
            }
        }
        objects
    };
    let kustomized = kustomize(&scene.cluster, &repository("deploy"));
    are_the_same("kustomize", unlabelled(base.clone()), unlabelled(kustomized));

    let (mut arguments, mut values) = (Vec::new(), Vec::new());
    for (name, key) in components() {
        let value = format!("components.{key}=true");
        let with = helm.objects("coral-system", &[&value]);
        assert!(with != base, "{name}");
        are_the_same(&name, with, installed(&scene, &["--component", &name]));
        arguments.extend(["--component".to_owned(), name]);
        values.push(value);
    }
    let all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let everything = helm.objects("images", &values);
    are_the_same(
        "everything",
        everything.clone(),
        installed(&scene, &[&all[..], &["--namespace", "images"]].concat()),
    );
    assert!(!serde_json::to_string(&everything).unwrap().contains("coral-system"));

    let settings = helm.objects(
        "coral-system",
        &[
            "agent.nodeSelector.pool=gpu",
            "agent.resources.limits.memory=96Mi",
            "agent.runtimeEndpoint=unix:///opt/k3s/containerd.sock",
            "controller.resources.limits.memory=1Gi",
            "controller.tolerations[0].key=dedicated,controller.tolerations[0].operator=Exists",
            "webhook.tolerations[0].key=dedicated,webhook.tolerations[0].operator=Exists",
            "imagePullSecrets[0].name=regcred",
        ],
    );
    let arguments = [
        "--set-node-selector=pool=gpu",
        "--set-agent-memory=96Mi",
        "--set-runtime-endpoint=unix:///opt/k3s/containerd.sock",
        "--set-controller-memory=1Gi",
        "--set-toleration=dedicated",
        "--set-image-pull-secret=regcred",
    ];
    are_the_same("settings", settings, installed(&scene, &arguments));

    // Helm takes the resource types from files that are copies.
    for entry in fs::read_dir(repository("deploy/crds")).unwrap() {
        let name = entry.unwrap().file_name();
        if name != "kustomization.yaml" {
            let read = |folder: &str| fs::read_to_string(repository(folder).join(&name)).unwrap();
            assert!(read("deploy/crds") == read("charts/coral/crds"), "{name:?}");
        }
    }
    let lint = ["lint", "--strict", "--set", "image.repository=registry.example/coral"];
    let chart = repository("charts/coral");
    helm.run(&[&lint[..], &[&*chart.to_string_lossy()]].concat())
        .succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_values_make_of_the_chart() {
    let (scene, helm) = (Scene::new("values").await, Helm::new().await);
    let namespace = scene.namespace.name();
    let digest = format!("image.digest=sha256:{}", "a".repeat(64));
    let mut objects = helm.objects(
        namespace,
        &[
            &digest,
            "image.registry=ghcr.io",
            "image.repository=acme/coral",
            "log.filter=info\\,coral_agent=debug",
            "log.format=json",
            "agent.extraArgs={--max-parallel-pulls=2}",
            "agent.podAnnotations.example\\.org/team=a",
            "controller.extraEnv[0].name=CORAL_GATE_TIMEOUT,controller.extraEnv[0].value=1m",
            "controller.replicas=3",
            "webhook.podAnnotations.example\\.org/team=b",
            "webhook.priorityClassName=system-node-critical",
            "webhook.resources.requests.cpu=1",
            "components.registryAllowlist=true",
            "registryAllowlist.registries={ghcr.io/acme,docker.io/library}",
        ],
    );
    objects.retain(|object| !is_of_others(object));
    strictly(&scene.cluster, Some(namespace), &objects).succeeded();
    let objects = by_name(objects);
    let pod = |name: &str| objects[name]["spec"]["template"].clone();
    let agent = &pod("\"DaemonSet\" \"coral-agent\"");
    let container = &agent["spec"]["containers"][0];
    assert_eq!(
        container["image"],
        format!("ghcr.io/acme/coral@sha256:{}", "a".repeat(64))
    );
    assert_eq!(container["args"][0], "--max-parallel-pulls=2");
    assert_eq!(agent["metadata"]["annotations"]["example.org/team"], "a");
    let variables = |pod: &Value| -> Map<String, Value> {
        let variables = pod["spec"]["containers"][0]["env"].as_array().unwrap().iter();
        let named = |variable: &Value| Some((variable["name"].as_str()?.to_owned(), variable["value"].clone()));
        variables.filter_map(named).collect()
    };
    assert_eq!(variables(agent)["CORAL_LOG"], "info,coral_agent=debug");
    assert_eq!(variables(agent)["CORAL_LOG_FORMAT"], "json");
    let controller = "\"Deployment\" \"coral-controller\"";
    assert_eq!(variables(&pod(controller))["CORAL_GATE_TIMEOUT"], "1m");
    assert_eq!(objects[controller]["spec"]["replicas"], 3);
    let webhook = &pod("\"Deployment\" \"coral-webhook\"")["spec"];
    assert_eq!(webhook["priorityClassName"], "system-node-critical");
    assert_eq!(webhook["containers"][0]["resources"]["requests"]["memory"], "16Mi");
    let policy = &objects["\"ValidatingAdmissionPolicy\" \"coral-registry-allowlist\""];
    let listed = &policy["spec"]["variables"][0]["expression"];
    assert_eq!(listed, r#"["ghcr.io/acme","docker.io/library"]"#);
}

#[tokio::test]
async fn values_that_mean_nothing_are_refused() {
    let helm = Helm::new().await;
    for (value, said) in [
        ("agent.resorces.limits.memory=1Gi", "resorces"),
        ("agent.resources.limits.memory=64MB", "/agent/resources/limits/memory"),
        ("agent.runtimeEndpoint=/run/x.sock", "/agent/runtimeEndpoint"),
        ("controller.replicas=two", "/controller/replicas"),
        ("components.certmanager=true", "certmanager"),
        (
            "webhook.extraEnv[0].name=A,webhook.extraEnv[0].value=20",
            "/webhook/extraEnv/0/value",
        ),
        ("image.digest=latest", "/image/digest"),
        ("log.format=xml", "/log/format"),
        (
            "registryAllowlist.registries={https://ghcr.io'}",
            "/registryAllowlist/registries/0",
        ),
        (
            "image.repository=",
            "image.repository must say where the image of Coral is",
        ),
    ] {
        let ran = helm.template("coral-system", &[value]);
        assert_ne!(ran.code, Some(0), "{value}");
        let words = ran.stderr.replace('\'', "");
        assert!(words.contains(said), "{value}: {}", ran.stderr);
    }
}
