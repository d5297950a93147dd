//! Real images, made of software that lies on the machine, and tiny ones by the dozen.

pub(crate) mod oci;
mod registry;
mod software;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result};

use self::{
    oci::{Image, Layer, LayerContents},
    software::Found,
};
pub use self::{registry::Registry, software::Software};
use crate::{
    cluster::{fingerprint::fingerprint, pause},
    progress::Progress,
};

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedImage {
    /// Its whole name, `host:port/name:tag`.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// How much is pulled: the sum of its compressed layers.
    pub size_bytes: u64,
    /// How much it takes on a node's disk, besides the compressed layers.
    pub unpacked_bytes: u64,
    /// What it runs. Afterwards it waits until it is told to end.
    pub entrypoint: Vec<String>,
}

/// Makes images of this software and pushes them, as `host:port/NAME:1`. All of them share their lowest layer.
///
/// Packing takes a while the first time; from then on the layers lie in a cache.
pub fn publish(registry: &Registry, software: &[Software], progress: &dyn Progress) -> Result<Vec<PublishedImage>> {
    // The shared layer has what any of them needs, so that it is the same whichever are asked for.
    let mut all = software.to_vec();
    all.extend(
        [Software::Go, Software::Rust]
            .iter()
            .filter(|one| !software.contains(one)),
    );
    let found: Vec<Found> = all.iter().map(|one| one.find(progress)).collect::<Result<_>>()?;
    let base = base_layer(&found)?;
    found[..software.len()]
        .iter()
        .map(|found| publish_one(registry, found, &base, progress))
        .collect()
}

fn publish_one(registry: &Registry, found: &Found, base: &Layer, progress: &dyn Progress) -> Result<PublishedImage> {
    let started = Instant::now();
    let mut layers = vec![base.clone()];
    for (number, contents) in found.layers.iter().enumerate() {
        let key = format!("{} {number} {} {contents:?}", found.name, found.key);
        layers.push(oci::layer(&key, contents).with_context(|| format!("make the image {}", found.name))?);
    }
    let mut entrypoint = vec!["/pause".to_owned()];
    entrypoint.extend(found.command.iter().cloned());
    let published = push(registry, &Image { layers, entrypoint }, &format!("{}:1", found.name))?;
    progress.step(&format!("image {}", published.reference), started.elapsed());
    Ok(published)
}

/// The C library and whatever else of the system the software is linked with, and the program that waits.
fn base_layer(software: &[Found]) -> Result<Layer> {
    let libraries = software::system_libraries(software)?;
    let keys: Vec<String> = libraries
        .iter()
        .map(|path| software::key(path))
        .collect::<Result<_>>()?;
    let program = pause::program()?;
    let staged = program
        .parent()
        .context("the pause program is in no folder")?
        .to_owned();
    let contents = LayerContents {
        staged: Some(staged),
        paths: libraries,
        follow_links: true,
        ..LayerContents::default()
    };
    oci::layer(&format!("base {} {}", program.display(), keys.join("\n")), &contents)
}

/// Pushes a small image that runs, as `host:port/NAME:TAG`: the program that waits, and `payload_bytes` bytes that do
/// not compress. The same `seed` is the same image; another one is another digest.
pub fn tiny(registry: &Registry, name: &str, tag: &str, payload_bytes: usize, seed: &str) -> Result<PublishedImage> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let staged = folder.path().join("staged");
    fs::create_dir(&staged).with_context(|| format!("create {}", staged.display()))?;
    fs::write(staged.join("payload"), noise(payload_bytes, seed)).context("write a payload")?;
    let contents = LayerContents {
        staged: Some(staged),
        ..LayerContents::default()
    };
    let payload = oci::pack(&contents, &folder.path().join("scratch"), folder.path())?;
    let image = Image {
        layers: vec![pause_layer()?, payload],
        entrypoint: vec!["/pause".to_owned()],
    };
    push(registry, &image, &format!("{name}:{tag}"))
}

/// Gives an image of this registry (`NAME:TAG`) one more tag, or moves that tag to it.
pub fn retag(registry: &Registry, name: &str, tag: &str) -> Result<()> {
    registry.tag(name, tag)
}

/// The digest of an image in this registry (`NAME:TAG`).
pub fn digest(registry: &Registry, name: &str) -> Result<String> {
    registry.digest(name)
}

/// Deletes an image (`NAME:TAG`) from the registry: from then on it is not to be had, under any tag.
pub fn delete(registry: &Registry, name: &str) -> Result<()> {
    registry.delete(name)
}

/// Pushes the pause image, as `host:port/NAME`.
pub(crate) fn push_pause(registry: &Registry, name: &str) -> Result<()> {
    let image = Image {
        layers: vec![pause_layer()?],
        entrypoint: vec!["/pause".to_owned()],
    };
    push(registry, &image, name).map(drop)
}

fn pause_layer() -> Result<Layer> {
    let program = pause::program()?;
    let staged = program.parent().context("the pause program is in no folder")?;
    let contents = LayerContents {
        staged: Some(staged.to_owned()),
        ..LayerContents::default()
    };
    oci::layer(&format!("pause {}", program.display()), &contents)
}

fn push(registry: &Registry, image: &Image, name: &str) -> Result<PublishedImage> {
    let reference = registry.reference(name);
    let layout = layout_folder(image)?;
    image.write_layout(layout.path())?;
    registry
        .push(layout.path(), name)
        .with_context(|| format!("push {reference}"))?;
    let digest = registry.digest(name)?;
    Ok(PublishedImage {
        reference,
        digest,
        size_bytes: image.size(),
        unpacked_bytes: image.unpacked_size(),
        entrypoint: image.entrypoint.clone(),
    })
}

/// Beside the layers, so that those can be linked instead of copied.
fn layout_folder(image: &Image) -> Result<tempfile::TempDir> {
    let beside = image
        .layers
        .first()
        .and_then(Layer::folder)
        .unwrap_or(Path::new("/tmp"));
    tempfile::Builder::new()
        .prefix("layout-")
        .tempdir_in(beside)
        .context("make a temporary folder")
}

/// Bytes without a pattern that a compressor would find (xorshift64*).
fn noise(length: usize, seed: &str) -> Vec<u8> {
    let mut state = u64::from_str_radix(&fingerprint(seed, 16), 16).unwrap_or_default() | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_depends_on_the_seed_only() {
        assert_eq!(noise(100, "a"), noise(100, "a"));
        assert_ne!(noise(100, "a"), noise(100, "b"));
        assert_eq!(noise(5, "a").len(), 5);
    }
}
