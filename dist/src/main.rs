//! What a release has to offer of `kubectl coral`; `cargo xtask dist` runs it.
//!
//! ```text
//!   cargo build ──► archive for each platform ─┬──► SHA256SUMS
//!   cargo tree  ──► bill of materials          └──► coral.yaml, for krew
//! ```
//!
//! The same sources give the same bytes, wherever they lie. A machine builds for the platforms that its compiler knows; `--collect`
//! goes on from archives of several machines. It is a program of its own because the other commands of xtask are for Linux.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program prints")]

mod archive;
mod bill;
mod krew;
mod platform;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use sha2::{Digest as _, Sha256};

use self::{archive::Entry, platform::Platform};

/// The package whose binary people get.
const PLUGIN: &str = "kubectl-coral";
/// Packages in the image of the parts.
const PARTS: &[&str] = &["coral-agent", "coral-controller", "coral-webhook", "coral-mirror"];
const SUMS: &str = "SHA256SUMS";
const MANIFEST: &str = "coral.yaml";
/// Where archives are said to be where nobody said where they will be.
const NOWHERE: &str = "https://coral.example";

/// Build what a release has to offer of kubectl coral: archives, checksums, bills of materials, the manifest for krew.
#[derive(Debug, Parser)]
#[command(name = "coral-dist", bin_name = "cargo xtask dist")]
struct Cli {
    /// Platform to build for, as the compiler names it; may be repeated; default: this machine's.
    #[arg(long = "target", value_name = "TRIPLE")]
    targets: Vec<String>,

    /// Build nothing: checksums and the manifest of the archives that are there.
    #[arg(long, conflicts_with = "targets")]
    collect: bool,

    /// Image that `kubectl coral install` installs.
    #[arg(long, value_name = "IMAGE", conflicts_with = "collect")]
    image: Option<String>,

    /// Fail where this is not the version.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// Where people will find the archives.
    #[arg(long, value_name = "URL", default_value = NOWHERE)]
    base_url: String,

    /// Where people read about Coral.
    #[arg(long, value_name = "URL", default_value = NOWHERE)]
    homepage: String,

    /// Folder for all this; default: target/dist.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// What is the same for everything that a release has.
struct Release<'a> {
    root: &'a Path,
    output: PathBuf,
    version: String,
    base_url: String,
    homepage: String,
}

fn main() -> ExitCode {
    match run(workspace(), Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds, packs and counts.
fn run(root: &Path, cli: Cli) -> anyhow::Result<()> {
    let Cli {
        mut targets,
        collect,
        image,
        tag,
        base_url,
        homepage,
        output,
    } = cli;
    let release = Release {
        root,
        output: output.unwrap_or_else(|| target_dir().join("dist")),
        version: format!("v{}", env!("CARGO_PKG_VERSION")),
        base_url,
        homepage,
    };
    if let Some(tag) = tag {
        let version = &release.version;
        ensure!(
            tag == *version,
            "{tag} is to be released, and the version in Cargo.toml is {version}"
        );
    }
    if targets.is_empty() && !collect {
        targets.push(host_target()?);
    }
    for target in &targets {
        let platform = Platform::of(target)?;
        let program = build(root, target, platform, image.as_deref())?;
        release.pack(platform, &program)?;
        release.bill(platform, target, PLUGIN, &[PLUGIN])?;
        if platform.os == "linux" {
            release.bill(platform, target, "coral-image", PARTS)?;
        }
    }
    for line in release.finish()? {
        println!("{line}");
    }
    Ok(())
}

/// Builds the plugin and returns the program.
fn build(root: &Path, target: &str, platform: Platform, image: Option<&str>) -> anyhow::Result<PathBuf> {
    let home = env::home_dir().context("this user has no home directory")?;
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    // Messages of panics have paths in them. Those of this machine are nobody's business, and would make bytes differ. Of several
    // that fit, the last one counts.
    let folders = [
        (home.as_path(), "/home"),
        (root, "/coral"),
        (cargo_home.as_path(), "/cargo"),
    ];
    let mut flags: Vec<String> = folders
        .iter()
        .map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()))
        .collect();
    if platform.os == "windows" {
        // Without the runtime library of a compiler that people need not have.
        flags.extend(["-C".to_owned(), "target-feature=+crt-static".to_owned()]);
    }
    let arguments = [
        "build",
        "--release",
        "--locked",
        "--target",
        target,
        "--package",
        PLUGIN,
    ];
    let mut command = cargo(root, &arguments);
    // Flags with spaces in them stay whole.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if let Some(image) = image {
        command.env("CORAL_IMAGE", image);
    }
    let status = command.status().context("failed to run cargo")?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(target_dir().join(target).join("release").join(platform.program()))
}

