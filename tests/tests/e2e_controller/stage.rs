//! The control plane on which the cases run, and whose turn it is.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use coral_controller::Options;
use coral_tests::hollow::ControlPlane;
use tokio::{
    runtime::Runtime,
    sync::{OnceCell, RwLock},
};

use crate::{controllers::Running, ground::Ground};

/// Where all cases run. The control plane starts with the first of them.
pub(crate) struct Stage {
    runtime: Runtime,
    set: OnceCell<Result<Set>>,
    /// Read by the cases that run together, written by those that want to be alone.
    turn: RwLock<()>,
}

/// What runs.
struct Set {
    plane: Mutex<Option<Arc<ControlPlane>>>,
    /// The controller of the cases that run together.
    shared: tokio::sync::Mutex<Option<Running>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        Self {
            runtime: runtime.unwrap(),
            set: OnceCell::new(),
            turn: RwLock::new(()),
        }
    }

    /// Runs one case beside others, under a controller with the usual options.
    pub(crate) fn together<F: Future<Output = ()>>(&self, longest: Duration, case: impl FnOnce(Ground) -> F) {
        self.runtime.block_on(async {
            let set = self.set().await;
            let _turn = self.turn.read().await;
            let mut ground = set.ground();
            {
                let mut shared = set.shared.lock().await;
                if shared.is_none() {
                    // A case that was alone may have been the last, and wanted its images on all nodes.
                    ground.clear().await.unwrap();
                }
                let shared = shared.get_or_insert_with(|| Running::start(&ground, Options::default()));
                ground.shared = shared.tally.clone();
            }
            in_time(longest, case(ground)).await;
        });
    }

    /// Runs one case while no other runs, without a controller and without anything that others left.
    pub(crate) fn alone<F: Future<Output = ()>>(&self, longest: Duration, case: impl FnOnce(Ground) -> F) {
        self.runtime.block_on(async {
            let set = self.set().await;
            let _turn = self.turn.write().await;
            let shared = set.shared.lock().await.take();
            if let Some(shared) = shared {
                shared.stop().await;
            }
            let ground = set.ground();
            ground.clear().await.unwrap();
            in_time(longest, case(ground)).await;
        });
    }

    async fn set(&self) -> &Set {
        self.set.get_or_init(Set::build).await.as_ref().unwrap()
    }

    /// Takes the control plane down, if one was started.
    pub(crate) fn clear(&self) -> Result<()> {
        let Some(Ok(set)) = self.set.get() else { return Ok(()) };
        self.runtime.block_on(async {
            drop(set.shared.lock().await.take());
            let plane = set.plane.lock().unwrap_or_else(PoisonError::into_inner).take();
            let plane = plane.and_then(Arc::into_inner);
            plane.context("somebody still uses the control plane")?.down().await
        })
    }
}

impl Set {
    async fn build() -> Result<Self> {
        let plane = ControlPlane::start(Path::new(env!("CARGO_TARGET_TMPDIR")), "e2e-controller").await?;
        Ok(Self {
            plane: Mutex::new(Some(Arc::new(plane))),
            shared: tokio::sync::Mutex::default(),
        })
    }

    fn ground(&self) -> Ground {
        let plane = self.plane.lock().unwrap_or_else(PoisonError::into_inner);
        Ground::new(plane.clone().unwrap())
    }
}

async fn in_time(longest: Duration, case: impl Future<Output = ()>) {
    let in_time = tokio::time::timeout(longest, case).await;
    assert!(in_time.is_ok(), "the case did not end in {longest:?}");
}
