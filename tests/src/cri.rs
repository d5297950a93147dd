//! A container runtime that only pretends: it speaks CRI as containerd or CRI-O does, and fails as a test tells it to.
//!
//! ```text
//!   test ──script, look, vanish, freeze, stop──► FakeRuntime ──reads──► Catalogue (what registries have)
//!                                                    ▲                     ▲
//!   agent ──CRI/gRPC over a unix socket──────────────┘    other runtimes ──┘
//! ```
//!
//! What a runtime would do is decided in `state`, without a clock or a socket; `server` is the gRPC around it. No image
//! has content, a pull is a timer, and a runtime is one task and one more for each connection: thousands of them fit in a
//! process.
//!
//! ```no_run
//! # fn example() -> anyhow::Result<()> {
//! use coral_tests::cri::{Catalogue, FakeRuntime, Flavour, Outcome, Trouble};
//!
//! let catalogue = Catalogue::default();
//! catalogue.publish("registry.example/app:v1", "first", 50_000_000);
//! let runtime = FakeRuntime::start(Flavour::CriO, catalogue)?;
//! runtime.set_pace(std::time::Duration::from_millis(500), None);
//! runtime.script("registry.example/app:v1", [Outcome::Fail(Trouble::RateLimited), Outcome::Disconnect]);
//! // … an agent at `runtime.endpoint()` succeeds with its third attempt.
//! assert_eq!(runtime.counts().succeeded, 1);
//! # Ok(())
//! # }
//! ```

mod catalogue;
mod containerd;
mod credential;
mod flavour;
mod server;
mod state;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

pub use self::{
    catalogue::{Artifact, Catalogue},
    credential::CredentialPrint,
    flavour::{Flavour, Trouble},
    state::{Attempt, Calls, Counts, Ending, Outcome},
};
use self::{
    server::{Server, Shared},
    state::{State, identity},
};

/// A running fake. Its socket goes when it is dropped.
#[derive(Debug)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
    folder: TempDir,
    server: Mutex<Option<Server>>,
}

impl FakeRuntime {
    /// A runtime that holds nothing and pulls from `catalogue`, which others may share.
    ///
    /// # Panics
    /// Outside of tokio, as `resume` does.
    pub fn start(flavour: Flavour, catalogue: Catalogue) -> Result<Self> {
        let runtime = Self::stopped(flavour, catalogue)?;
        runtime.resume()?;
        Ok(runtime)
    }

    /// A runtime that is not up: nothing answers before [`resume`](Self::resume).
    pub fn stopped(flavour: Flavour, catalogue: Catalogue) -> Result<Self> {
        // The path of a socket has 107 bytes at most, and a temporary folder of the environment may lie deep.
        let folder = tempfile::Builder::new()
            .prefix("cri-")
            .tempdir_in("/tmp")
            .context("make a folder for a socket")?;
        Ok(Self {
            shared: Arc::new(Shared::new(State::new(flavour, catalogue))),
            folder,
            server: Mutex::default(),
        })
    }

    /// Where it listens, as `--runtime-endpoint` takes it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Ends the server as a crash would: connections break, pulls end, and the file of the socket stays behind and
    /// refuses connections. What is held stays on the disk.
    pub async fn stop(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop().await;
        }
    }

    /// Starts the server again, on the same socket. Does nothing when it runs.
    pub fn resume(&self) -> Result<()> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_none() {
            *server = Some(Server::start(&self.socket(), &self.shared)?);
        }
        Ok(())
    }

    /// Whether calls get no answer. Those that came in meanwhile go on when it is over; pulls do not end.
    pub fn set_frozen(&self, is_frozen: bool) {
        self.shared.set_frozen(is_frozen);
    }

    /// How long a pull takes: `latency`, and behind it the size of the image at this rate. A pull that fails takes the latency.
    pub fn set_pace(&self, latency: Duration, bytes_per_second: Option<u64>) {
        self.state().set_pace(latency, bytes_per_second);
    }

    /// How the next attempts at this image end, in this order. Behind them attempts succeed.
    pub fn script(&self, image: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        self.state().script(image, outcomes);
    }

    /// Puts an image there as if somebody else had pulled it.
    pub fn hold(&self, image: &str) -> Result<()> {
        self.state()
            .hold(image)
            .with_context(|| format!("no registry has {image}"))
    }

    /// Puts `count` images there that nobody asks for. Each takes about 330 bytes of a list.
    pub fn fill(&self, count: usize) {
        self.state().fill(count);
    }

    /// Takes an image away behind everybody's back, with all of its names. Says whether it was there.
    pub fn vanish(&self, image: &str) -> bool {
        self.state().vanish(image)
    }

    /// Lets an image vanish at the moment when `ImageStatus` asks for it: lists still have it before.
    pub fn vanish_when_asked_for(&self, image: &str) {
        self.state().vanish_when_asked_for(image);
    }

    /// Makes a container of a pod of the namespace `shop` from an image that is there.
    pub fn run(&self, image: &str, pod: &str, container: &str) -> Result<()> {
        let ran = self.state().run(image, pod, container);
        ran.with_context(|| format!("{image} is not there"))
    }

    /// Takes the containers of a pod away.
    pub fn end_pod(&self, pod: &str) {
        self.state().end_pod(pod);
    }

    /// Says that images lie in this folder.
    pub fn set_image_folder(&self, folder: &str) {
        self.state().image_folder = Some(folder.to_owned());
    }

    /// Makes this the image that every pod needs.
    pub fn set_sandbox_image(&self, image: &str) {
        self.state().sandbox_image = Some(identity(image));
    }

    /// Pins an image as somebody other than Coral does.
    pub fn pin(&self, image: &str) -> Result<()> {
        let (key, value) = state::PINNED;
        let labels = state::Labels::from([(key.to_owned(), value.to_owned())]);
        self.state().label(&identity(image), labels)?;
        Ok(())
    }

    /// Names of which containerd's own service was asked to delete the record.
    #[must_use]
    pub fn deleted_records(&self) -> Vec<String> {
        self.state().deleted_records.clone()
    }

    /// Whether an image is there, by any of its names.
    #[must_use]
    pub fn holds(&self, image: &str) -> bool {
        self.state().find(&identity(image)).is_some()
    }

    /// The names that are pinned.
    #[must_use]
    pub fn pinned(&self) -> Vec<String> {
        self.state().pinned()
    }

    /// How many images are there.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held()
    }

    /// How many pulls there were, and how they ended.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts()
    }

    /// How often each call came in.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.state().calls
    }

    /// Every attempt at every image, in the order in which they began.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts().to_vec()
    }

    /// Every attempt at one image, however it was spelled.
    #[must_use]
    pub fn attempts_at(&self, image: &str) -> Vec<Attempt> {
        let image = identity(image);
        let mut attempts = self.attempts();
        attempts.retain(|attempt| attempt.image == image);
        attempts
    }

    /// The highest number of attempts at one image that ran at the same time.
    #[must_use]
    pub fn most_at_once_at(&self, image: &str) -> usize {
        state::most_at_once(&self.attempts_at(image))
    }
}
