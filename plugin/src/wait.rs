//! Waits until every image is on every node, and says what happens meanwhile.
//!
//! ```text
//!   watch Prefetch ──┐
//!   watch NodeImages ┼──► Waiter ──► judge ──► over, or not
//!   clock, Ctrl-C ───┘       └──► Progress
//! ```

mod judge;

use std::{
    collections::BTreeSet,
    pin::pin,
    time::{Duration, Instant},
};

use coral_api::{FailureReason, NodeImages, Prefetch};
use futures::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use self::judge::Verdict;
use crate::{
    client::{Cluster, RequestError},
    exit, failures, human,
    matrix::Matrix,
    progress::{Progress, Snapshot},
    selector,
};

/// Where to look when nothing happens to a Prefetch at all.
pub(crate) const UNSEEN_HINT: &str = "Is Coral running? kubectl -n coral-system get pods";

/// A controller that is there acts within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a watch that broke is begun again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How often the display follows the news.
const REDRAW: Duration = Duration::from_millis(200);
/// Nodes above which the controller's summary has to do: watching all of them would cost more than it tells.
const MOST_WATCHED_NODES: i32 = 500;
/// Failures that are told one by one.
const MOST_FAILURES_TOLD: usize = 20;

/// Why the wait ended without every image on every node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("prefetch {prefetch} will not become ready without help:\n{}", failures.trim_end())]
    ImagesFailed { prefetch: String, failures: String },
    #[error("timed out after {} waiting for prefetch {prefetch}: {missing}", human::duration(*after))]
    TimedOut {
        prefetch: String,
        after: Duration,
        missing: String,
        follow: String,
    },
    #[error("interrupted; prefetch {prefetch} stays, and goes on")]
    Interrupted { prefetch: String, follow: String },
    #[error("prefetch {prefetch} has no nodes: {message}")]
    NoNodes { prefetch: String, message: String },
    #[error("prefetch {prefetch} was deleted while it was waited for")]
    Deleted { prefetch: String },
    #[error(transparent)]
    Request(RequestError),
    #[error("failed to watch for Ctrl-C: {0}")]
    Signal(std::io::Error),
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::TimedOut { follow, .. } | Self::Interrupted { follow, .. } => Some(format!("follow it with `{follow}`")),
            Self::NoNodes { .. } => Some(
                "`kubectl get nodes --show-labels` shows the labels; the Prefetch stays, and acts when such a node joins".to_owned(),
            ),
            Self::Request(error) => error.hint(),
            Self::ImagesFailed { .. } | Self::Deleted { .. } | Self::Signal(_) => None,
        }
    }

    /// The code that scripts see.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ImagesFailed { .. } => exit::IMAGES_FAILED,
            Self::TimedOut { .. } => exit::TIMED_OUT,
            Self::Interrupted { .. } => exit::INTERRUPTED,
            Self::NoNodes { .. } | Self::Deleted { .. } | Self::Request(_) | Self::Signal(_) => exit::ERROR,
        }
    }
}

/// Waits for a Prefetch as it was applied. Without a timeout there is no end to it.
pub(crate) async fn until_ready(
    cluster: &Cluster,
    applied: &Prefetch,
    timeout: Option<Duration>,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let mut waiter = Waiter::new(cluster, applied, progress);
    let result = waiter.run(timeout).await;
    if result.is_ok() {
        let line = waiter.success();
        waiter.progress.tell(&line);
    }
    match result {
        Err(Error::Interrupted { .. }) => waiter.progress.abandon(),
        _ => waiter.progress.finish(),
    }
    result
}

struct Waiter<'a> {
    cluster: &'a Cluster,
    name: String,
    generation: i64,
    prefetch: Prefetch,
    matrix: Matrix,
    nodes: Option<BoxStream<'static, watcher::Result<Event<NodeImages>>>>,
    nodes_are_forbidden: bool,
    told: BTreeSet<(String, String, FailureReason)>,
    is_disconnected: bool,
    began: Instant,
    progress: &'a mut dyn Progress,
}

