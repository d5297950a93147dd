//! `cargo xtask image`: one image from scratch with Coral's static binaries.

use std::{
    env,
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
pub(crate) const PACKAGES: &[&str] = &["coral-agent", "coral-controller", "coral-webhook", "coral-mirror"];

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
    assemble(crane, &binaries, reference, transport, &facts(root))
}

/// What the image says about itself, in the words of the OCI image specification. There is no time in it: the same binaries of the same
/// commit are the same image.
fn facts(root: &Path) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("title", "coral".to_owned()),
        ("description", "Images on nodes before anyone needs them".to_owned()),
        ("version", format!("v{}", env!("CARGO_PKG_VERSION"))),
        ("licenses", "Apache-2.0".to_owned()),
    ];
    // Where a forge builds a release, it says where it has the source.
    if let (Ok(server), Ok(repository)) = (env::var("GITHUB_SERVER_URL"), env::var("GITHUB_REPOSITORY")) {
        facts.push(("source", format!("{server}/{repository}")));
    }
    let mut git = Command::new("git");
    git.current_dir(root).args(["rev-parse", "HEAD"]);
    // Not every source is a checkout.
    if let Ok(revision) = output(&mut git) {
        facts.push(("revision", revision.trim().to_owned()));
    }
    facts
}

/// Makes an image of the binaries in a folder, with these facts as its labels and annotations, and pushes it. Returns the reference by
/// digest.
fn assemble(
    crane: &Path,
    binaries: &Path,
    reference: &str,
    transport: Transport,
    facts: &[(&str, String)],
) -> anyhow::Result<String> {
    let work = tempfile::tempdir().context("failed to make a folder for the layer")?;
    let layer = work.path().join("layer.tar");
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
    .arg(binaries)
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
    for (name, fact) in facts {
        let fact = format!("org.opencontainers.image.{name}={fact}");
        mutate.args(["--label", &fact, "--annotation", &fact]);
    }
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{BufRead as _, BufReader, Read as _},
        process::{Child, ChildStderr, Stdio},
        time::{Duration, SystemTime},
    };

    use serde_json::Value;

    use super::*;

    /// A registry in the memory of a process, which ends with this.
    struct Registry {
        process: Child,
        /// It ends when nobody reads what it says.
        _said: BufReader<ChildStderr>,
        host: String,
    }

    impl Registry {
        fn start(crane: &Path) -> Self {
            let mut process = Command::new(crane)
                .args(["registry", "serve", "--address", "127.0.0.1:0"])
                .stderr(Stdio::piped())
                .spawn()
                .expect("this test needs crane; `cargo xtask test unit` builds it");
            let mut said = BufReader::new(process.stderr.take().unwrap());
            let port = said.by_ref().lines().map_while(Result::ok).find_map(|line| {
                line.split_once("serving on port ")
                    .map(|(_, port)| port.trim().to_owned())
            });
            let host = format!("127.0.0.1:{}", port.expect("a port"));
            Self {
                process,
                _said: said,
                host,
            }
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    #[test]
    fn the_same_binaries_are_the_same_image_which_says_what_it_is() {
        let crane = Tools::locate().unwrap().node("crane");
        let registry = Registry::start(&crane);
        let binaries = |content: &str, age: u64| {
            let folder = tempfile::tempdir().unwrap();
            for package in PACKAGES {
                let path = folder.path().join(package);
                fs::write(&path, format!("{package} {content}")).unwrap();
                let built = SystemTime::now() - Duration::from_secs(age);
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_modified(built)
                    .unwrap();
            }
            folder
        };
        let facts = facts(Path::new(env!("CARGO_MANIFEST_DIR")));
        let image = |tag: &str, binaries: &Path| {
            let reference = format!("{}/coral:{tag}", registry.host);
            let pushed = assemble(&crane, binaries, &reference, Transport::Insecure, &facts).unwrap();
            pushed.split_once('@').unwrap().1.to_owned()
        };
        let first = image("first", binaries("a", 0).path());
        assert_eq!(first, image("second", binaries("a", 5_000).path()));
        assert_ne!(first, image("third", binaries("b", 0).path()));

        let read = |what: &str| -> Value {
            let reference = format!("{}/coral:first", registry.host);
            let text = output(Command::new(&crane).args([what, "--insecure", &reference])).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (labels, annotations) = (
            read("config")["config"]["Labels"].clone(),
            read("manifest")["annotations"].clone(),
        );
        assert_eq!(labels, annotations);
        assert_eq!(labels["org.opencontainers.image.title"], "coral");
        assert_eq!(
            labels["org.opencontainers.image.version"],
            concat!("v", env!("CARGO_PKG_VERSION"))
        );
        for name in ["description", "licenses"] {
            assert!(
                labels[format!("org.opencontainers.image.{name}")].is_string(),
                "{labels}"
            );
        }
    }
}
