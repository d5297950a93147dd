//! CRI without Coral: what a container runtime takes for a pull when nobody is in between.

use std::path::Path;

use anyhow::{Context, Result};
use coral_proto::runtime_v1::{
    ImageSpec, PullImageRequest, RemoveImageRequest, image_service_client::ImageServiceClient,
};
use tonic::transport::{Channel, Endpoint};

/// A connection to the image service of a runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BareCri {
    images: ImageServiceClient<Channel>,
}

impl BareCri {
    /// Connects to the runtime behind this socket.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).context("name the runtime")?;
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self {
            images: ImageServiceClient::new(channel),
        })
    }

    /// Pulls an image, as the kubelet would.
    pub async fn pull(&self, image: &str) -> Result<()> {
        let request = PullImageRequest {
            image: Some(spec(image)),
            ..PullImageRequest::default()
        };
        let mut images = self.images.clone();
        let pulled = images.pull_image(request).await;
        pulled.map(drop).with_context(|| format!("pull {image}"))
    }

    /// Removes an image and everything that only it needed, and returns when that is gone.
    pub async fn remove(&self, image: &str) -> Result<()> {
        let request = RemoveImageRequest {
            image: Some(spec(image)),
        };
        let mut images = self.images.clone();
        let removed = images.remove_image(request).await;
        removed.map(drop).with_context(|| format!("remove {image}"))
    }
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        ..ImageSpec::default()
    }
}
