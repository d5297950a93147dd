//! The loop: takes in what happens, does what [`plan()`] decides and writes what [`report`] says.

mod tasks;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use coral_api::{
    ImageReference, NodeImages,
    node_images::{FilesystemUsage, RuntimeInfo},
};
use coral_runtime::{Clock, SetBack};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::task::{self, AbortHandle, JoinSet};

use crate::{
    classify::Failure,
    containerd::{Bytes, Pins},
    filesystem::{SpaceProbe, probe},
    ledger::{Ledger, WriteError, write},
    metrics::Metrics,
    plan::{Action, next_wake, plan},
    pull::Puller,
    report,
    runtime::{HeldImage, ImageFilesystem, Inventory, Runtime},
    situation::{Pulls, Situation},
    space::{Need, Reserve},
};

/// How often the agent looks at what the runtime holds. With the two seconds for which a status may be held back, what vanishes is told
/// within ten.
const LOOK_INTERVAL: SignedDuration = SignedDuration::from_secs(8);
/// How often it looks while the runtime does not answer.
const LOOK_RETRY: SignedDuration = SignedDuration::from_secs(2);
/// How long a stop waits for the last status write.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// The agent of one node. Several may run in one process, each with a node of its own.
pub struct Agent {
    api: Api<NodeImages>,
    runtime: Runtime,
    puller: Puller,
    node: String,
    max_parallel_pulls: usize,
    probe: SpaceProbe,

    metrics: Metrics,
    situation: Situation,
    /// Whether the node has a NodeImages object. Without one the agent asks nothing of the runtime.
    is_asked: bool,
    /// Every task that the agent started. A pull that is not wanted any more is aborted.
    tasks: JoinSet<Done>,
    /// The pulls, and the questions for the size that come before them.
    pulling: HashMap<String, AbortHandle>,
    under_way: BTreeSet<Chore>,
    clock: Clock,
    next_look: Timestamp,
    next_progress: Timestamp,
    /// When a change of a protection ended whose outcome no look has shown yet.
    pinned: Option<Timestamp>,
    /// A folder of the node on the file system of the images.
    image_folder: Option<String>,
    ledger: Ledger,
}

/// What the agent does beside pulling; each at most once at a time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Chore {
    Look,
    Progress,
    Pin,
    Remove,
    Write,
}

/// What a task of the agent's ended with.
enum Done {
    Pull {
        image: String,
        result: Result<Option<HeldImage>, Failure>,
    },
    Measured {
        image: String,
        need: Need,
    },
    Look {
        began: Timestamp,
        result: Result<Look, Failure>,
    },
    Progress(Result<Vec<(ImageReference, Bytes)>, tonic::Status>),
    Pins(Result<(), tonic::Status>),
    Removal {
        image: String,
        result: Result<(), Failure>,
    },
    Write {
        began: Timestamp,
        /// The object as the API server has it after the write.
        result: Result<Box<NodeImages>, WriteError>,
    },
}

