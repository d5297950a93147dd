//! `cargo xtask demo`: the main job, told on a real cluster.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::{
    Cluster, ClusterOptions, NodeOptions,
    images::{self, PublishedImage, Software},
    progress::step_line,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::{Lines, or_signal, target_dir},
    command::cargo,
    deploy,
};

/// How long one step of the story may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// Watch Coral do its job on a real Kubernetes on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the cluster running, and say how to use it.
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args { keep } = args;
    or_signal(Box::pin(show(root, keep))).await
}

async fn show(root: &Path, keep: bool) -> Result<()> {
    say("Building kubectl-coral.");
    cargo(root, &["build", "--locked", "--package", "kubectl-coral"], &[]).await?;

    say("Starting a Kubernetes with two nodes: etcd, API server, kubelets, containerds, a registry.");
    let dir = target_dir().join("demo");
    let cluster = Cluster::start(ClusterOptions {
        dir: dir.clone(),
        keep,
        progress: Arc::new(Lines),
        ..ClusterOptions::default()
    })
    .await?;
    let story = tell(root, &cluster).await;
    if story.is_err() {
        let logs = cluster.diagnose()?;
        println!("What was to be seen of the cluster is in {}", logs.display());
    }
    if keep {
        let flag = format!("--dir {}", dir.display());
        println!("\nThe cluster stays. To use it:   eval \"$(cargo xtask cluster {flag} env)\"");
        println!("To end it:                      cargo xtask cluster {flag} down");
        return story;
    }
    say("Taking everything down.");
    let began = Instant::now();
    cluster.down().await?;
    println!("{}", step_line("down", began.elapsed()));
    story
}

async fn tell(root: &Path, cluster: &Cluster) -> Result<()> {
    say("Pushing images of software that is on this machine to the registry.");
    let began = Instant::now();
    let software = Software::ALL;
    let published = images::publish(&cluster.open_registry(), &software, &Lines)?;
    for image in &published {
        let (packed, unpacked) = (megabytes(image.size_bytes), megabytes(image.unpacked_bytes));
        println!("{:<32} {packed} MB, {unpacked} MB on disk", image.reference);
    }
    println!("{}", step_line("pushed", began.elapsed()));
    let big = &published[0];

    say("Installing Coral: a DaemonSet of agents and a controller.");
    deploy::deploy(root, cluster).await?;

    say(&format!(
        "Cold: a pod on node-1 that needs {}, which no node has.",
        big.reference
    ));
    let cold = start_pod(cluster, "cold", "node-1", big).await?;
    println!("{}", step_line("the pod ran after", cold));

    say("Prefetching all images to both nodes.");
    let references: Vec<&str> = published.iter().map(|image| image.reference.as_str()).collect();
    let mut arguments = vec!["prefetch", "--name", "demo", "--wait"];
    arguments.extend(&references);
    coral(cluster, &arguments)?;
    coral(cluster, &["status", "demo"])?;

    say("Warm: the same pod on node-2, which never ran it. Its image is there.");
    let warm = start_pod(cluster, "warm", "node-2", big).await?;
    println!("{}", step_line("the pod ran after", warm));
    println!("cold / warm = {:.1}", cold.as_secs_f64() / warm.as_secs_f64());

    say("A new node joins.");
    let began = Instant::now();
    let node = cluster.add_node(NodeOptions::default()).await?;
    println!("{}", step_line(&format!("{} is Ready", node.name()), began.elapsed()));
    let began = Instant::now();
    eventually(&format!("every image on {}", node.name()), PATIENCE, async || {
        let held = node.images()?;
        let missing: Vec<&str> = references
            .iter()
            .copied()
            .filter(|image| !held.iter().any(|held| held == image))
            .collect();
        Ok(if missing.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(missing.join(", "))
        })
    })
    .await?;
    println!("{}", step_line("it has every image by itself", began.elapsed()));
    coral(cluster, &["status", "demo"])
}

/// Starts a pod on a node and returns how long it took to run.
async fn start_pod(cluster: &Cluster, name: &str, node: &str, image: &PublishedImage) -> Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "app", "image": image.reference, "imagePullPolicy": "IfNotPresent"}],
            "terminationGracePeriodSeconds": 0,
        },
    }))?;
    let began = Instant::now();
    pods.create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("failed to create pod {name}"))?;
    eventually(&format!("pod {name} to run on {node}"), PATIENCE, async || {
        let status = pods.get(name).await?.status.unwrap_or_default();
        Ok(if status.phase.as_deref() == Some("Running") {
            Look::Done(())
        } else {
            Look::NotYet(status.phase)
        })
    })
    .await?;
    let took = began.elapsed();
    pods.delete(name, &DeleteParams::default()).await?;
    Ok(took)
}

/// Runs `kubectl coral …` as a person would, on this terminal.
fn coral(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    println!("$ kubectl coral {}", arguments.join(" "));
    let plugin = target_dir().join("debug");
    let folders: Vec<PathBuf> = [plugin]
        .into_iter()
        .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))
        .collect();
    let status = Command::new(cluster.tools().control_plane("kubectl"))
        .arg("coral")
        .args(arguments)
        .env("PATH", std::env::join_paths(folders)?)
        .env("KUBECONFIG", cluster.kubeconfig())
        .status()
        .context("failed to run kubectl")?;
    ensure!(
        status.success(),
        "kubectl coral {} ended with {status}",
        arguments.join(" ")
    );
    Ok(())
}

fn say(line: &str) {
    println!("\n==> {line}");
}

const fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
