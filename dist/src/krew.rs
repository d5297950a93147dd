//! The manifest for krew, from the template in `krew/`.

use anyhow::{Context as _, ensure};

use super::platform::Platform;

/// The line of the template after which the platform stands.
const PLATFORMS: &str = "  platforms:\n";

/// An archive that krew can install.
pub(crate) struct Archive {
    pub(crate) platform: Platform,
    pub(crate) uri: String,
    pub(crate) sha256: String,
}

/// Fills the template in.
pub(crate) fn fill(template: &str, version: &str, homepage: &str, archives: &[Archive]) -> anyhow::Result<String> {
    let (head, platform) = template
        .split_once(PLATFORMS)
        .context("krew/coral.yaml has no platforms")?;
    // What is said about the template is not true of the manifest.
    let head: String = head
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut manifest = head.replace("${VERSION}", version).replace("${HOMEPAGE}", homepage);
    manifest.push_str(PLATFORMS);
    for archive in archives {
        let filled = platform
            .replace("${OS}", archive.platform.os)
            .replace("${ARCH}", archive.platform.arch)
            .replace("${URI}", &archive.uri)
            .replace("${SHA256}", &archive.sha256)
            .replace("${BIN}", archive.platform.program());
        manifest.push_str(&filled);
    }
    ensure!(
        !manifest.contains("${"),
        "krew/coral.yaml asks for what is not known: {manifest}"
    );
    Ok(manifest)
}
