//! Images that share layers, made of noise.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use coral_api::ImageReference;
use coral_registry::{Client, Manifest, Options, Repository, digest};
use futures::stream;
use serde_json::{Value, json};

use super::ways::copy;
use crate::command::output;

/// Megabytes of each image.
const IMAGES: [u64; 20] = [
    50, 55, 60, 65, 70, 80, 90, 100, 110, 120, 140, 160, 180, 200, 230, 260, 300, 350, 420, 500,
];
/// Layers that images share: megabytes, and of images from what size on.
const SHARED: [(u64, u64); 3] = [(30, 0), (40, 110), (80, 230)];
/// Layers of an image that no other has.
const OWN_LAYERS: u64 = 3;
const MEGABYTE: u64 = 1_000_000;
/// Bytes of a piece of a layer that is sent.
const PIECE: usize = 1024 * 1024;
const TAG: &str = "v1";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The images, and what they weigh.
pub(super) struct Stock {
    /// Repositories.
    names: Vec<String>,
    digests: Vec<String>,
    bytes: u64,
    distinct: u64,
}

/// A layer or a configuration that the registry has.
#[derive(Clone)]
struct Blob {
    digest: String,
    size: u64,
    /// A repository that has it.
    home: String,
}

impl Stock {
    /// Makes the images and sends them to a registry.
    pub(super) async fn publish(host: &str, percent: u64, folder: &Path) -> Result<Self> {
        let client = client()?;
        let mut stock = Self {
            names: Vec::new(),
            digests: Vec::new(),
            bytes: 0,
            distinct: 0,
        };
        let mut shared: BTreeMap<usize, Blob> = BTreeMap::new();
        for (number, megabytes) in IMAGES.into_iter().enumerate() {
            let name = format!("bench/image-{number:02}");
            let repository = client.repository(&reference(host, &name)?, None);
            let mut layers = Vec::new();
            let mut own = megabytes;
            for (index, (size, from)) in SHARED.into_iter().enumerate() {
                if megabytes < from {
                    continue;
                }
                own -= size;
                let blob = match shared.get(&index) {
                    Some(blob) => blob.clone(),
                    None => {
                        stock
                            .send(&repository, &name, size * MEGABYTE * percent / 100, folder)
                            .await?
                    }
                };
                repository.mount(&blob.digest, &blob.home).await?;
                layers.push(blob.clone());
                shared.insert(index, blob);
            }
            for _ in 0..OWN_LAYERS {
                let size = own * MEGABYTE * percent / 100 / OWN_LAYERS;
                layers.push(stock.send(&repository, &name, size, folder).await?);
            }
            let config = config(number, &layers);
            let config_digest = digest(&config);
            send(&repository, &config_digest, config.clone()).await?;
            stock.distinct += config.len() as u64;
            let manifest = manifest(&config_digest, config.len(), &layers);
            repository.put_manifest(TAG, &manifest).await?;
            stock.bytes += layers.iter().map(|layer| layer.size).sum::<u64>() + config.len() as u64;
            stock.digests.push(manifest.digest);
            stock.names.push(format!("{name}:{TAG}"));
        }
        Ok(stock)
    }

    /// Path and tag of each image.
    pub(super) fn images(&self) -> &[String] {
        &self.names
    }

    /// Bytes of all images, each by itself.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of all images together.
    pub(super) fn distinct_bytes(&self) -> u64 {
        self.distinct
    }

    /// Fails unless the registry `to` has copies of all of the images of `from`.
    pub(super) async fn ensure_copied(&self, from: &str, to: &str) -> Result<()> {
        let client = client()?;
        for (name, digest) in self.names.iter().zip(&self.digests) {
            let image: ImageReference = copy(name, from, to).parse().context("name a copy")?;
            let head = client.repository(&image, None).manifest_head(TAG).await?;
            let copied = head.and_then(|head| head.digest);
            ensure!(
                copied.as_ref() == Some(digest),
                "the copy of {name} is {copied:?}, not {digest}"
            );
        }
        Ok(())
    }

    /// Sends so many bytes that nobody has seen before.
    async fn send(&mut self, repository: &Repository, name: &str, size: u64, folder: &Path) -> Result<Blob> {
        let mut content = Vec::new();
        let mut noise = File::open("/dev/urandom")
            .context("open the source of noise")?
            .take(size);
        noise.read_to_end(&mut content).context("make noise")?;
        let file = folder.join("layer");
        File::create(&file)
            .and_then(|mut file| file.write_all(&content))
            .with_context(|| format!("failed to write {}", file.display()))?;
        // This program is not compiled to be fast.
        let sum = output(Command::new("sha256sum").arg(&file))?;
        fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
        let sum = sum.split(' ').next().unwrap_or_default();
        let blob = Blob {
            digest: format!("sha256:{sum}"),
            size,
            home: name.to_owned(),
        };
        send(repository, &blob.digest, content.into()).await?;
        self.distinct += size;
        Ok(blob)
    }
}

fn client() -> Result<Client> {
    let options = Options {
        timeout: Duration::from_mins(1),
        ..Options::default()
    };
    Client::new(options).context("make a client")
}

fn reference(host: &str, name: &str) -> Result<ImageReference> {
    format!("{host}/{name}").parse().context("name an image")
}

async fn send(repository: &Repository, digest: &str, content: Bytes) -> Result<()> {
    let pieces: Vec<_> = (0..content.len())
        .step_by(PIECE)
        .map(|begin| Ok(content.slice(begin..content.len().min(begin + PIECE))))
        .collect();
    let upload = repository.begin_upload().await?;
    upload.send(digest, content.len() as u64, stream::iter(pieces)).await?;
    Ok(())
}

fn config(number: usize, layers: &[Blob]) -> Bytes {
    let layers: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"number": number.to_string()}},
        "rootfs": {"type": "layers", "diff_ids": layers},
    });
    config.to_string().into()
}

fn manifest(config: &str, config_size: usize, layers: &[Blob]) -> Manifest {
    let layer = |layer: &Blob| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.digest,
            "size": layer.size,
        })
    };
    let document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": layers.iter().map(layer).collect::<Vec<Value>>(),
    });
    let bytes = Bytes::from(document.to_string());
    Manifest {
        media_type: OCI_MANIFEST.to_owned(),
        digest: digest(&bytes),
        bytes,
    }
}
