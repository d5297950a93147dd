//! The programs of a cluster, built from Go modules and kept in a cache.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::{fingerprint::fingerprint, state};
use crate::progress::Progress;

/// The version of Kubernetes in the control plane's `go.mod`; a build has to be told.
const KUBERNETES_VERSION: &str = "v1.36.3";

/// A Go module that requires programs as tools, and so pins them.
struct Module {
    folder: &'static str,
    /// Files beside `go.mod` that the programs are made of.
    sources: &'static [&'static str],
    programs: &'static [Program],
}

struct Program {
    name: &'static str,
    package: &'static str,
    tags: &'static str,
    cgo: bool,
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        tags: "",
        cgo: false,
    }
}

const CONTROL_PLANE: Module = Module {
    folder: "control-plane",
    sources: &[],
    programs: &[
        program("etcd", "go.etcd.io/etcd/server/v3"),
        program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        program(
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        program("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        program("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
};

const NODE: Module = Module {
    folder: "node",
    sources: &[],
    programs: &[
        program("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        program(
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ),
        program("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        // Without seccomp it refuses every pod that asks for a profile; that needs cgo and libseccomp.
        Program {
            name: "runc",
            package: "github.com/opencontainers/runc",
            tags: "seccomp",
            cgo: true,
        },
        program("ptp", "github.com/containernetworking/plugins/plugins/main/ptp"),
        program(
            "loopback",
            "github.com/containernetworking/plugins/plugins/main/loopback",
        ),
        program(
            "host-local",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ),
        program("registry", "github.com/distribution/distribution/v3/cmd/registry"),
        program("crane", "github.com/google/go-containerregistry/cmd/crane"),
    ],
};

/// What Coral is compared with, and nothing else needs.
const PEERS: Module = Module {
    folder: "peers",
    sources: &[],
    programs: &[program("regsync", "github.com/regclient/regclient/cmd/regsync")],
};

/// No cluster needs these.
const CHECKS: Module = Module {
    folder: "checks",
    sources: &["rules/main.go"],
    programs: &[
        program("helm", "helm.sh/helm/v4/cmd/helm"),
        program("rules", "coral.invalid/tests/cluster/checks/rules"),
    ],
};

/// Programs that tests look at manifests with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    folder: PathBuf,
}

impl Checks {
    /// Builds what is not there yet.
    pub async fn build(progress: &dyn Progress) -> Result<Self> {
        let folder = CHECKS.build(progress).await?;
        Ok(Self { folder })
    }

    /// Helm.
    #[must_use]
    pub fn helm(&self) -> PathBuf {
        self.folder.join("helm")
    }

    /// Prometheus' own reader of files with rules.
    #[must_use]
    pub fn rules(&self) -> PathBuf {
        self.folder.join("rules")
    }
}

/// Where the built programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The folder with Kubernetes and etcd.
    pub control_plane: PathBuf,
    /// The folder with containerd and what belongs to it, the registry and crane.
    pub node: PathBuf,
}

impl Tools {
    /// Builds what is not there yet.
    pub async fn build(progress: &dyn Progress) -> Result<Self> {
        Ok(Self {
            control_plane: CONTROL_PLANE.build(progress).await?,
            node: NODE.build(progress).await?,
        })
    }

    /// Builds the programs that Coral is compared with, and tells the folder that they are in.
    pub async fn build_peers(progress: &dyn Progress) -> Result<PathBuf> {
        PEERS.build(progress).await
    }

    /// Where the programs are when they are built.
    pub fn locate() -> Result<Self> {
        Ok(Self {
            control_plane: CONTROL_PLANE.cache()?.join("bin"),
            node: NODE.cache()?.join("bin"),
        })
    }

    /// Whether all of them are there.
    #[must_use]
    pub fn are_built(&self) -> bool {
        let complete =
            |bin: &Path, module: Module| module.programs.iter().all(|program| bin.join(program.name).exists());
        complete(&self.control_plane, CONTROL_PLANE) && complete(&self.node, NODE)
    }

    /// The folders, in the order in which a `PATH` should have them.
    #[must_use]
    pub fn folders(&self) -> [&Path; 2] {
        [&self.control_plane, &self.node]
    }

    /// A program of the control plane, or the kubelet.
    #[must_use]
    pub fn control_plane(&self, name: &str) -> PathBuf {
        self.control_plane.join(name)
    }

    /// A program of the node module.
    #[must_use]
    pub fn node(&self, name: &str) -> PathBuf {
        self.node.join(name)
    }
}

/// Where built programs and images are kept between runs.
pub fn cache_dir() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so that there is no place for a cache")?;
    Ok(base.join("coral"))
}

impl Module {
    fn source(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(self.folder)
    }

    /// A folder of its own for each set of versions and flags.
    fn cache(&self) -> Result<PathBuf> {
        let mut contents = Vec::new();
        for file in ["go.mod", "go.sum"].iter().chain(self.sources) {
            let path = self.source().join(file);
            contents.extend(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
        for program in self.programs {
            contents.extend(program.arguments(Path::new("")).join("\0").into_bytes());
        }
        let name = fingerprint(&contents, 16);
        Ok(cache_dir()?
            .join("cluster-tools")
            .join(format!("{}-{name}", self.folder)))
    }

    async fn build(&self, progress: &dyn Progress) -> Result<PathBuf> {
        let cache = self.cache()?;
        let bin = cache.join("bin");
        let missing = |program: &&Program| !bin.join(program.name).exists();
        if !self.programs.iter().any(|program| missing(&program)) {
            return Ok(bin);
        }
        fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
        // Another builder may hold the lock for minutes.
        let _lock = tokio::task::spawn_blocking(move || state::lock(&cache)).await??;
        progress.note(&format!(
            "building the programs in {}; that takes minutes where Go has not built them before",
            self.source().display()
        ));
        for program in self.programs.iter().filter(missing) {
            let started = Instant::now();
            self.build_program(program, &bin).await?;
            progress.note(&format!(
                "built {} in {:.0} s",
                program.name,
                started.elapsed().as_secs_f64()
            ));
        }
        Ok(bin)
    }

    /// Builds beside the place where the program will be: whoever finds it there finds it whole.
    async fn build_program(&self, program: &Program, bin: &Path) -> Result<()> {
        let beside = bin.with_file_name(format!("{}.new", program.name));
        let output = Command::new("go")
            .args(program.arguments(&beside))
            .current_dir(self.source())
            .env("CGO_ENABLED", if program.cgo { "1" } else { "0" })
            .env("GOFLAGS", "-mod=readonly")
            .env("GOWORK", "off")
            .env("GOTOOLCHAIN", "local")
            .kill_on_drop(true)
            .output()
            .await
            .context("start go, which builds the programs of the cluster")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said
                .lines()
                .filter(|line| !line.starts_with("go: downloading"))
                .collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            bail!("building {} ({}) failed:\n{tail}", program.name, program.package);
        }
        let target = bin.join(program.name);
        fs::rename(&beside, &target).with_context(|| format!("move {} into place", target.display()))
    }
}

impl Program {
    fn arguments(&self, output: &Path) -> Vec<String> {
        let mut ldflags = "-s -w".to_owned();
        if self.package.starts_with("k8s.io/kubernetes/") {
            let version = "k8s.io/component-base/version";
            let mut numbers = KUBERNETES_VERSION.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            for (name, value) in [
                ("gitVersion", KUBERNETES_VERSION),
                ("gitMajor", major),
                ("gitMinor", minor),
            ] {
                ldflags.extend([" -X ", version, ".", name, "=", value]);
            }
        }
        let mut arguments: Vec<String> = ["build", "-trimpath", "-buildvcs=false", "-ldflags", &ldflags]
            .map(str::to_owned)
            .to_vec();
        if !self.tags.is_empty() {
            arguments.extend(["-tags".to_owned(), self.tags.to_owned()]);
        }
        arguments.extend(["-o".to_owned(), output.display().to_string(), self.package.to_owned()]);
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_told_the_version_that_is_pinned() {
        let go_mod = fs::read_to_string(CONTROL_PLANE.source().join("go.mod")).unwrap();
        assert!(
            go_mod.contains(&format!("k8s.io/kubernetes {KUBERNETES_VERSION} ")),
            "{KUBERNETES_VERSION}"
        );
        let arguments = CONTROL_PLANE.programs[1].arguments(Path::new("/out")).join(" ");
        assert!(
            arguments.contains("gitVersion=v1.36.3") && arguments.contains("gitMinor=36"),
            "{arguments}"
        );
    }

    #[test]
    fn every_program_is_a_tool_of_its_module() {
        for module in [CONTROL_PLANE, NODE, PEERS, CHECKS] {
            let go_mod = fs::read_to_string(module.source().join("go.mod")).unwrap();
            // A module with one tool names it behind the word.
            let tools: Vec<&str> = go_mod
                .lines()
                .map(|line| line.trim().trim_start_matches("tool "))
                .collect();
            for program in module.programs {
                assert!(
                    tools.contains(&program.package),
                    "{} is no tool of {}",
                    program.package,
                    module.folder
                );
            }
        }
    }

    #[test]
    fn modules_have_folders_of_their_own() {
        assert_ne!(CONTROL_PLANE.cache().unwrap(), NODE.cache().unwrap());
    }
}
