//! Takes part in the election, and says when its controller leads.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tracing::Instrument as _;

use super::{Decision, LeaseOptions, Moment, decide, held, released};

/// How long a stop waits for the Lease to be given back. Without that the next leader waits for as long as after a crash.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// A time in office.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Tenure {
    /// Which one it is: what a controller remembers of an earlier one is no longer true.
    number: u64,
    /// When it ends, unless it is renewed.
    until: Moment,
}

/// Whether the controller leads.
pub struct Leadership {
    tenure_rx: watch::Receiver<Option<Tenure>>,
    release_tx: Option<oneshot::Sender<()>>,
    /// The election. It ends with its controller, however that ends.
    task: JoinSet<()>,
}

impl Leadership {
    /// Leads for ever, without asking anybody.
    #[must_use]
    pub fn unquestioned() -> Self {
        let forever = Tenure {
            number: 1,
            until: Moment::NEVER,
        };
        Self {
            tenure_rx: watch::channel(Some(forever)).1,
            release_tx: None,
            task: JoinSet::new(),
        }
    }

    /// Stands for election.
    #[must_use]
    pub fn elected(client: Client, options: LeaseOptions, identity: String) -> Self {
        let (tenure_tx, tenure_rx) = watch::channel(None);
        let (release_tx, release_rx) = oneshot::channel();
        let span = tracing::info_span!("election", lease = %options.name);
        let candidate = Candidate {
            api: Api::namespaced(client, &options.namespace),
            options,
            identity,
            seen: None,
            tenures: 0,
            tenure_tx,
        };
        let mut task = JoinSet::new();
        task.spawn(candidate.run(release_rx).instrument(span));
        Self {
            tenure_rx,
            release_tx: Some(release_tx),
            task,
        }
    }

    /// The number of the tenure, while the controller leads.
    #[must_use]
    pub fn tenure(&self) -> Option<u64> {
        let tenure = *self.tenure_rx.borrow();
        tenure
            .filter(|tenure| Moment::now() < tenure.until)
            .map(|tenure| tenure.number)
    }

    /// Completes when [`tenure`](Self::tenure) is no longer `known`.
    pub async fn is_other_than(&mut self, known: Option<u64>) {
        while self.tenure() == known {
            let tenure = *self.tenure_rx.borrow_and_update();
            let end = tenure
                .filter(|_| known.is_some())
                .map_or(Moment::NEVER, |tenure| tenure.until);
            tokio::select! {
                () = end.come() => {}
                changed = self.tenure_rx.changed() => if changed.is_err() {
                    // Nobody questions the leadership, or the election has ended: then only the time can end it.
                    end.come().await;
                }
            }
        }
    }

    /// Gives the Lease away. The controller has stopped writing.
    pub async fn release(mut self) {
        let Some(release_tx) = self.release_tx.take() else {
            return;
        };
        let _ = release_tx.send(());
        if tokio::time::timeout(RELEASE_TIMEOUT, self.task.join_next())
            .await
            .is_err()
        {
            tracing::warn!("The Lease could not be given away; the next leader has to wait until it expires");
        }
    }
}

/// One who wants to lead.
struct Candidate {
    api: Api<Lease>,
    options: LeaseOptions,
    identity: String,
    /// The Lease as it was last seen, and since when it has been so.
    seen: Option<(Lease, Moment)>,
    tenures: u64,
    tenure_tx: watch::Sender<Option<Tenure>>,
}

impl Candidate {
    async fn run(mut self, mut release_rx: oneshot::Receiver<()>) {
        loop {
            let pause = tokio::select! {
                pause = self.step() => pause,
                _ = &mut release_rx => break,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut release_rx => break,
            }
        }
        self.release().await;
    }

    /// One look at the Lease, or one renewal. Returns how long to wait before the next.
    async fn step(&mut self) -> Duration {
        let began = Moment::now();
        let result = tokio::time::timeout(self.patience(began), self.look_and_act(began)).await;
        match result {
            Ok(Ok(())) => {}
            // Somebody else was faster, or the Lease is not what it was: it is looked at anew.
            Ok(Err(error)) if is_outdated(&error) => {
                self.seen = None;
                return self.options.retry_period / 20;
            }
            Ok(Err(error)) => tracing::warn!(error = %error, "The Lease could not be read or written"),
            Err(_) => tracing::warn!("The API server is silent about the Lease"),
        }
        let is_over = |tenure: Option<Tenure>| tenure.is_some_and(|tenure| tenure.until <= Moment::now());
        if is_over(*self.tenure_tx.borrow()) {
            tracing::warn!("The Lease could not be renewed in time; this controller leads no longer");
            self.tenure_tx.send_replace(None);
        }
        if self.tenure_tx.borrow().is_some() {
            self.options.retry_period
        } else {
            self.options.retry_period / 2
        }
    }

