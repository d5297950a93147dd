//! The loop: takes in what happens, does what [`plan`] decides and writes what [`report`](crate::report) says.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use coral_api::{
    ImageReference, NodeImages,
    node_images::{FilesystemUsage, RuntimeInfo, SecretReference},
};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::task::{self, AbortHandle, JoinSet};
use tracing::Instrument as _;

use crate::{
    classify::Failure,
    containerd::{Bytes, Containerd, Pins},
    ledger::{Ledger, WriteError, write},
    metrics::Metrics,
    plan::{Action, next_wake, plan},
    pull::Puller,
    runtime::{HeldImage, Inventory, Runtime},
    situation::Situation,
};

/// How often the agent looks at what the runtime holds.
const LOOK_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// How often it looks while the runtime does not answer.
const LOOK_RETRY: SignedDuration = SignedDuration::from_secs(2);
/// How often the agent asks how far running pulls are.
const PROGRESS_INTERVAL: SignedDuration = SignedDuration::from_secs(2);
/// How long the runtime may take to tell of progress, or to change a protection.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop waits for the last status write.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// The agent of one node. Several may run in one process, each with a node of its own.
pub struct Agent {
    api: Api<NodeImages>,
    runtime: Runtime,
    puller: Puller,
    node: String,
    max_parallel_pulls: usize,

    metrics: Metrics,
    situation: Situation,
    /// Whether the node has a NodeImages object. Without one the agent asks nothing of the runtime.
    is_asked: bool,
    /// Every task that the agent started. A pull that is not wanted any more is aborted.
    tasks: JoinSet<Done>,
    pulling: HashMap<String, AbortHandle>,
    under_way: BTreeSet<Chore>,
    next_look: Timestamp,
    next_progress: Timestamp,
    /// When a change of a protection ended whose outcome no look has shown yet.
    pinned: Option<Timestamp>,
    ledger: Ledger,
}

/// What the agent does beside pulling; each at most once at a time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Chore {
    Look,
    Progress,
    Pin,
    Write,
}

/// What a task of the agent's ended with.
enum Done {
    Pull {
        image: String,
        result: Result<Option<HeldImage>, Failure>,
    },
    Look {
        began: Timestamp,
        result: Result<Look, Failure>,
    },
    Progress(Result<Vec<(ImageReference, Bytes)>, tonic::Status>),
    Pins(Result<(), tonic::Status>),
    Write {
        began: Timestamp,
        /// The object as the API server has it after the write.
        result: Result<Box<NodeImages>, WriteError>,
    },
}

struct Look {
    runtime: RuntimeInfo,
    inventory: Inventory,
    filesystem: Option<FilesystemUsage>,
    /// What Coral has pinned; none where the runtime cannot.
    pins: Option<Pins>,
}

impl Agent {
    /// An agent that watches the NodeImages object `node` through `client` and keeps its images in `runtime`.
    #[must_use]
    pub fn new(client: Client, runtime: Runtime, node: String, max_parallel_pulls: usize) -> Self {
        Self {
            api: Api::all(client.clone()),
            puller: Puller::new(client, runtime.clone()),
            runtime,
            metrics: Metrics::default(),
            situation: Situation::new(node.clone()),
            node,
            max_parallel_pulls,
            is_asked: false,
            tasks: JoinSet::new(),
            pulling: HashMap::new(),
            under_way: BTreeSet::new(),
            next_look: Timestamp::UNIX_EPOCH,
            next_progress: Timestamp::UNIX_EPOCH,
            pinned: None,
            ledger: Ledger::default(),
        }
    }