struct Look {
    runtime: RuntimeInfo,
    inventory: Inventory,
    filesystem: Option<ImageFilesystem>,
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
            ledger: Ledger::new(&node),
            node,
            max_parallel_pulls,
            probe: probe(),
            is_asked: false,
            tasks: JoinSet::new(),
            pulling: HashMap::new(),
            under_way: BTreeSet::new(),
            clock: Clock::new(),
            next_look: Timestamp::UNIX_EPOCH,
            next_progress: Timestamp::UNIX_EPOCH,
            pinned: None,
            image_folder: None,
        }
    }

    /// The same agent, which keeps this much of the image filesystem free.
    #[must_use]
    pub const fn with_reserve(mut self, reserve: Reserve) -> Self {
        self.situation.reserve = reserve;
        self
    }

    /// The same agent, which finds out in this way how much room there is.
    #[must_use]
    pub fn with_space_probe(mut self, probe: SpaceProbe) -> Self {
        self.probe = probe;
        self
    }

    /// What the agent counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Works until `shutdown` completes.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut objects = watcher::watch_object(self.api.clone(), &self.node)
            .backoff(coral_runtime::watch_backoff())
            .boxed();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            if let Some(set_back) = self.clock.set_back() {
                self.clock_set_back(set_back);
            }
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

    /// Takes along what is planned and remembered.
    fn clock_set_back(&mut self, set_back: SetBack) {
        tracing::warn!(by = set_back.by().as_secs(), "The clock of the node was set back");
        self.next_look = set_back.moved(self.next_look);
        self.next_progress = set_back.moved(self.next_progress);
        set_back.shift(&mut self.pinned);
        self.ledger.clock_set_back(set_back);
        self.situation.clock_set_back(set_back);
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
        if self
            .situation
            .wanted
            .iter()
            .any(|wanted| self.situation.lacks(wanted, now))
        {
            self.look_at_space();
        }
        self.situation.note_shortages(&running, now);
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
                Action::Measure {
                    image,
                    reference,
                    secrets,
                } => self.measure(image, reference, secrets),
                Action::Pin { identity } => self.pin(|containerd| async move { containerd.pin(&identity).await }),
                Action::Unpin { names } => self.pin(|containerd| async move { containerd.unpin(&names).await }),
                Action::Remove { image, identity } => self.remove(image, identity),
                Action::Cancel { image } => {
                    if let Some(pull) = self.pulling.remove(&image) {
                        tracing::info!(%image, "The pull ends, for nobody wants the image any more");
                        pull.abort();
                        self.situation.pull_cancelled(&image, now);
                        self.next_look = now;
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
        for image in self.situation.asked(object, Timestamp::now()) {
            if let Some(pull) = self.pulling.remove(&image) {
                tracing::info!(%image, "The pull ends, for another name of the image is wanted");
                pull.abort();
            }
        }
        if self.situation.is_unsure() {
            self.next_look = Timestamp::UNIX_EPOCH;
        }
        self.ledger.note(object);
    }

    fn take_done(&mut self, done: Result<(task::Id, Done), task::JoinError>, now: Timestamp) {
        match done {
            // A pull that ended just before it was cancelled; another one of the same image may be under way by now.
            Ok((id, Done::Pull { image, .. } | Done::Measured { image, .. }))
                if self.pulling.get(&image).is_none_or(|pull| pull.id() != id) => {}
            Ok((_, Done::Measured { image, need })) => {
                self.pulling.remove(&image);
                self.situation.measured(&image, need);
            }
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
            // The clock was set back meanwhile: whether what it saw is older than what is remembered cannot be told.
            Ok((_, Done::Look { began, .. })) if began > now => {
                self.under_way.remove(&Chore::Look);
                self.next_look = now;
            }
            Ok((_, Done::Look { began, result })) => {
                self.under_way.remove(&Chore::Look);
                self.metrics.runtime_answered(result.is_ok());
                match result {
                    Ok(look) => {
                        self.next_look = now + LOOK_INTERVAL;
                        self.situation.runtime = Some(look.runtime);
                        self.situation.pins = look.pins;
                        self.situation.looked(began, look.inventory);
                        self.take_filesystem(look.filesystem);
                        if self.situation.is_unsure() {
                            self.next_look = now;
                        }
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
            Ok((_, Done::Removal { image, result })) => {
                self.under_way.remove(&Chore::Remove);
                self.metrics.removal_ended(&result);
                match result {
                    Ok(()) => {
                        self.situation.removed(&image, now);
                        // Other names may have gone with it.
                        self.next_look = now;
                    }
                    Err(failure) => self.situation.removal_failed(&image, failure, now),
                }
            }
            Ok((_, Done::Write { began, result })) => {
                self.under_way.remove(&Chore::Write);
                self.metrics.status_written(result.is_ok());
                self.ledger.ended(began.min(now), result, now);
            }
            // Aborted by `act`.
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn take_filesystem(&mut self, filesystem: Option<ImageFilesystem>) {
        self.situation.filesystem = filesystem.as_ref().map(|filesystem| FilesystemUsage {
            used_bytes: filesystem.used_bytes,
            free_bytes: None,
            capacity_bytes: None,
        });
        let folder = filesystem.map(|filesystem| filesystem.folder);
        let is_new = self.image_folder != folder;
        self.image_folder = folder;
        let is_visible = self.look_at_space();
        if is_new && !is_visible {
            tracing::info!(
                folder = self.image_folder,
                "The agent does not see how much room there is for images, and pulls without asking"
            );
        }
    }

    /// Finds out how much room there is for images; says whether the agent sees it.
    fn look_at_space(&mut self) -> bool {
        let space = self.image_folder.as_ref().and_then(|folder| (self.probe)(folder));
        self.situation.has_space(space);
        self.metrics.image_filesystem_has(space);
        space.is_some()
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
        let waits = |pulls: &&Pulls| pulls.shortage.is_some();
        self.metrics
            .pulls_wait_for_space(self.situation.pulls.values().filter(waits).count());
        // Also while only sizes are asked for: the pulls come next.
        let moves = !self.pulling.is_empty() || report::removes(&self.situation);
        let time = self.ledger.due(&status, moves, now)?;
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
            self.situation.pull_cancelled(&image, Timestamp::now());
        }
        let has_looked = self.situation.inventory.is_some();
        let now = Timestamp::now();
        let status = self.ledger.status(&self.situation, now);
        if has_looked && self.is_asked && self.ledger.due(&status, false, now).is_some() {
            let write = write(&self.api, &self.node, &status);
            if !matches!(tokio::time::timeout(LAST_WRITE_TIMEOUT, write).await, Ok(Ok(_))) {
                tracing::warn!("The last status could not be written");
            }
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
