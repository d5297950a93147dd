//! Where the cases of one test program run.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kube::{Client, Config};
use tokio::{
    runtime::{Builder, Runtime},
    sync::OnceCell,
};

use super::ControlPlane;

/// The control plane of all cases of one program. It starts with the first of them.
pub struct Stage {
    folder: PathBuf,
    name: &'static str,
    runtime: Runtime,
    plane: OnceCell<Mutex<Option<ControlPlane>>>,
}

/// What a case needs to know of the control plane.
#[derive(Clone)]
pub struct Site {
    /// A client with an administrator's rights.
    pub client: Client,
    /// What further clients are made from.
    pub config: Arc<Config>,
}

impl Stage {
    /// A stage whose control plane is to be in a folder of this name below `folder`.
    pub fn new(folder: impl Into<PathBuf>, name: &'static str) -> Result<Self> {
        Ok(Self {
            folder: folder.into(),
            name,
            runtime: Builder::new_multi_thread().enable_all().build()?,
            plane: OnceCell::new(),
        })
    }

    /// Runs one case to its end.
    ///
    /// # Errors
    /// When the control plane does not start, or the case takes longer than `longest`.
    pub fn run<F: Future<Output = ()>>(&self, longest: Duration, case: impl FnOnce(Site) -> F) -> Result<()> {
        self.runtime.block_on(async {
            let plane = self.plane.get_or_try_init(async || self.start().await).await?;
            let site = plane
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(Site::of);
            let site = site.context("the control plane is down already")?;
            let in_time = tokio::time::timeout(longest, case(site)).await;
            ensure!(in_time.is_ok(), "the case did not end in {longest:?}");
            Ok(())
        })
    }

    async fn start(&self) -> Result<Mutex<Option<ControlPlane>>> {
        let plane = ControlPlane::start(&self.folder, self.name).await?;
        Ok(Mutex::new(Some(plane)))
    }

    /// Takes the control plane down, if one was started.
    pub fn clear(&self) -> Result<()> {
        let Some(plane) = self.plane.get() else { return Ok(()) };
        let plane = plane.lock().unwrap_or_else(PoisonError::into_inner).take();
        plane.map_or(Ok(()), |plane| self.runtime.block_on(plane.down()))
    }
}

impl Site {
    fn of(plane: &ControlPlane) -> Self {
        Self {
            client: plane.client(),
            config: Arc::new(plane.config().clone()),
        }
    }
}
