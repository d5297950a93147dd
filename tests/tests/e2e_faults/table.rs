//! The table of faults. `docs/faults.md` has a row for each.

use std::time::Duration;

use coral_tests::faulty_registry::Conduct;

/// How long anything may take that is only a matter of work, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// How long a kubelet lets a container wait that has died again and again: 10 s at the second time, then 20, 40 and so on. It forgets it after ten
/// minutes in which the container ran.
pub(crate) const LONGEST_BACK_OFF: Duration = Duration::from_mins(5);
/// The row in which nobody is there to take a label away.
pub(crate) const AGENTS_KILLED: &str = "agents killed";

/// One fault.
#[derive(Debug)]
pub(crate) struct Row {
    /// What happens, as in `docs/faults.md`.
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    /// How long it lasts.
    pub(crate) lasting: Duration,
    /// How long everything may take to be right when it is over.
    pub(crate) allowed: Duration,
    /// How often each node may pull an image of this row.
    pub(crate) most_pulls: usize,
}

/// What to do to the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process is killed in the middle of a pull.
    Killed(Victim),
    /// The registry of one image conducts itself like this; one of these reasons stands in the status meanwhile, if there is any.
    Registry(Conduct, &'static [&'static str]),
    /// The agents lose the API server.
    CutOff,
    /// The disk of a node fills up, and its kubelet collects images.
    DiskFills,
    /// The clock of an agent is put forward by an hour, and then back.
    ClockJumps,
    /// A node is deleted, and a new machine has its name.
    NodeReplaced,
    /// So many Prefetches are created and deleted at once.
    Storm(usize),
}

/// Whom a kill hits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Victim {
    Agent,
    /// The controller that leads.
    Leader,
    /// Every replica of the webhook.
    Webhook,
    Containerd,
    Kubelet,
    ApiServer,
    Etcd,
}

impl Victim {
    /// What runs in pods, and as how many processes.
    pub(crate) const fn in_pods(self) -> Option<(&'static str, usize)> {
        match self {
            Self::Agent => Some(("/coral-agent", 3)),
            Self::Leader => Some(("/coral-controller", 2)),
            Self::Webhook => Some(("/coral-webhook", 2)),
            Self::Containerd | Self::Kubelet | Self::ApiServer | Self::Etcd => None,
        }
    }
}

const fn row(name: &'static str, fault: Fault, lasting: u64, allowed: u64, most_pulls: usize) -> Row {
    Row {
        name,
        fault,
        lasting: Duration::from_secs(lasting),
        allowed: Duration::from_secs(allowed),
        most_pulls,
    }
}

/// Faults that are each of one registry, one disk or one clock: they are played at the same time.
pub(crate) const TOGETHER: &[Row] = &[
    row(
        "registry down",
        Fault::Registry(Conduct::Down, &["RegistryUnavailable"]),
        10,
        90,
        3,
    ),
    row("registry at 1 KB/s", Fault::Registry(Conduct::Slow, &[]), 10, 60, 3),
    row(
        "registry cuts connections",
        Fault::Registry(Conduct::Cuts, &[]),
        10,
        90,
        8,
    ),
    row(
        "registry answers 429",
        Fault::Registry(Conduct::Limits, &["RateLimited"]),
        10,
        90,
        3,
    ),
    row(
        "registry answers 500",
        Fault::Registry(Conduct::Fails, &["RegistryUnavailable"]),
        10,
        90,
        3,
    ),
    row(
        "registry sends wrong bytes",
        Fault::Registry(Conduct::Corrupts, &["RegistryUnavailable", "Unknown"]),
        10,
        90,
        8,
    ),
    row(
        "registry takes tokens for expired",
        Fault::Registry(Conduct::Expires, &["Unauthorized"]),
        10,
        90,
        3,
    ),
    row("disk fills up", Fault::DiskFills, 0, 240, 8),
    row("clock set back by an hour", Fault::ClockJumps, 12, 60, 3),
];

/// Faults that are played one after another.
pub(crate) const ALONE: &[Row] = &[
    row(AGENTS_KILLED, Fault::Killed(Victim::Agent), 0, 90, 4),
    row("leading controller killed", Fault::Killed(Victim::Leader), 0, 120, 3),
    row("webhook killed", Fault::Killed(Victim::Webhook), 0, 90, 3),
    row("containerd killed", Fault::Killed(Victim::Containerd), 4, 90, 5),
    row("kubelet killed", Fault::Killed(Victim::Kubelet), 8, 90, 3),
    row("API server killed", Fault::Killed(Victim::ApiServer), 5, 120, 3),
    row("etcd killed", Fault::Killed(Victim::Etcd), 5, 120, 3),
    row("agents cut off from the API server", Fault::CutOff, 20, 120, 3),
    row("node replaced by another of its name", Fault::NodeReplaced, 0, 120, 3),
    row("1,000 Prefetches at once", Fault::Storm(1_000), 0, 240, 3),
];
