//! A cluster with Coral and its registry, and ways into both.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coral_tests::{
    Cluster, ClusterOptions,
    images::Registry,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    PATIENCE,
    coral::{Ran, command, fed},
};

pub(crate) const NAMESPACE: &str = "coral-system";
/// Where the node has what the registry keeps. Clusters for tests make no volumes by themselves.
const DATA: &str = "/var/lib/coral-registry";
const REGISTRY_IMAGE: &str = "registry:dev";

/// A cluster with a registry in it.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    folder: TempDir,
}

/// A way to the registry from this machine, for as long as it lives.
pub(crate) struct Door {
    pub(crate) registry: Registry,
    process: Child,
    /// Were nobody to listen, it would end with the next thing that it says.
    _said: BufReader<ChildStdout>,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        let shared = Cluster::shared().await.unwrap();
        let folder = TempDir::with_prefix_in("registry-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let cluster = Cluster::start(options(folder.path().join("cluster"))).await.unwrap();
        let image = format!("{}/coral:dev", cluster.registry());
        crane(&cluster, &["copy", &format!("{}/coral:dev", shared.registry()), &image]);
        registry_image(&cluster, folder.path());
        let site = Self { cluster, folder };
        site.make_volume();
        site
    }

    /// Installs Coral with its registry and the mirror controller.
    pub(crate) async fn install(&self) {
        let registry = self.cluster.registry();
        let (image, registry) = (format!("{registry}/coral:dev"), format!("{registry}/{REGISTRY_IMAGE}"));
        let arguments = ["install", "--with-registry", "--component", "mirror", "--image", &image];
        let settings = ["--set-registry-image", &registry, "--set-registry-storage", "500Mi"];
        let arguments = [&arguments[..], &settings[..]].concat();
        let installed = self.coral(&arguments).succeeded();
        for part in [
            "coral-registry with 1 replica",
            "coral-relay on 1 node",
            "coral-mirror with 2 replicas",
        ] {
            assert!(
                installed.stderr.contains(part),
                "{part} is missing in: {}",
                installed.stderr
            );
        }
        let again = self.coral(&arguments).succeeded();
        assert!(
            again.stdout.lines().all(|line| line.ends_with(" unchanged")),
            "{}",
            again.stdout
        );
        self.name_registry().await;
    }

    /// Tells the mirror controller the address of the registry: these clusters have no name server.
    async fn name_registry(&self) {
        let services: Api<Service> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let address = services.get("coral-registry").await.unwrap().spec.unwrap().cluster_ip;
        let names = json!([{"ip": address, "hostnames": ["coral-registry.coral-system.svc"]}]);
        let patch = json!({"spec": {"template": {"spec": {"hostAliases": names}}}}).to_string();
        let system = ["--namespace", NAMESPACE];
        self.kubectl(&[&system, &["patch", "deployment/coral-mirror", "--patch", &patch][..]].concat())
            .succeeded();
        let wait = ["rollout", "status", "deployment/coral-mirror", "--timeout=90s"];
        self.kubectl(&[&system, &wait[..]].concat()).succeeded();
    }

    /// Brings back what was killed.
    pub(crate) async fn heal(&self) {
        let options = ClusterOptions {
            keep: true,
            ..options(self.cluster.dir().to_owned())
        };
        Cluster::start(options).await.unwrap();
    }