    /// What the agent counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Works until `shutdown` completes.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut objects = watcher::watch_object(self.api.clone(), &self.node)
            .default_backoff()
            .boxed();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let wake = self.act(Timestamp::now());
            tokio::select! {
                object = objects.next() => match object {
                    Some(Ok(object)) => self.take_object(object.as_ref()),
                    Some(Err(error)) => tracing::warn!(error = %error, "The watch of the NodeImages object broke; it is begun again"),
                    // The watcher's stream has no end.
                    None => return,
                },
                Some(done) = self.tasks.join_next_with_id() => self.take_done(done, Timestamp::now()),
                () = sleep_until(wake) => {}
                () = &mut shutdown => break,
            }
        }
        self.stop().await;
    }

    /// Starts what is due, and returns when something will be due again.
    fn act(&mut self, now: Timestamp) -> Timestamp {
        if !self.is_asked && self.pulling.is_empty() && !self.may_have_pins() {
            return now + SignedDuration::from_hours(1);
        }
        if !self.under_way.contains(&Chore::Look) && self.next_look <= now {
            self.look(now);
        }
        self.ask_progress(now);
        let running: Vec<String> = self.pulling.keys().cloned().collect();
        for action in plan(&self.situation, &running, self.max_parallel_pulls, now) {
            match action {
                Action::Pull {
                    image,
                    reference,
                    secrets,
                    timeout,
                } => {
                    self.situation.pull_began(&image, now);
                    self.pull(image, reference, secrets, timeout);
                }
                Action::Pin { identity } => self.pin(|containerd| async move { containerd.pin(&identity).await }),
                Action::Unpin { names } => self.pin(|containerd| async move { containerd.unpin(&names).await }),
                Action::Cancel { image } => {
                    if let Some(pull) = self.pulling.remove(&image) {
                        tracing::info!(%image, "The pull ends, for nobody wants the image any more");
                        pull.abort();
                        self.situation.pull_ended(&image);
                    }
                }
            }
        }
        let write = self.write_when_due(now);
        let look = if self.under_way.contains(&Chore::Look) {
            None
        } else {
            Some(self.next_look)
        };
        let progress = (!self.pulling.is_empty())
            .then_some(self.next_progress)
            .filter(|time| *time > now);
        [write, look, progress, next_wake(&self.situation, now)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now + LOOK_INTERVAL)
    }

    /// Whether protections may be left from when the node was asked for something, perhaps of an earlier agent.
    fn may_have_pins(&self) -> bool {
        let can_pin = self.situation.runtime.as_ref().is_none_or(is_containerd);
        can_pin && self.situation.pins.as_ref().is_none_or(|pins| !pins.is_empty())
    }

    fn take_object(&mut self, object: Option<&NodeImages>) {
        self.metrics.watch_spoke(Timestamp::now());
        if object.is_none() && self.is_asked {
            tracing::info!("The node is asked for nothing");
        }
        if !self.is_asked {
            self.next_look = Timestamp::UNIX_EPOCH;
        }
        self.is_asked = object.is_some();
        self.situation.asked(object);
        self.ledger.note(object);
    }

    fn take_done(&mut self, done: Result<(task::Id, Done), task::JoinError>, now: Timestamp) {
        match done {
            // A pull that ended just before it was cancelled; another one of the same image may be under way by now.
            Ok((id, Done::Pull { image, .. })) if self.pulling.get(&image).is_none_or(|pull| pull.id() != id) => {}
            Ok((_, Done::Pull { image, result })) => {
                self.pulling.remove(&image);
                if matches!(result, Ok(None)) {
                    self.situation.found_missing(&image, now);
                }
                let result = result.and_then(|held| held.ok_or_else(missing));
                let began = self.situation.pulls.get(&image).and_then(|pulls| pulls.running_since);
                self.metrics
                    .pull_ended(&result, now.duration_since(began.unwrap_or(now)));
                match result {
                    Ok(held) => self.situation.pull_succeeded(&image, held, now),
                    Err(failure) => self.situation.pull_failed(&image, failure, now),
                }
            }
            Ok((_, Done::Look { began, result })) => {
                self.under_way.remove(&Chore::Look);
                self.metrics.runtime_answered(result.is_ok());
                match result {
                    Ok(look) => {
                        self.next_look = now + LOOK_INTERVAL;
                        self.situation.runtime = Some(look.runtime);
                        self.situation.filesystem = look.filesystem;
                        self.situation.pins = look.pins;
                        self.situation.looked(began, look.inventory);
                        if self.pinned.take_if(|pinned| *pinned <= began).is_some() {
                            self.under_way.remove(&Chore::Pin);
                        }
                    }
                    Err(failure) => {
                        tracing::warn!(cause = failure.message, "The container runtime does not answer");
                        self.next_look = now + LOOK_RETRY;
                        self.situation.lost_runtime(failure, now);
                    }
                }
            }
            Ok((_, Done::Progress(result))) => {
                self.under_way.remove(&Chore::Progress);
                match result {
                    Ok(progress) => self.situation.progressed(progress),
                    Err(status) => tracing::debug!(cause = status.message(), "The runtime does not tell of progress"),
                }
            }
            Ok((_, Done::Pins(result))) => {
                // Not before a look has shown what came of it is another protection changed.
                self.pinned = Some(now);
                self.next_look = now;
                if let Err(status) = result {
                    self.next_look = now + LOOK_INTERVAL;
                    tracing::warn!(
                        cause = status.message(),
                        "The runtime did not change the protection of an image"
                    );
                }
            }
            Ok((_, Done::Write { began, result })) => {
                self.under_way.remove(&Chore::Write);
                self.metrics.status_written(result.is_ok());
                self.ledger.ended(began, result, now);
            }
            // Aborted by `act`.
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn look(&mut self, began: Timestamp) {
        self.under_way.insert(Chore::Look);
        let runtime = self.runtime.clone();
        self.tasks.spawn(async move {
            let result = async {
                let version = runtime.version().await?;
                Ok(Look {
                    inventory: runtime.inventory().await?,
                    filesystem: runtime.filesystem().await?,
                    pins: pins(&runtime, &version).await,
                    runtime: version,
                })
            }
            .await;
            Done::Look { began, result }
        });
    }

    /// Asks how far the running pulls are, when it is time and the runtime tells.
    fn ask_progress(&mut self, now: Timestamp) {
        let tells = self.situation.runtime.as_ref().is_some_and(is_containerd);
        if self.pulling.is_empty() || self.under_way.contains(&Chore::Progress) || self.next_progress > now || !tells {
            return;
        }
        self.under_way.insert(Chore::Progress);
        self.next_progress = now + PROGRESS_INTERVAL;
        let is_running = |image: &String| self.pulling.contains_key(image);
        let images: Vec<ImageReference> = self
            .situation
            .wanted
            .iter()
            .filter(|wanted| is_running(&wanted.entry.image))
            .filter_map(|wanted| wanted.reference.clone().ok())
            .collect();
        let containerd = self.runtime.containerd();
        self.tasks.spawn(async move {
            let answer = tokio::time::timeout(RUNTIME_TIMEOUT, containerd.progress(&images)).await;
            Done::Progress(answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))))
        });
    }

    /// Changes the protection of an image, one after the other.
    fn pin<F>(&mut self, change: impl FnOnce(Containerd) -> F)
    where
        F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
    {
        if self.under_way.contains(&Chore::Pin) {
            return;
        }
        self.under_way.insert(Chore::Pin);
        let change = change(self.runtime.containerd());
        self.tasks.spawn(async move {
            let answer = tokio::time::timeout(RUNTIME_TIMEOUT, change).await;
            Done::Pins(answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))))
        });
    }

    fn pull(&mut self, image: String, reference: ImageReference, secrets: Vec<SecretReference>, timeout: Duration) {
        let puller = self.puller.clone();
        let span = tracing::info_span!("pull", image = %reference);
        let name = image.clone();
        let task = async move {
            tracing::info!("The pull begins");
            let result = tokio::time::timeout(timeout, puller.pull(&reference, &secrets))
                .await
                .unwrap_or_else(|_| {
                    Err(Failure {
                        reason: coral_api::FailureReason::Timeout,
                        message: format!("the pull took longer than {}", kube::core::Duration::from(timeout)),
                    })
                });
            match &result {
                Ok(None) => tracing::warn!("The image is gone again"),
                Ok(Some(held)) => tracing::info!(digest = held.digest, bytes = held.size_bytes, "The image is there"),
                Err(failure) => tracing::warn!(reason = %failure.reason, cause = failure.message, "The pull failed"),
            }
            Done::Pull { image, result }
        };
        self.pulling.insert(name, self.tasks.spawn(task.instrument(span)));
    }

    /// Starts a status write when one is due; otherwise returns when one will be.
    fn write_when_due(&mut self, now: Timestamp) -> Option<Timestamp> {
        // Before the first look there is nothing to say that an earlier agent has not said better.
        let has_looked = self.situation.inventory.is_some() || self.situation.runtime_failure.is_some();
        if self.under_way.contains(&Chore::Write) || !self.is_asked || !has_looked {
            return None;
        }
        let status = self.ledger.status(&self.situation, now);
        self.metrics.node_is(&status, self.situation.paused.is_some());
        let time = self.ledger.due(&status, now)?;
        if time > now {
            return Some(time);
        }
        self.under_way.insert(Chore::Write);
        self.ledger.sending(status.clone());
        let (api, node) = (self.api.clone(), self.node.clone());
        self.tasks.spawn(async move {
            let result = write(&api, &node, &status).await;
            Done::Write { began: now, result }
        });
        None
    }

    /// Says a last time how things stand. Pulls end with the process: the runtime keeps the layers that have arrived.
    async fn stop(mut self) {
        for (image, pull) in self.pulling.drain() {
            tracing::info!(%image, "The pull ends, for the agent ends");
            pull.abort();
            self.situation.pull_ended(&image);
        }
        let has_looked = self.situation.inventory.is_some();
        let now = Timestamp::now();
        let status = self.ledger.status(&self.situation, now);
        if has_looked && self.is_asked && self.ledger.due(&status, now).is_some() {
            let write = write(&self.api, &self.node, &status);
            if !matches!(tokio::time::timeout(LAST_WRITE_TIMEOUT, write).await, Ok(Ok(_))) {
                tracing::warn!("The last status could not be written");
            }
        }
    }
}

/// What Coral has pinned; none where the runtime cannot pin, or does not say: pulls do not depend on it.
async fn pins(runtime: &Runtime, version: &RuntimeInfo) -> Option<Pins> {
    if !is_containerd(version) {
        return None;
    }
    match tokio::time::timeout(RUNTIME_TIMEOUT, runtime.containerd().pins()).await {
        Ok(Ok(pins)) => Some(pins),
        Ok(Err(status)) => {
            tracing::warn!(cause = status.message(), "The runtime does not tell what is pinned");
            None
        }
        Err(_) => {
            tracing::warn!("The runtime does not tell in time what is pinned");
            None
        }
    }
}

fn is_containerd(version: &RuntimeInfo) -> bool {
    version.name == "containerd"
}

fn missing() -> Failure {
    Failure {
        reason: coral_api::FailureReason::Unknown,
        message: "the container runtime reports a finished pull, but does not hold the image".to_owned(),
    }
}

async fn sleep_until(time: Timestamp) {
    let pause = time.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(pause).unwrap_or_default()).await;
}
