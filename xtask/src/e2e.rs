//! The end-to-end tests: a cluster of their own, with Coral in it as this checkout has it.

mod beside;

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::ensure;
use coral_tests::{
    Cluster, ClusterOptions,
    cluster::{DIRECTORY_VARIABLE, tools::Checks},
    progress::step_line,
};

use self::beside::Beside;
use crate::{
    bench,
    cluster::{Lines, target_dir},
    command::{E2E, cargo},
    deploy, image,
};

/// Test targets for the cluster before Coral is installed.
const BARE: &[&str] = &["e2e_bare"];
/// Test targets that share the cluster.
const SHARED: &[&str] = &[
    "e2e_api",
    "e2e_credentials",
    "e2e_errors",
    "e2e_gate",
    "e2e_manifests",
    "e2e_mirror",
    "e2e_plugin",
    "e2e_plugin_complete",
    "e2e_plugin_doctor",
    "e2e_plugin_install",
    "e2e_plugin_verbs",
    "e2e_policies",
    "e2e_prefetch",
    "e2e_registry",
    "e2e_runtime",
    "e2e_upgrade",
    "e2e_webhook",
];
/// Test targets that start clusters of their own.
const OWN: &[&str] = &[
    "cluster_lifecycle",
    "e2e_agent",
    "e2e_controller",
    "e2e_controller_lease",
];

/// Test targets that mostly wait, in clusters of their own: they run beside all others.
const BESIDE: &[&str] = &["e2e_containerd", "e2e_mirror_controller", "e2e_patience"];

/// Starts a cluster, runs all tests and takes the cluster down, whatever came of them. When this is dropped the cluster goes, too.
pub(crate) async fn run(root: &Path) -> anyhow::Result<()> {
    let programs = [
        "build",
        "--locked",
        "--package",
        "kubectl-coral",
        "--package",
        "coral-agent",
    ];
    cargo(root, &programs, &[]).await?;
    // Tests would build them where nobody sees what takes minutes.
    Checks::build(&Lines).await?;
    // It ends when anything else fails.
    let beside = Beside::start(root, BESIDE).await?;
    let options = ClusterOptions {
        dir: target_dir().join("e2e"),
        progress: Arc::new(Lines),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await?;
    let result = on_cluster(root, &cluster).await;
    let began = Instant::now();
    cluster.down().await?;
    println!("{}", step_line("down", began.elapsed()));
    // Whoever reads the result wants all of it: nothing that can still run is left out because something else failed.
    let results = [
        ("on the shared cluster", result),
        ("on clusters of their own", tests(root, OWN, &[]).await),
        ("beside the others", beside.join().await),
    ];
    let failures: Vec<String> = results
        .into_iter()
        .filter_map(|(what, result)| result.err().map(|error| format!("{what}: {error:#}")))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

async fn on_cluster(root: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let dir = cluster.dir().to_string_lossy().into_owned();
    let environment = [(DIRECTORY_VARIABLE, dir.as_str())];
    tests(root, BARE, &environment).await?;
    deploy::deploy(root, cluster).await?;
    // They are built for the image already; what has grown is to be known before it is shipped.
    let sizes = bench::check_sizes(root, &image::build(root, image::PACKAGES).await?);
    tests(root, SHARED, &environment).await?;
    sizes
}

async fn tests(root: &Path, targets: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut arguments = [E2E, &["--no-fail-fast"]].concat();
    for target in targets {
        arguments.extend(["--test", target]);
    }
    cargo(root, &arguments, environment).await
}
