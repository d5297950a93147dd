//! An independent checker: compares what Coral says with what every node's containerd holds.
//!
//! It knows nothing of Coral's code. What it relies on is what is promised to users: the label of an image by its hash,
//! `Prefetch.status` and `NodeImages.status`. What is really on a node it asks of that node's container runtime, through CRI.
//!
//! ```text
//!   Nodes, Prefetches, NodeImages ──lists──► Claims ─┐
//!                                                    ├─ wrongs() ──► Verdict      since when is everything right?
//!   every node's containerd ──CRI ListImages──► Truth┤
//!                                                    └─ Lies ──► the longest time that a label claimed what was gone
//! ```

mod claims;
mod compare;
mod leaks;
mod lies;
mod truth;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use self::{claims::Claims, lies::Lies, truth::Truth};
pub use self::{
    compare::{Kind, Wrong},
    leaks::{Footprint, footprints, unfinished_downloads},
    lies::Lie,
};
use crate::cluster::Cluster;

/// How often the checker looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long the API server or a containerd may take to answer; then it counts as silent, and nothing is known of it.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What one look has shown.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// When the look began: what was done before is in it.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What is not as it should be.
    pub wrongs: Vec<Wrong>,
}

/// A checker that looks all the time. It ends when it is dropped.
pub struct Checker {
    verdicts: watch::Receiver<Option<Arc<Verdict>>>,
    lies: Arc<Mutex<Lies>>,
    task: JoinHandle<()>,
}

impl Checker {
    /// Begins to look at a cluster.
    #[must_use]
    pub fn start(cluster: Arc<Cluster>) -> Self {
        let (verdict_tx, verdicts) = watch::channel(None);
        let lies = Arc::new(Mutex::new(Lies::default()));
        let task = tokio::spawn(watch_cluster(cluster, Arc::clone(&lies), verdict_tx));
        Self { verdicts, lies, task }
    }

    /// What the last look has shown, if there was one.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Verdict>> {
        self.verdicts.borrow().clone()
    }

    /// Waits for a look that began after `since` and in which nothing that `concerns` is wrong, and returns how long after `since` it
    /// ended.
    ///
    /// # Errors
    /// After `patience`, with what is wrong then.
    pub async fn right(
        &self,
        since: Instant,
        patience: Duration,
        concerns: impl Fn(&Wrong) -> bool,
    ) -> Result<Duration> {
        let mut verdicts = self.verdicts.clone();
        let mut wrong = vec!["nothing was seen".to_owned()];
        let right = async {
            loop {
                let seen = verdicts.borrow_and_update().clone();
                if let Some(verdict) = seen.filter(|verdict| verdict.began >= since) {
                    wrong = verdict
                        .wrongs
                        .iter()
                        .filter(|it| concerns(it))
                        .map(ToString::to_string)
                        .collect();
                    if wrong.is_empty() {
                        return Ok(verdict.ended - since);
                    }
                }
                verdicts.changed().await.context("the checker has ended")?;
            }
        };
        let left = patience.saturating_sub(since.elapsed());
        let in_time = tokio::time::timeout(left, right).await;
        in_time.unwrap_or_else(|_| {
            wrong.truncate(8);
            bail!(
                "after {} s still wrong: {}",
                since.elapsed().as_secs(),
                wrong.join("; ")
            )
        })
    }

    /// Notes that from now on something else is being done to the cluster; what comes of it is told by this name.
    pub fn during(&self, what: &str) {
        lock(&self.lies).during(what);
    }

    /// Labels that claimed an image that was gone, each with how long at least, the longest first.
    #[must_use]
    pub fn lies(&self) -> Vec<Lie> {
        lock(&self.lies).all()
    }

    /// How long the longest look took that had an answer: as exact is what was measured.
    #[must_use]
    pub fn longest_look(&self) -> Duration {
        lock(&self.lies).longest_look()
    }

    /// How many looks there were at the labels.
    #[must_use]
    pub fn looks(&self) -> usize {
        lock(&self.lies).looks()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(lies: &Mutex<Lies>) -> std::sync::MutexGuard<'_, Lies> {
    lies.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch_cluster(cluster: Arc<Cluster>, lies: Arc<Mutex<Lies>>, verdict_tx: watch::Sender<Option<Arc<Verdict>>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let wrongs = match look(&cluster, &lies).await {
            Ok(wrongs) => wrongs,
            Err(error) => vec![Wrong::new(Kind::Silent, "the cluster", format!("{error:#}"))],
        };
        let verdict = Verdict {
            began,
            ended: Instant::now(),
            wrongs,
        };
        verdict_tx.send_replace(Some(Arc::new(verdict)));
    }
}

/// What is claimed is asked for between two looks at what is really there: only what was so before and after was so at that moment.
async fn look(cluster: &Cluster, lies: &Mutex<Lies>) -> Result<Vec<Wrong>> {
    let began = Instant::now();
    let before = Truth::ask(cluster).await?;
    lock(lies).holds(&before, Instant::now());
    let asked = Instant::now();
    let claims = ask(cluster.client()).await?;
    let after = Truth::ask(cluster).await?;
    {
        let mut lies = lock(lies);
        lies.knows(claims.images());
        lies.claimed(&claims.labels(), asked, &after);
        lies.looked(began.elapsed());
    }
    Ok(if before == after {
        compare::wrongs(&claims, &after)
    } else {
        vec![Wrong::new(Kind::Moving, "the cluster", "images come and go".to_owned())]
    })
}

async fn ask(client: Client) -> Result<Claims> {
    tokio::time::timeout(TIMEOUT, Claims::ask(client))
        .await
        .context("the API server gives no answer")?
}