/// The folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(arguments);
    command
}

/// What a program prints; what else it says is shown as it comes.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} does not print UTF-8"))
}

/// The target that the compiler builds for by default.
fn host_target() -> anyhow::Result<String> {
    let text = output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

impl Release<'_> {
    /// Packs a program for a platform.
    fn pack(&self, platform: Platform, program: &Path) -> anyhow::Result<()> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
        let entries = [
            Entry::file("LICENSE", read(&self.root.join("LICENSE"))?),
            Entry::program(platform.program(), read(program)?),
        ];
        self.write(&platform.archive(&self.version), &archive::pack(&entries)?)
    }

    /// Writes which crates are in the binaries of these packages.
    fn bill(&self, platform: Platform, target: &str, name: &str, packages: &[&str]) -> anyhow::Result<()> {
        let bill = bill::of(self.root, target, name, &self.version, packages)?;
        let file = format!("{name}_{}_{platform}.cdx.json", self.version);
        self.write(&file, bill.as_bytes())
    }

    /// Writes the manifest and the checksums of what is there, and returns the checksums.
    fn finish(&self) -> anyhow::Result<Vec<String>> {
        let mut archives = Vec::new();
        let mut files = Vec::new();
        for file in self.files()? {
            let sum = self.sum(&file)?;
            if let Some(platform) = Platform::all().find(|platform| platform.archive(&self.version) == file) {
                archives.push(krew::Archive {
                    platform,
                    uri: format!("{}/{file}", self.base_url.trim_end_matches('/')),
                    sha256: sum.clone(),
                });
            }
            files.push((file, sum));
        }
        ensure!(
            !archives.is_empty(),
            "{} has no archive of {}",
            self.output.display(),
            self.version
        );
        let template =
            fs::read_to_string(self.root.join("krew/coral.yaml")).context("failed to read krew/coral.yaml")?;
        let manifest = krew::fill(&template, &self.version, &self.homepage, &archives)?;
        self.write(MANIFEST, manifest.as_bytes())?;
        files.push((MANIFEST.to_owned(), self.sum(MANIFEST)?));
        files.sort_unstable();
        let lines: Vec<String> = files.iter().map(|(file, sum)| format!("{sum}  {file}")).collect();
        self.write(SUMS, format!("{}\n", lines.join("\n")).as_bytes())?;
        Ok(lines)
    }

    /// Archives and bills of materials of this version, by name.
    fn files(&self) -> anyhow::Result<Vec<String>> {
        let folder = self.output.display();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.output).with_context(|| format!("failed to read {folder}"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_kind = name.ends_with(".tar.gz") || name.ends_with(".cdx.json");
            if is_kind && name.contains(&format!("_{}_", self.version)) {
                files.push(name);
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn sum(&self, file: &str) -> anyhow::Result<String> {
        let path = self.output.join(file);
        let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(hex(&Sha256::digest(bytes)))
    }

    fn write(&self, file: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.output.join(file);
        fs::create_dir_all(&self.output).with_context(|| format!("failed to make {}", self.output.display()))?;
        fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workflows;
