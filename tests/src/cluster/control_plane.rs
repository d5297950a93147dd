//! etcd and the Kubernetes control plane.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use k8s_openapi::api::{core::v1::Namespace, rbac::v1::ClusterRoleBinding};
use kube::{Api, Client};

use super::{
    certificates::{Authority, Subject},
    kubeconfig::{self, Credential},
    network::{KUBERNETES_SERVICE, POD_CIDR, SERVICE_CIDR},
    probe,
    site::{Part, Site},
};
use crate::wait::Look;

/// Where etcd takes requests.
pub(super) const ETCD_PORT: u16 = 2379;

const TIMEOUT: Duration = Duration::from_mins(1);

/// Makes the certificates and kubeconfigs of the control plane, where they are not there yet.
pub(super) fn write_credentials(site: &Site) -> Result<()> {
    let authority = Authority::open(&site.layout)?;
    let address = site.addresses.cluster().to_string();
    let service = KUBERNETES_SERVICE.to_string();
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let hosts = names.into_iter().chain(["localhost", "127.0.0.1", &address, &service]);
    authority.sign_to_files("kube-apiserver", &Subject::server("kube-apiserver", hosts))?;
    let kubelet_client = Subject::user("kube-apiserver-kubelet-client", Some("system:masters"));
    authority.sign_to_files("kube-apiserver-kubelet-client", &kubelet_client)?;
    authority.make_key_pair("service-accounts")?;
    authority.sign_to_files("registry", &Subject::server("registry", [&address]))?;
    write_kubeconfig(
        site,
        &authority,
        "",
        &Subject::user("coral-admin", Some("system:masters")),
    )?;
    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        write_kubeconfig(site, &authority, name, &Subject::user(&format!("system:{name}"), None))?;
    }
    Ok(())
}

/// An empty name is that of the administrator.
fn write_kubeconfig(site: &Site, authority: &Authority, name: &str, subject: &Subject) -> Result<()> {
    let path = if name.is_empty() {
        site.layout.kubeconfig()
    } else {
        authority.path(&format!("{name}.kubeconfig"))
    };
    if path.exists() {
        return Ok(());
    }
    let signed = authority.sign(subject)?;
    let credential = Credential::Certificate(&signed);
    kubeconfig::write(
        &path,
        &site.addresses.api_server(),
        authority.certificate(),
        &credential,
    )
}

fn etcd(site: &Site) -> Part {
    let data = site.layout.dir.join("etcd");
    Part::new("etcd", site.tools.control_plane("etcd"))
        .path_arg("data-dir", &data)
        .args([
            // What a crash of the machine would lose is a test cluster.
            "--unsafe-no-fsync".to_owned(),
            // On the second one tests ask for what the API server would never do.
            format!(
                "--listen-client-urls=http://127.0.0.1:{ETCD_PORT},http://{}:{ETCD_PORT}",
                site.addresses.cluster()
            ),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
            format!("--listen-metrics-urls=http://{}:2381", site.addresses.cluster()),
        ])
}

fn api_server(site: &Site) -> Part {
    let certificates = site.layout.certificates();
    let file = |name: &str| certificates.join(name);
    Part::new("kube-apiserver", site.tools.control_plane("kube-apiserver"))
        .args([
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--bind-address=0.0.0.0".to_owned(),
            "--secure-port=6443".to_owned(),
            format!("--advertise-address={}", site.addresses.cluster()),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Webhooks are called at the address of their pod: that works without a Service route from here.
            "--enable-aggregator-routing=true".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        ])
        .path_arg("tls-cert-file", &file("kube-apiserver.crt"))
        .path_arg("tls-private-key-file", &file("kube-apiserver.key"))
        .path_arg("client-ca-file", &file("ca.crt"))
        .path_arg("kubelet-certificate-authority", &file("ca.crt"))
        .path_arg("kubelet-client-certificate", &file("kube-apiserver-kubelet-client.crt"))
        .path_arg("kubelet-client-key", &file("kube-apiserver-kubelet-client.key"))
        .path_arg("service-account-signing-key-file", &file("service-accounts.key"))
        .path_arg("service-account-key-file", &file("service-accounts.pub"))
}

