//! Coral's own programs, as they are shipped, as processes of this machine.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use coral_api::{NodeImages, Prefetch};
use coral_tests::wait::{Look, eventually};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};

use super::process::{self, Memory};

/// How long a program may take to begin.
const PATIENCE: Duration = Duration::from_mins(1);

/// One program that runs. It is killed when this is dropped.
pub(super) struct Program {
    name: &'static str,
    pid: i32,
    port: u16,
    child: Child,
}

impl Program {
    /// Starts it with the rights of this kubeconfig, and returns when it is ready. What it says goes to a file in `logs`.
    pub(super) async fn start(
        name: &'static str,
        binary: PathBuf,
        kubeconfig: &Path,
        logs: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = port.context("find a free port")?.port();
        let log = logs.join(format!("{name}-{port}.log"));
        let log = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let mut command = Command::new(&binary);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg(format!("--listen=127.0.0.1:{port}"))
            .args(arguments)
            .stdout(Stdio::from(log.try_clone().context("share the log")?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let mut program = Self {
            name,
            pid: pid.with_context(|| format!("{name} ended at once"))?,
            port,
            child,
        };
        eventually(&format!("{name} to be ready"), PATIENCE, async || {
            let answer = program.get("/readyz").await?;
            let status = answer.lines().next().unwrap_or_default().to_owned();
            Ok(if status.contains(" 200 ") {
                Look::Done(())
            } else {
                Look::NotYet(status)
            })
        })
        .await?;
        program.ensure_runs()?;
        Ok(program)
    }

    /// Fails where it has ended: then nothing that was measured counts.
    pub(super) fn ensure_runs(&mut self) -> Result<()> {
        let ended = self
            .child
            .try_wait()
            .with_context(|| format!("look at {}", self.name))?;
        ensure!(ended.is_none(), "{} has ended: {ended:?}", self.name);
        Ok(())
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        process::memory(self.pid)
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn processor_time(&self) -> Result<Duration> {
        process::processor_time(self.pid)
    }

    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// Installs Coral's kinds, and returns when they are served.
pub(super) async fn install_crds(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [Prefetch::crd(), NodeImages::crd()] {
        let parameters = PatchParams::apply("coral-bench").force();
        definitions
            .patch(&crd.name_any(), &parameters, &Patch::Apply(&crd))
            .await?;
    }
    let (prefetches, node_images): (Api<Prefetch>, Api<NodeImages>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    eventually("the API server to serve Coral's kinds", PATIENCE, async || {
        let list = ListParams::default();
        prefetches.list(&list).await?;
        node_images.list(&list).await?;
        Ok(Look::<(), ()>::Done(()))
    })
    .await
}
