//! `cargo xtask deploy`: Coral, as it is in this checkout, in a running cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::Context as _;
use coral_tests::{Cluster, progress::step_line};

use crate::{cluster::default_dir, command::output, image};

/// Namespace of the in-cluster parts.
const NAMESPACE: &str = "coral-system";

/// A patch of the agent. The disk of a developer's machine may be fuller than that of a node should be; the cluster's kubelets
/// evict at 1 %, too.
const SMALL_RESERVE: &str = r#"[{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "CORAL_IMAGE_FILESYSTEM_RESERVE", "value": "1%"}}]"#;

/// Install Coral, as it is in this checkout, in a running cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the cluster.
    #[arg(long, default_value_os_t = default_dir())]
    dir: PathBuf,
}

pub(crate) async fn run(root: &Path, args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::attach(&args.dir).await?;
    deploy(root, &cluster).await
}

/// Builds the image, pushes it to the cluster's open registry, applies the manifests and waits until everything runs.
pub(crate) async fn deploy(root: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    let repository = format!("{}/coral", cluster.registry());
    let crane = cluster.tools().node("crane");
    let pushed = image::push(root, &crane, &format!("{repository}:dev"), image::Transport::Insecure).await?;
    println!("{}", step_line("image", began.elapsed()));

    let began = Instant::now();
    let digest = pushed
        .split_once('@')
        .map(|(_, digest)| digest)
        .context("the image has no digest")?;
    let overlay = root.join("target/deploy");
    fs::create_dir_all(&overlay).with_context(|| format!("failed to make {}", overlay.display()))?;
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../deploy]\n\
         images: [{{name: coral, newName: \"{repository}\", digest: \"{digest}\"}}]\n\
         patches: [{{target: {{kind: DaemonSet, name: coral-agent}}, patch: '{SMALL_RESERVE}'}}]\n"
    );
    let path = overlay.join("kustomization.yaml");
    fs::write(&path, kustomization).with_context(|| format!("failed to write {}", path.display()))?;
    let overlay = overlay.to_string_lossy().into_owned();
    kubectl(
        cluster,
        &["apply", "--server-side", "--force-conflicts", "--kustomize", &overlay],
    )?;
    kubectl(
        cluster,
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd/prefetches.image.stvz.io",
            "crd/nodeimages.image.stvz.io",
        ],
    )?;
    for part in [
        "daemonset/coral-agent",
        "deployment/coral-controller",
        "deployment/coral-webhook",
    ] {
        kubectl(
            cluster,
            &["--namespace", NAMESPACE, "rollout", "status", part, "--timeout=120s"],
        )?;
    }
    println!("{}", step_line("Coral runs", began.elapsed()));
    Ok(())
}

/// Runs kubectl as an administrator of the cluster.
fn kubectl(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<()> {
    let mut kubectl = Command::new(cluster.tools().control_plane("kubectl"));
    kubectl.arg("--kubeconfig").arg(cluster.kubeconfig()).args(arguments);
    output(&mut kubectl).with_context(|| format!("the logs are in {}", cluster.logs().display()))?;
    Ok(())
}