impl<'a> Waiter<'a> {
    fn new(cluster: &'a Cluster, applied: &Prefetch, progress: &'a mut dyn Progress) -> Self {
        Self {
            cluster,
            name: applied.name_any(),
            generation: applied.metadata.generation.unwrap_or_default(),
            prefetch: applied.clone(),
            matrix: Matrix::new([applied]),
            nodes: None,
            nodes_are_forbidden: false,
            told: BTreeSet::new(),
            is_disconnected: false,
            began: Instant::now(),
            progress,
        }
    }

    async fn run(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let api: Api<Prefetch> = Api::namespaced(self.cluster.client().clone(), self.cluster.namespace());
        let only_this = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut prefetches = pin!(watcher(api, only_this).backoff(Steady));
        let mut interrupted = pin!(tokio::signal::ctrl_c());
        let mut unseen = pin!(sleep(PATIENCE));
        let mut is_patient = true;
        let end = timeout.unwrap_or(human::YEAR);
        let mut end_of_time = pin!(sleep_until((self.began + end).into()));
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_changed = true;
        let mut is_there = false;
        loop {
            tokio::select! {
                biased;
                result = &mut interrupted => {
                    result.map_err(Error::Signal)?;
                    return Err(Error::Interrupted { prefetch: self.full_name(), follow: self.follow() });
                }
                () = &mut end_of_time => return Err(self.timed_out(end)),
                Some(event) = prefetches.next() => {
                    is_changed = true;
                    match event {
                        Ok(Event::Init) => is_there = false,
                        Ok(Event::Apply(prefetch) | Event::InitApply(prefetch)) => {
                            is_there = true;
                            self.is_disconnected = false;
                            self.prefetch = prefetch;
                        }
                        Ok(Event::InitDone) if is_there => {}
                        Ok(Event::InitDone | Event::Delete(_)) => return Err(Error::Deleted { prefetch: self.full_name() }),
                        Err(error) => self.survive(&error)?,
                    }
                    self.watch_nodes();
                    self.tell_failures();
                    if self.is_over()? {
                        return Ok(());
                    }
                }
                Some(event) = next(&mut self.nodes) => {
                    is_changed = true;
                    self.take(event);
                    self.tell_failures();
                    if self.is_over()? {
                        return Ok(());
                    }
                }
                () = &mut unseen, if is_patient => {
                    is_patient = false;
                    if judge::judge(&self.prefetch, self.generation) == Verdict::Unseen {
                        self.progress.tell(&format!(
                            "warning: Coral's controller has not looked at prefetch {} yet; waiting on\nhint: {UNSEEN_HINT}",
                            self.full_name()
                        ));
                    }
                }
                _ = redraw.tick() => {
                    if std::mem::take(&mut is_changed) {
                        let snapshot = self.snapshot();
                        self.progress.update(&snapshot);
                    }
                }
            }
        }
    }

    /// Whether the wait is over, well or badly.
    fn is_over(&self) -> Result<bool, Error> {
        match judge::judge(&self.prefetch, self.generation) {
            Verdict::Unseen | Verdict::Waiting => Ok(false),
            Verdict::Ready => Ok(true),
            Verdict::NoNodes => {
                let selector = self.prefetch.spec.node_selector.as_ref().map(selector::display);
                let message = match selector.filter(|text| !text.is_empty()) {
                    Some(selector) => format!("no node matches {selector}"),
                    None => "the cluster has no Linux node that is fit for it".to_owned(),
                };
                Err(Error::NoNodes {
                    prefetch: self.full_name(),
                    message,
                })
            }
            Verdict::Stalled(message) => {
                let failures = failures::group(failures::collect(&self.matrix, [&self.prefetch]));
                let mut text = failures::render(&failures, Timestamp::now());
                if text.is_empty() {
                    text = message;
                }
                Err(Error::ImagesFailed {
                    prefetch: self.full_name(),
                    failures: text,
                })
            }
        }
    }

