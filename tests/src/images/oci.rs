//! Layers and images, written as the OCI image layout that `crane push` reads.
//!
//! Layers are kept in the cache: packing and compressing 300 MB takes seconds, pushing them again does not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::{fingerprint, process, tools};

/// A packed and compressed layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// The compressed file.
    file: PathBuf,
    /// Digest of the compressed file.
    digest: String,
    /// Digest of the file before it was compressed.
    diff_id: String,
    /// Size of the compressed file.
    pub(crate) size: u64,
    /// Size before it was compressed.
    pub(crate) unpacked_size: u64,
}

impl Layer {
    /// The folder that its file is in.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.file.parent()
    }
}

/// What goes into a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LayerContents {
    /// A folder whose contents become the root.
    pub(crate) staged: Option<PathBuf>,
    /// Files and folders of this machine, which keep their absolute paths.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether a symbolic link becomes the file that it points to.
    pub(crate) follow_links: bool,
    /// Names of files and folders to leave out, as patterns.
    pub(crate) exclude: Vec<&'static str>,
}

/// The name that Go, and so Kubernetes and OCI, has for this machine's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn images_cache() -> Result<PathBuf> {
    Ok(tools::cache_dir()?.join("images"))
}

/// Packs a layer, unless one with this key was packed before. The key has to say all that the contents depend on.
pub(crate) fn layer(key: &str, contents: &LayerContents) -> Result<Layer> {
    let folder = images_cache()?.join("layers");
    let record = folder.join(format!("{}.json", fingerprint::fingerprint(key, 24)));
    if let Ok(text) = fs::read_to_string(&record)
        && let Ok(layer) = serde_json::from_str::<Layer>(&text)
        && layer.file.exists()
    {
        return Ok(layer);
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    // Another process may be packing the same layer: each has a file of its own until it is whole.
    let scratch = folder.join(format!("{}.{}", fingerprint::fingerprint(key, 24), std::process::id()));
    let layer = pack(contents, &scratch, &folder)?;
    let text = serde_json::to_string(&layer).context("serialise a layer's record")?;
    let beside = scratch.with_extension("record");
    fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, &record).with_context(|| format!("write {}", record.display()))?;
    Ok(layer)
}

/// Packs a layer that is not worth keeping, as a file in `folder`.
pub(crate) fn pack(contents: &LayerContents, scratch: &Path, folder: &Path) -> Result<Layer> {
    process::run_command(Command::new("tar").args(tar_arguments(contents, scratch))).context("pack a layer")?;
    let (diff_id, unpacked_size) = digest_and_size(scratch)?;
    // Speed matters more than size here, and the file's name and time must not be in it.
    process::run_command(Command::new("gzip").args(["-1", "--no-name", "--force"]).arg(scratch))
        .context("compress a layer")?;
    let compressed = appended(scratch, ".gz");
    let (digest, size) = digest_and_size(&compressed)?;
    let file = folder.join(digest.replace(':', "-"));
    fs::rename(&compressed, &file).with_context(|| format!("move {} into place", file.display()))?;
    Ok(Layer {
        file,
        digest,
        diff_id,
        size,
        unpacked_size,
    })
}

fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The same contents are the same bytes, whoever packs them when.
fn tar_arguments(contents: &LayerContents, file: &Path) -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<std::ffi::OsString> = [
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=gnu",
    ]
    .map(Into::into)
    .to_vec();
    arguments.extend(
        contents
            .exclude
            .iter()
            .map(|pattern| format!("--exclude={pattern}").into()),
    );
    if contents.follow_links {
        arguments.push("--dereference".into());
        arguments.push("--hard-dereference".into());
    }
    arguments.extend(["--create".into(), "--file".into(), file.into()]);
    if let Some(staged) = &contents.staged {
        arguments.extend(["--directory".into(), staged.into(), ".".into()]);
    }
    if !contents.paths.is_empty() {
        arguments.extend(["--directory".into(), "/".into()]);
        arguments.extend(
            contents
                .paths
                .iter()
                .map(|path| path.strip_prefix("/").unwrap_or(path).into()),
        );
    }
    arguments
}

/// By `sha256sum`, because a debug build of ours takes a minute for what that does in a second.
fn digest_and_size(file: &Path) -> Result<(String, u64)> {
    let output = process::run_command(Command::new("sha256sum").arg("--binary").arg(file))?;
    let digest = output
        .split_ascii_whitespace()
        .next()
        .context("sha256sum printed nothing")?;
    let digest = digest.trim_start_matches('\\');
    let size = fs::metadata(file)
        .with_context(|| format!("look at {}", file.display()))?
        .len();
    Ok((format!("sha256:{digest}"), size))
}

/// An image to be.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
    /// What it runs.
    pub(crate) entrypoint: Vec<String>,
}

impl Image {
    /// Bytes that travel.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Bytes on a node's disk.
    pub(crate) fn unpacked_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked_size).sum()
    }

    /// Writes the image into `folder`, which is made.
    pub(crate) fn write_layout(&self, folder: &Path) -> Result<()> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
        for layer in &self.layers {
            let blob = blobs.join(layer.digest.trim_start_matches("sha256:"));
            if !blob.exists() {
                fs::hard_link(&layer.file, &blob)
                    .or_else(|_| fs::copy(&layer.file, &blob).map(drop))
                    .with_context(|| format!("put {} into place", blob.display()))?;
            }
        }
        let config = write_blob(&blobs, &self.config(), "application/vnd.oci.image.config.v1+json")?;
        let manifest = write_blob(&blobs, &self.manifest(&config), MANIFEST_TYPE)?;
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        write(&folder.join("index.json"), &index.to_string())?;
        write(&folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)
    }

    fn config(&self) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": self.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>()},
        })
    }

    fn manifest(&self, config: &Value) -> Value {
        let layer = |layer: &Layer| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer.digest,
                "size": layer.size,
            })
        };
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn write_blob(blobs: &Path, content: &Value, media_type: &str) -> Result<Value> {
    let text = content.to_string();
    let digest = fingerprint::fingerprint(&text, 64);
    write(&blobs.join(&digest), &text)?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": text.len()}))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(folder: &Path, text: &str) -> Layer {
        let staged = folder.join("staged");
        fs::create_dir_all(&staged).unwrap();
        fs::write(staged.join("file"), text).unwrap();
        let contents = LayerContents {
            staged: Some(staged),
            ..LayerContents::default()
        };
        pack(&contents, &folder.join("scratch"), folder).unwrap()
    }

    #[test]
    fn same_contents_are_the_same_layer() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = folders.each_ref().map(|folder| packed(folder.path(), "text"));
        assert_eq!(first.digest, second.digest);
        assert_ne!(first.digest, packed(folders[0].path(), "other").digest);
        assert_ne!(first.digest, first.diff_id);
    }

    #[test]
    fn layout_names_its_blobs_by_their_digests() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image {
            layers: vec![packed(folder.path(), "text")],
            entrypoint: vec!["/pause".to_owned()],
        };
        let layout = folder.path().join("layout");
        image.write_layout(&layout).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let blob = layout.join("blobs").join(digest.replace(':', "/"));
        assert_eq!(
            digest_and_size(&blob).unwrap(),
            (digest.to_owned(), index["manifests"][0]["size"].as_u64().unwrap())
        );
    }
}
