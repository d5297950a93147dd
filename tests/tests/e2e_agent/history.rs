//! Everything that becomes of one NodeImages object, as the API server tells it.

use std::time::{Duration, Instant};

use coral_api::{NodeImages, NodeImagesStatus};
use futures::StreamExt as _;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use tokio::{sync::watch, task::JoinHandle};

/// The object after one change.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When the change was told.
    pub(crate) at: Instant,
    /// `metadata.generation`; none when the object is gone.
    pub(crate) generation: Option<i64>,
    /// What the agent says, if it has said anything.
    pub(crate) status: NodeImagesStatus,
}

/// A watch that remembers.
pub(crate) struct History {
    seen: watch::Receiver<Vec<Seen>>,
    task: JoinHandle<()>,
}

impl History {
    /// Begins to watch the object `name`, which need not be there yet.
    pub(crate) fn start(api: Api<NodeImages>, name: &str) -> Self {
        let (tx, seen) = watch::channel(Vec::new());
        let parameters = WatchParams::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut events = api.watch(&parameters, "0").await.unwrap().boxed();
            // Longer than any case takes: the API server ends a watch after minutes.
            while let Some(event) = events.next().await {
                let (object, is_there) = match event.unwrap() {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                    WatchEvent::Deleted(object) => (object, false),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(error) => panic!("{error:?}"),
                };
                let seen = Seen {
                    at: Instant::now(),
                    generation: object.metadata.generation.filter(|_| is_there),
                    status: object.status.unwrap_or_default(),
                };
                tx.send_modify(|all| all.push(seen));
            }
        });
        Self { seen, task }
    }

    /// All changes so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until the newest state of the object is as it should be.
    pub(crate) async fn until(&self, what: &str, patience: Duration, is_so: impl Fn(&Seen) -> bool) -> Seen {
        self.until_all(what, patience, |all| all.last().is_some_and(&is_so))
            .await
    }

    /// Waits until all that has become of the object is as it should be; returns the newest state.
    pub(crate) async fn until_all(&self, what: &str, patience: Duration, is_so: impl Fn(&[Seen]) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(patience, seen.wait_for(|all| is_so(all))).await;
        match found {
            Ok(Ok(all)) => return all.last().unwrap().clone(),
            Ok(Err(_)) => panic!("the watch ended while waiting for {what}"),
            Err(_) => {}
        }
        let last = self.all().pop();
        let status = last.map(|seen| serde_json::to_string(&seen.status).unwrap());
        panic!("waited {patience:?} for {what}; last seen: {status:?}");
    }

    /// How often the status has changed.
    pub(crate) fn status_changes(&self) -> usize {
        let all = self.seen.borrow();
        let mut previous = &NodeImagesStatus::default();
        let mut changes = 0;
        for seen in all.iter() {
            changes += usize::from(seen.status != *previous);
            previous = &seen.status;
        }
        changes
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}