    /// Begins to watch the nodes, once it is known that they are few enough.
    fn watch_nodes(&mut self) {
        let is_known = judge::judge(&self.prefetch, self.generation) != Verdict::Unseen;
        let nodes = self.prefetch.status.as_ref().map_or(0, |status| status.nodes.desired);
        if self.nodes.is_some() || self.nodes_are_forbidden || !is_known || nodes > MOST_WATCHED_NODES {
            return;
        }
        let api: Api<NodeImages> = Api::all(self.cluster.client().clone());
        self.nodes = Some(watcher(api, watcher::Config::default()).backoff(Steady).boxed());
    }

    fn take(&mut self, event: watcher::Result<Event<NodeImages>>) {
        match event {
            Ok(Event::Init) => self.matrix.clear(),
            Ok(Event::Apply(node) | Event::InitApply(node)) => self.matrix.insert(&node, Timestamp::now()),
            Ok(Event::Delete(node)) => self.matrix.remove(&node.name_any()),
            Ok(Event::InitDone) => {}
            Err(error) => {
                // Whoever may not read the nodes has the summary in the Prefetch. A broken connection is told by its watch.
                if matches!(self.sorted(&error), Some(RequestError::Forbidden { .. })) {
                    self.nodes = None;
                    self.nodes_are_forbidden = true;
                }
            }
        }
    }

    /// Goes on after a watch broke, unless it would break again for the same reason.
    fn survive(&mut self, error: &watcher::Error) -> Result<(), Error> {
        match self.sorted(error) {
            Some(
                error @ (RequestError::Forbidden { .. }
                | RequestError::Unauthorized { .. }
                | RequestError::NotInstalled),
            ) => Err(Error::Request(error)),
            Some(error @ RequestError::Unreachable { .. }) if !self.is_disconnected => {
                self.is_disconnected = true;
                self.progress.tell(&format!("warning: {error}; trying again"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sorted(&self, error: &watcher::Error) -> Option<RequestError> {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Some(self.cluster.sort_error(error)),
            watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
        }
    }

    /// Tells each failure when it is seen first.
    fn tell_failures(&mut self) {
        for failure in failures::collect(&self.matrix, [&self.prefetch]) {
            let key = (failure.node.clone(), failure.image.clone(), failure.reason);
            if !self.told.insert(key) {
                continue;
            }
            match self.told.len() {
                ..=MOST_FAILURES_TOLD => self.progress.tell(&failure.line()),
                told if told == MOST_FAILURES_TOLD + 1 => {
                    self.progress.tell(&format!("more failures: see `{}`", self.follow()));
                }
                _ => {}
            }
        }
    }

    fn timed_out(&self, after: Duration) -> Error {
        let is_unseen = judge::judge(&self.prefetch, self.generation) == Verdict::Unseen;
        Error::TimedOut {
            prefetch: self.full_name(),
            after,
            missing: if is_unseen {
                "Coral's controller has not looked at it".to_owned()
            } else {
                judge::missing(&self.prefetch, &self.matrix)
            },
            follow: self.follow(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(&self.prefetch, &self.matrix, !self.nodes_are_forbidden)
    }

    fn success(&self) -> String {
        let Snapshot { nodes, images, .. } = self.snapshot();
        format!(
            "prefetch {} is ready: {} on {}, {}",
            self.full_name(),
            human::counted(images, "image"),
            human::counted(nodes, "node"),
            human::elapsed(self.began.elapsed())
        )
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.cluster.namespace(), self.name)
    }

    fn follow(&self) -> String {
        format!("kubectl coral status {} -n {}", self.name, self.cluster.namespace())
    }
}

/// The next event, or none as long as nobody is watched.
async fn next<T>(stream: &mut Option<BoxStream<'static, T>>) -> Option<T> {
    stream.as_mut()?.next().await
}

/// The same pause every time: somebody is waiting, and one person does not overrun a server.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(RECONNECT_PAUSE)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}
