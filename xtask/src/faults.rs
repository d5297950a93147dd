//! The fault suite: a cluster with Coral, everything around which fails, one thing after another.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use coral_tests::{Cluster, ClusterOptions, cluster::DIRECTORY_VARIABLE};

use crate::{
    cluster::{Lines, target_dir},
    command::{E2E, cargo},
    deploy,
};

/// How to play the faults.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Of the step `faults`: random faults for so long (30m), instead of each of them once.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    soak: Option<Duration>,

    /// Of `--soak`: the seed that an earlier run has printed, for the same faults in the same order.
    #[arg(long, requires = "soak")]
    seed: Option<u64>,

    /// Of the step `faults`: only those whose name contains this.
    #[arg(long, value_name = "WORDS", conflicts_with = "soak")]
    only: Option<String>,
}

/// Starts a cluster, installs Coral, plays the faults and takes the cluster down, whatever came of them.
pub(crate) async fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    // Of one of the nodes it is a process.
    cargo(root, &["build", "--locked", "--package", "coral-agent"], &[]).await?;
    let folder = target_dir().join("faults");
    let cluster = Cluster::start(ClusterOptions {
        dir: folder.join("cluster"),
        progress: Arc::new(Lines),
        ..ClusterOptions::default()
    })
    .await?;
    let result = on_cluster(root, &cluster, &folder, options).await;
    cluster.down().await?;
    result
}

async fn on_cluster(root: &Path, cluster: &Cluster, folder: &Path, options: &Options) -> anyhow::Result<()> {
    deploy::deploy(root, cluster).await?;
    let Options { soak, seed, only } = options;
    let report = folder.join("faults.json");
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("the folder's name is not in UTF-8")
    };
    let mut environment = vec![
        (DIRECTORY_VARIABLE, text(cluster.dir())?),
        ("CORAL_FAULTS_REPORT", text(&report)?),
    ];
    environment.extend(soak.map(|time| ("CORAL_FAULTS_SOAK", time.as_secs().to_string())));
    environment.extend(seed.map(|seed| ("CORAL_FAULTS_SEED", seed.to_string())));
    environment.extend(only.clone().map(|only| ("CORAL_FAULTS_ONLY", only)));
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    cargo(root, &[E2E, &["--test", "e2e_faults"]].concat(), &environment).await
}

/// A time as people write it: `90s`, `30m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let number: u32 = number.parse().map_err(|_| "a time is like 90s, 30m or 2h".to_owned())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("45", 45)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "-3m", "5d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
