//! Everything that can end a command, and how it ends.

use std::{io, process::ExitCode, time::Duration};

use crate::{
    client::{ConnectError, RequestError},
    commands::install::registry::RegistryError,
    exit, human,
    images::InvalidImages,
    manifests::InvalidManifest,
    mirror,
    printer::Printer,
    wait,
};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Images(#[from] InvalidImages),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("failed to apply prefetch {namespace}/{name}: {message}")]
    FieldConflict {
        namespace: String,
        name: String,
        message: String,
    },
    #[error("prefetch {} not found in namespace {namespace}", quoted(.names))]
    NoSuchPrefetch {
        namespace: String,
        names: Vec<String>,
        near: Vec<String>,
    },
    #[error("failed to read {path}: {reason}")]
    File { path: String, reason: String },
    #[error("--watch shows a table, so it goes with -o table and -o wide")]
    WatchNeedsTable,
    #[error("failed to change {object}: {reason}")]
    Refused { object: String, reason: String },
    #[error("the pods of {object} cannot be changed any more")]
    FixedTemplate { object: String },
    #[error("there are no images in {place}")]
    NoImages { place: String },
    #[error("node {} not found", quoted(.names))]
    UnknownNode { names: Vec<String>, near: Vec<String> },
    #[error("Coral has nothing on node {}", quoted(.names))]
    NoSuchNode { names: Vec<String>, near: Vec<String> },
    #[error(
        "Coral's controller did not note within {} that the images of prefetch {prefetch} are to go; nothing was deleted",
        human::duration(*after)
    )]
    RemovalNotNoted { prefetch: String, after: Duration },
    #[error("failed to choose an image: this is a development build, and no registry has one of it")]
    NoImage,
    #[error("Coral is installed in namespace {namespace}, and cannot be in {wanted}, too")]
    InstalledElsewhere { namespace: String, wanted: String },
    #[error("Coral is not installed in this cluster, so there is nothing to upgrade")]
    NothingToUpgrade,
    #[error("nothing was uninstalled, because nobody agreed to it")]
    NotConfirmed,
    #[error("without Coral, new pods of {workloads} find no node, or no image")]
    WouldStrand { workloads: String },
    #[error(
        "timed out after {} waiting until {object} is gone{}",
        human::duration(*after),
        if held_by.is_empty() { String::new() } else { format!(", which its finalizers hold: {}", held_by.join(", ")) }
    )]
    NotGone {
        object: String,
        after: Duration,
        held_by: Vec<String>,
    },
    #[error("failed to apply {object}: {message}")]
    ApplyConflict { object: String, message: String },
    #[error("timed out after {} waiting until Coral runs: {waiting}", human::duration(*after))]
    NotRunning {
        after: Duration,
        waiting: String,
        namespace: String,
    },
    #[error(transparent)]
    Mirror(#[from] mirror::Error),
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Wait(#[from] wait::Error),
    #[error("failed to write the output: {0}")]
    Output(#[from] io::Error),
    #[error("failed to start: {0}")]
    Runtime(io::Error),
    #[error("failed to write an object as text: {0}")]
    Format(String),
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::Connect(error) => error.hint(),
            Self::Request(error) => error.hint(),
            Self::FieldConflict { .. } => Some(
                "somebody else manages these fields: change them there, or make a Prefetch of your own with another --name"
                    .to_owned(),
            ),
            Self::NoSuchPrefetch { near, namespace, .. } if near.is_empty() => Some(format!(
                "`kubectl coral status -n {namespace}` lists those that are there, -A those of all namespaces"
            )),
            Self::NoSuchNode { near, .. } if near.is_empty() => Some(
                "no Prefetch asks it for anything, or there is no such node: `kubectl get nodes`".to_owned(),
            ),
            Self::UnknownNode { near, .. } if near.is_empty() => Some("kubectl get nodes".to_owned()),
            Self::NoSuchPrefetch { near, .. } | Self::NoSuchNode { near, .. } | Self::UnknownNode { near, .. } => Some(format!("did you mean {}?", near.join(" or "))),
            Self::RemovalNotNoted { .. } => Some(format!(
                "{}. spec.removalPolicy is Remove now, so the same command goes on from here; without --remove-images the Prefetch is deleted at once",
                wait::UNSEEN_HINT
            )),
            Self::NoImage => Some(
                "name one with --image; `cargo xtask image registry.example/coral:dev` builds and pushes the image of a checkout"
                    .to_owned(),
            ),
            Self::InstalledElsewhere { namespace, .. } => Some(format!(
                "`kubectl coral upgrade` acts on the one in {namespace}; to move it, `kubectl coral uninstall --keep-crds` it first"
            )),
            Self::NothingToUpgrade => Some("kubectl coral install".to_owned()),
            Self::ApplyConflict { .. } => Some(
                "somebody else manages these fields: let them go on with it, or take the fields over with --force-conflicts"
                    .to_owned(),
            ),
            Self::FixedTemplate { .. } => Some(
                "change what makes it, such as its CronJob, or its manifest before it is applied: `kubectl coral inject -f FILE`".to_owned(),
            ),
            Self::NotConfirmed => Some("--yes agrees to it".to_owned()),
            Self::WouldStrand { .. } => Some(
                "--uninject takes back what was injected, which replaces their pods; --leave-injected leaves them as they are".to_owned(),
            ),
            Self::NotGone { .. } => Some("the same command again goes on from here; --timeout waits longer".to_owned()),
            Self::NotRunning { namespace, .. } => Some(format!("kubectl -n {namespace} get pods; kubectl -n {namespace} get events")),
            Self::Wait(error) => error.hint(),
            Self::Mirror(error) => error.hint(),
            Self::File { .. } => Some("a path begins in the folder that you are in; - is standard input".to_owned()),
            Self::NoImages { .. } => Some(
                "images are those of Pods and of what makes Pods: Deployments, StatefulSets, DaemonSets, Jobs, CronJobs".to_owned(),
            ),
            Self::Output(_) | Self::Runtime(_) | Self::Format(_) | Self::Manifest(_) | Self::Registry(_) | Self::WatchNeedsTable | Self::Refused { .. } => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Images(_) | Self::WatchNeedsTable => exit::USAGE,
            Self::NotRunning { .. } | Self::NotGone { .. } => exit::TIMED_OUT,
            Self::Wait(error) => error.exit_code(),
            Self::Mirror(error) => error.exit_code(),
            // The reader has what it wanted: `kubectl coral status | head -1`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::SUCCESS,
            _ => exit::ERROR,
        }
    }

    /// Says what happened and what to do, and gives the exit code.
    pub(crate) fn report(&self, printer: &Printer) -> ExitCode {
        let code = self.exit_code();
        if code != exit::SUCCESS {
            printer.note(format_args!("error: {self}"));
            if let Some(hint) = self.hint() {
                printer.hint(hint);
            }
        }
        ExitCode::from(code)
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}