fn controller_manager(site: &Site) -> Part {
    let certificates = site.layout.certificates();
    let name = "kube-controller-manager";
    Part::new(name, site.tools.control_plane(name))
        .path_arg("kubeconfig", &certificates.join(format!("{name}.kubeconfig")))
        .path_arg("root-ca-file", &certificates.join("ca.crt"))
        .path_arg(
            "service-account-private-key-file",
            &certificates.join("service-accounts.key"),
        )
        .path_arg("cluster-signing-cert-file", &certificates.join("ca.crt"))
        .path_arg("cluster-signing-key-file", &certificates.join("ca.key"))
        // It makes this folder, by default in a place that is not ours.
        .path_arg("flex-volume-plugin-dir", &site.layout.dir.join("volume-plugins"))
        .args([
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
        ])
}

fn scheduler(site: &Site) -> Part {
    let name = "kube-scheduler";
    Part::new(name, site.tools.control_plane(name))
        .path_arg(
            "kubeconfig",
            &site.layout.certificates().join(format!("{name}.kubeconfig")),
        )
        .args(["--leader-elect=false", "--secure-port=0"])
}

/// One for all nodes, because all of them share one network namespace. `node` is whose point of view it takes.
fn proxy(site: &Site, node: &str) -> Part {
    let name = "kube-proxy";
    Part::new(name, site.tools.control_plane(name))
        .path_arg(
            "kubeconfig",
            &site.layout.certificates().join(format!("{name}.kubeconfig")),
        )
        .args([
            "--proxy-mode=nftables".to_owned(),
            format!("--cluster-cidr={POD_CIDR}"),
            format!("--hostname-override={node}"),
            format!("--bind-address={}", site.addresses.cluster()),
            // These are limits of the whole machine.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-min=0".to_owned(),
            "--conntrack-tcp-timeout-established=0s".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        ])
}

/// Starts etcd and the API server and waits until they serve; says whether something had to be started.
pub(super) async fn ensure_api_server(site: &Site) -> Result<bool> {
    let started = Instant::now();
    let etcd_started = site.ensure(&etcd(site))?;
    if etcd_started {
        let address = site.addresses.cluster();
        site.ready("etcd", &["etcd"], TIMEOUT, async || {
            probe::http_ok(address, 2381, "/health").await
        })
        .await?;
        site.step("etcd", started);
    }
    let started = Instant::now();
    let api_server_started = site.ensure(&api_server(site))?;
    if etcd_started || api_server_started {
        let client = client(site).await?;
        let parts = ["etcd", "kube-apiserver"];
        site.ready("the API server", &parts, TIMEOUT, async || {
            look_at_api_server(&client).await
        })
        .await?;
        site.step("kube-apiserver", started);
    }
    Ok(etcd_started || api_server_started)
}

/// The API server serves before it has made its own objects.
async fn look_at_api_server(client: &Client) -> Result<Look<(), String>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    for namespace in ["default", "kube-system", "kube-node-lease"] {
        if namespaces.get_opt(namespace).await?.is_none() {
            return Ok(Look::NotYet(format!("no namespace {namespace}")));
        }
    }
    if bindings.get_opt("system:node-proxier").await?.is_none() {
        return Ok(Look::NotYet("no default roles".to_owned()));
    }
    Ok(Look::Done(()))
}

/// Starts the rest of the control plane; says whether something had to be started.
pub(super) fn ensure_controllers(site: &Site) -> Result<bool> {
    let mut any = site.ensure(&controller_manager(site))?;
    any |= site.ensure(&scheduler(site))?;
    Ok(any)
}

/// Starts kube-proxy; says whether it had to.
pub(super) fn ensure_proxy(site: &Site, node: &str) -> Result<bool> {
    site.ensure(&proxy(site, node))
}

/// A client with an administrator's rights.
pub(super) async fn client(site: &Site) -> Result<Client> {
    client_from(&site.layout.kubeconfig()).await
}

/// A client as a kubeconfig says.
pub(super) async fn client_from(path: &std::path::Path) -> Result<Client> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let kubeconfig =
        kube::config::Kubeconfig::from_yaml(&text).with_context(|| format!("understand {}", path.display()))?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("use {}", path.display()))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).context("make a Kubernetes client")
}
