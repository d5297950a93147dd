//! `cargo xtask image`: one image from scratch with Coral's static binaries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use coral_tests::cluster::tools::Tools;

use crate::{
    cluster::{Lines, target_dir},
    command::{cargo, output},
};

/// Build the image of the in-cluster parts and push it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to push the image, e.g. registry.example/coral:dev.
    reference: String,

    /// Talk to the registry over plain HTTP, or without looking at its certificate.
    #[arg(long)]
    insecure: bool,
}

/// How the registry is talked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// Over TLS, with a certificate that is valid.
    Verified,
    /// In whatever way it answers: a registry on this machine, for tests.
    Insecure,
}

impl Transport {
    /// What crane is told.
    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Verified => &[],
            Self::Insecure => &["--insecure"],
        }
    }
}

/// Packages whose binaries run in the cluster.
pub(crate) const PACKAGES: &[&str] = &["coral-agent", "coral-controller", "coral-webhook"];

pub(crate) async fn run(root: &Path, args: &Args) -> anyhow::Result<()> {
    let tools = Tools::build(&Lines).await?;
    let transport = if args.insecure {
        Transport::Insecure
    } else {
        Transport::Verified
    };
    println!(
        "{}",
        push(root, &tools.node("crane"), &args.reference, transport).await?
    );
    Ok(())
}

/// Builds the static binaries of these packages for the machine's own target and returns the folder that holds them.
pub(crate) async fn build(root: &Path, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let target = host_target()?;
    let mut arguments = vec!["build", "--release", "--locked", "--target", &target];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    // The image has nothing but the binaries: no libc to load.
    cargo(root, &arguments, &[("RUSTFLAGS", "-C target-feature=+crt-static")]).await?;
    Ok(target_dir().join(&target).join("release"))
}

/// Builds the image and pushes it as `reference`. Returns the reference by digest.
pub(crate) async fn push(root: &Path, crane: &Path, reference: &str, transport: Transport) -> anyhow::Result<String> {
    let binaries = build(root, PACKAGES).await?;
    let work = target_dir().join("image");
    fs::create_dir_all(&work).with_context(|| format!("failed to make {}", work.display()))?;
    let layer = work.join("layer.tar");
    let mut tar = Command::new("tar");
    // The same binaries give the same layer.
    tar.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=0755",
    ])
    .arg("--file")
    .arg(&layer)
    .arg("--directory")
    .arg(&binaries)
    .args(PACKAGES);
    output(&mut tar)?;
    let mut append = Command::new(crane);
    append
        .arg("append")
        .args(transport.flags())
        .args(["--new_tag", reference, "--new_layer"])
        .arg(&layer);
    output(&mut append)?;
    let mut mutate = Command::new(crane);
    mutate
        .arg("mutate")
        .args(transport.flags())
        .args([reference, "--tag", reference, "--set-platform", platform()?]);
    let pushed = output(&mut mutate)?;
    pushed
        .lines()
        .last()
        .map(|line| line.trim().to_owned())
        .filter(|line| line.contains("@sha256:"))
        .with_context(|| format!("crane did not say which digest {reference} has: {pushed:?}"))
}

/// The target triple that the compiler builds for by default.
pub(crate) fn host_target() -> anyhow::Result<String> {
    let text = output(Command::new("rustc").arg("-vV"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc -vV names no host")
}

/// The platform of the image, in the words of the OCI image specification.
fn platform() -> anyhow::Result<&'static str> {
    Ok(match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => bail!("no image can be built on {other}: the platforms are x86_64 and aarch64"),
    })
}
