//! Controllers in this process.

use coral_controller::{Controller, Options, metrics::Metrics};
use coral_tests::hollow::Tally;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::ground::Ground;

/// A controller that runs. It dies when this is dropped.
pub(crate) struct Running {
    /// What it has written.
    pub(crate) tally: Tally,
    pub(crate) metrics: Metrics,
    task: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
}

impl Running {
    pub(crate) fn start(ground: &Ground, options: Options) -> Self {
        let tally = Tally::default();
        let client = tally.client(ground.plane.config()).unwrap();
        let controller = Controller::new(client, options);
        let metrics = controller.metrics();
        let (shutdown, asked_to_stop) = oneshot::channel();
        let task = tokio::spawn(controller.run(async {
            let _ = asked_to_stop.await;
        }));
        Self {
            tally,
            metrics,
            task,
            shutdown,
        }
    }

    /// Ends it as SIGTERM does, and waits for it.
    pub(crate) async fn stop(mut self) {
        let (shutdown, _) = oneshot::channel();
        let shutdown = std::mem::replace(&mut self.shutdown, shutdown);
        let _ = shutdown.send(());
        (&mut self.task).await.unwrap();
    }

    /// Ends it as SIGKILL does: it releases nothing and tells nobody.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Whether it is still the one that was started.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