    /// How long an answer may take: several attempts fit in before the deadline.
    fn patience(&self, now: Moment) -> Duration {
        let third = self.options.renew_deadline / 3;
        match *self.tenure_tx.borrow() {
            Some(tenure) => third.min(tenure.until - now),
            None => third,
        }
    }

    async fn look_and_act(&mut self, began: Moment) -> Result<(), kube::Error> {
        let leads = self.tenure_tx.borrow().is_some();
        // A leader knows what it wrote, and is told by a conflict when that is no longer so.
        if !leads || self.seen.is_none() {
            self.look().await?;
        }
        let (lease, since) = self.seen.clone().unzip();
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        match decide(spec, &self.identity, &self.options, since.unwrap_or(began), began) {
            Decision::Acquire | Decision::Renew => self.hold(lease, began).await,
            Decision::Wait { .. } => {
                if leads {
                    tracing::warn!("Another controller has taken the Lease; this one leads no longer");
                    self.tenure_tx.send_replace(None);
                }
                Ok(())
            }
        }
    }

    /// Reads the Lease. Any change of what it says is a sign of life of its holder, whatever the times in it are.
    async fn look(&mut self) -> Result<(), kube::Error> {
        let found = self.api.get_opt(&self.options.name).await?;
        let now = Moment::now();
        self.seen = found.map(|lease| match self.seen.take() {
            Some((seen, since)) if seen.spec == lease.spec => (lease, since),
            _ => (lease, now),
        });
        Ok(())
    }

    /// Acquires or renews the Lease. The tenure counts from before the request: later, nobody can have seen it.
    async fn hold(&mut self, lease: Option<Lease>, began: Moment) -> Result<(), kube::Error> {
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let spec = held(spec, &self.identity, &self.options, Timestamp::now());
        let parameters = PostParams::default();
        let lease = if let Some(mut lease) = lease {
            lease.spec = Some(spec);
            self.api.replace(&self.options.name, &parameters, &lease).await?
        } else {
            let metadata = ObjectMeta {
                name: Some(self.options.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec),
            };
            self.api.create(&parameters, &lease).await?
        };
        self.seen = Some((lease, Moment::now()));
        let tenure = *self.tenure_tx.borrow();
        // A tenure that has run out in the meantime is not taken up again: what was planned in it is gone.
        let number = if let Some(tenure) = tenure.filter(|tenure| Moment::now() < tenure.until) {
            tenure.number
        } else {
            self.tenures += 1;
            tracing::info!(identity = self.identity, "This controller leads");
            self.tenures
        };
        let until = began + self.options.renew_deadline;
        self.tenure_tx.send_replace(Some(Tenure { number, until }));
        Ok(())
    }

    /// Gives the Lease away, if it is this candidate's.
    async fn release(&mut self) {
        if self.tenure_tx.send_replace(None).is_none() {
            return;
        }
        let mut result = self.give_away().await;
        // A renewal that was under way has arrived all the same.
        if result.as_ref().is_err_and(is_outdated) {
            self.seen = None;
            result = self.look().await;
            if result.is_ok() {
                result = self.give_away().await;
            }
        }
        match result {
            Ok(()) => tracing::info!("The Lease is given away"),
            Err(error) => tracing::warn!(error = %error, "The Lease could not be given away"),
        }
    }

    async fn give_away(&mut self) -> Result<(), kube::Error> {
        let Some((mut lease, _)) = self.seen.clone() else {
            return Ok(());
        };
        let Some(spec) = lease
            .spec
            .filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        else {
            return Ok(());
        };
        lease.spec = Some(released(&spec, Timestamp::now()));
        let parameters = PostParams::default();
        self.api
            .replace(&self.options.name, &parameters, &lease)
            .await
            .map(|_| ())
    }
}

/// Whether the Lease is not what it was taken for.
fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found())
}