    fn make_volume(&self) {
        let data = self.data();
        fs::create_dir_all(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "registry"},
            "spec": {
                "capacity": {"storage": "500Mi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": DATA},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]},
                ]}]}},
            },
        }));
    }

    /// The folder of the registry's data, as this process reaches it.
    pub(crate) fn data(&self) -> PathBuf {
        self.cluster.node("node-1").unwrap().path(DATA).unwrap()
    }

    pub(crate) fn coral(&self, arguments: &[&str]) -> Ran {
        command(&self.cluster, arguments).output().unwrap().into()
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Ran {
        self.kubectl_command().args(arguments).output().unwrap().into()
    }

    fn kubectl_command(&self) -> Command {
        let mut kubectl = Command::new(self.cluster.tools().control_plane("kubectl"));
        kubectl.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        kubectl
    }

    pub(crate) fn apply(&self, object: &Value) {
        let mut kubectl = self.kubectl_command();
        fed(
            kubectl.args(["apply", "--server-side", "--filename=-"]),
            &object.to_string(),
        )
        .succeeded();
    }

    /// A way to push to the registry.
    pub(crate) async fn door(&self) -> Door {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let data = async |name: &str, key: &str| secrets.get(name).await.unwrap().data.unwrap()[key].0.clone();
        let authority = self.folder.path().join("ca.crt");
        fs::write(&authority, data("coral-registry-ca", "ca.crt").await).unwrap();
        let config = data("coral-registry-push", ".dockerconfigjson").await;
        let config: Value = serde_json::from_slice(&config).unwrap();
        let login = &config["auths"]["coral-registry.coral-system.svc:5000"]["auth"];
        let login = String::from_utf8(STANDARD.decode(login.as_str().unwrap()).unwrap()).unwrap();
        let login = login.split_once(':').unwrap();

        let mut forward = self.kubectl_command();
        forward.args([
            "--namespace",
            NAMESPACE,
            "port-forward",
            "service/coral-registry",
            ":5000",
        ]);
        let mut process = forward.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        // Forwarding from 127.0.0.1:40123 -> 5000
        let port = line
            .split(" -> ")
            .next()
            .and_then(|from| from.rsplit(':').next())
            .unwrap();
        let host = format!("localhost:{port}");
        let crane = self.cluster.tools().node("crane");
        let folder = self.folder.path().join("docker");
        Door {
            registry: Registry::with_password(host, crane, authority, login, &folder).unwrap(),
            process,
            _said: said,
        }
    }

    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), namespace)
    }

    pub(crate) async fn runs(&self, namespace: &str, pod: &str) {
        eventually(&format!("pod {pod} to run"), PATIENCE, async || {
            let status = self.pods(namespace).get(pod).await?.status.unwrap_or_default();
            Ok(if status.phase.as_deref() == Some("Running") {
                Look::Done(())
            } else {
                Look::NotYet(status.container_statuses)
            })
        })
        .await
        .unwrap();
    }

    /// Waits until a pod is not begun because of its image.
    pub(crate) async fn has_no_image(&self, namespace: &str, pod: &str) {
        eventually("the pod to have no image", PATIENCE, async || {
            let pod = self.pods(namespace).get(pod).await?;
            Ok(if waits_for_its_image(&pod) {
                Look::Done(())
            } else {
                Look::NotYet(pod.status)
            })
        })
        .await
        .unwrap();
    }

    /// Waits until a pod of another UID than this is Ready.
    pub(crate) async fn begun_anew(&self, name: &str, uid: Option<&str>) -> Pod {
        eventually(&format!("a new pod {name} to be Ready"), PATIENCE, async || {
            let pod = self.pods(NAMESPACE).get(name).await?;
            let conditions = pod.status.clone().unwrap_or_default().conditions.unwrap_or_default();
            let is_ready = conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            Ok(if is_ready && pod.uid().as_deref() != uid {
                Look::Done(pod)
            } else {
                Look::NotYet(pod.status)
            })
        })
        .await
        .unwrap()
    }
}

fn crane(cluster: &Cluster, arguments: &[&str]) {
    let mut crane = Command::new(cluster.tools().node("crane"));
    let ran = Ran::from(crane.args(arguments).arg("--insecure").output().unwrap());
    ran.succeeded();
}

fn options(dir: PathBuf) -> ClusterOptions {
    ClusterOptions {
        dir,
        nodes: 1,
        // Coral is installed as it comes, and so keeps 15 % of the disk free. A developer's machine may have less.
        node_disk: Some("1g".to_owned()),
        ..ClusterOptions::default()
    }
}

/// Makes an image as that of the distribution project: the real registry, and the few programs of a shell that its manifest uses.
fn registry_image(cluster: &Cluster, folder: &Path) {
    let root = folder.join("root");
    let mut files: Vec<(PathBuf, PathBuf)> = vec![(cluster.tools().node("registry"), "bin/registry".into())];
    let mut libraries = BTreeSet::new();
    for (path, name) in [("/bin/sh", "sh"), ("/usr/bin/timeout", "timeout"), ("/bin/rm", "rm")] {
        files.push((path.into(), Path::new("bin").join(name)));
        let needs = Command::new("ldd").arg(path).output().unwrap();
        let needs = String::from_utf8(needs.stdout).unwrap();
        let paths = needs.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(PathBuf::from));
    }
    for library in libraries {
        let place = library.strip_prefix("/").unwrap().to_owned();
        files.push((library, place));
    }
    for (from, to) in files {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    let layer = folder.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.arg("--create")
        .arg("--file")
        .arg(&layer)
        .arg("--directory")
        .arg(&root)
        .arg(".");
    Ran::from(tar.output().unwrap()).succeeded();
    let image = format!("{}/{REGISTRY_IMAGE}", cluster.registry());
    let layer = layer.to_str().unwrap();
    crane(cluster, &["append", "--new_tag", &image, "--new_layer", layer]);
    crane(
        cluster,
        &[
            "mutate",
            &image,
            "--tag",
            &image,
            "--set-platform",
            "linux/amd64",
            "--env",
            "PATH=/bin",
        ],
    );
}

fn waits_for_its_image(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting.any(|reason| ["ErrImagePull", "ImagePullBackOff"].contains(&reason))
}
