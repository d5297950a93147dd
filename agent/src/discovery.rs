//! Finding the socket of the container runtime.

use std::{
    fmt,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::runtime::{BoxError, Runtime};

/// Where runtimes listen, below the node's `/run`, in the order in which they are tried. `MicroK8s` has its socket elsewhere,
/// below `/var/snap`, and needs `--runtime-endpoint`.
pub const SOCKETS: [&str; 5] = [
    "containerd/containerd.sock",
    // k3s and RKE2.
    "k3s/containerd/containerd.sock",
    "k0s/containerd.sock",
    "crio/crio.sock",
    "cri-dockerd.sock",
];

/// How long a socket may take to say which runtime it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// No socket answers.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) struct NotFound {
    folder: PathBuf,
    /// What is wrong with each socket, in the order of the table.
    looked_for: Vec<(&'static str, Fault)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Missing,
    NoSocket,
    NoAnswer,
}

impl fmt::Display for NotFound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "looked below {} for", self.folder.display())?;
        for (index, (socket, fault)) in self.looked_for.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let fault = match fault {
                Fault::Missing => "not there",
                Fault::NoSocket => "no socket",
                Fault::NoAnswer => "does not speak CRI",
            };
            write!(formatter, "{comma} {socket} ({fault})")?;
        }
        formatter.write_str("; --runtime-endpoint names any other")
    }
}

/// A connection to the first runtime below `folder` that answers. It is looked for whenever a connection is to be made, until it is
/// found; from then on it is the one, for where two runtimes run, the other must not take over while the first restarts.
pub(crate) fn connect_lazy(folder: PathBuf) -> Channel {
    let found: Arc<OnceLock<PathBuf>> = Arc::default();
    let connector = service_fn(move |_: http::Uri| {
        let (folder, found) = (folder.clone(), Arc::clone(&found));
        async move {
            let socket = if let Some(socket) = found.get() {
                socket.clone()
            } else {
                let socket = find(&folder).await?;
                found.get_or_init(|| socket).clone()
            };
            Ok::<_, BoxError>(TokioIo::new(UnixStream::connect(socket).await?))
        }
    });
    Endpoint::from_static("http://container-runtime").connect_with_connector_lazy(connector)
}

/// The first socket below `folder` at which a runtime answers.
async fn find(folder: &Path) -> Result<PathBuf, NotFound> {
    let mut looked_for = Vec::new();
    for socket in SOCKETS {
        let path = folder.join(socket);
        match examine(&path).await {
            Ok(()) => {
                tracing::info!(socket = %path.display(), "The container runtime is found");
                return Ok(path);
            }
            Err(fault) => looked_for.push((socket, fault)),
        }
    }
    Err(NotFound {
        folder: folder.to_owned(),
        looked_for,
    })
}

async fn examine(path: &Path) -> Result<(), Fault> {
    let metadata = path.metadata().map_err(|_| Fault::Missing)?;
    if !metadata.file_type().is_socket() {
        return Err(Fault::NoSocket);
    }
    let runtime = path.to_str().and_then(|path| Runtime::new(path).ok());
    let runtime = runtime.ok_or(Fault::NoAnswer)?;
    match tokio::time::timeout(ANSWER_TIMEOUT, runtime.version()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Fault::NoAnswer),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, os::unix::net::UnixListener, process};

    use super::*;

    #[tokio::test]
    async fn what_was_looked_for_is_told() {
        let folder = env::temp_dir().join(format!("coral-sockets-{}", process::id()));
        fs::create_dir_all(folder.join("containerd")).unwrap();
        fs::create_dir_all(folder.join("crio")).unwrap();
        fs::write(folder.join("containerd/containerd.sock"), "").unwrap();
        // Nobody listens any more, as after a crash.
        drop(UnixListener::bind(folder.join("crio/crio.sock")).unwrap());
        let error = find(&folder).await.unwrap_err();
        fs::remove_dir_all(&folder).unwrap();
        let faults: Vec<Fault> = error.looked_for.iter().map(|(_, fault)| *fault).collect();
        let expected = [
            Fault::NoSocket,
            Fault::Missing,
            Fault::Missing,
            Fault::NoAnswer,
            Fault::Missing,
        ];
        assert_eq!(faults, expected);
        let text = error.to_string();
        assert!(
            text.contains("k3s/containerd/containerd.sock (not there), k0s"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn the_failure_of_a_call_tells_it_too() {
        let failure = Runtime::discover("/nonexistent").version().await.unwrap_err();
        assert_eq!(failure.reason, coral_api::FailureReason::RuntimeUnavailable);
        assert!(
            failure.message.contains("cri-dockerd.sock (not there)"),
            "{}",
            failure.message
        );
    }
}
