//! The servers that are compared, each a process, and the requests for them.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::wait::{Look, eventually};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::process;
use crate::{cluster::target_dir, command::cargo, image};

/// By which name the certificate is asked for.
const HOST: &str = "coral-webhook.coral-system.svc";
const MEASURED: &str = "coral-webhook-measured";
const PATIENCE: Duration = Duration::from_secs(30);
/// The processor of the servers, and that of the requests.
const PROCESSORS: (&str, &str) = ("0", "1");

/// What answers, and how much of its rate the webhook should have. The webhook is the first.
pub(super) const SERVERS: [(&str, Option<f64>); 3] = [
    ("the webhook", None),
    ("a server that reads and admits", Some(0.8)),
    ("a server that does not even read", None),
];
const COMMANDS: [Option<&str>; 3] = [None, Some("read-only"), Some("constant")];

/// What is reviewed, as the program that sends it has it and as people have it.
pub(super) const OBJECTS: [(&str, &str); 2] = [("deployment", "Deployment of 20 containers"), ("pod", "bare Pod")];

/// Builds the program that is measured beside the webhook, the same way. `programs` is where those that are shipped are.
pub(super) async fn build_measured(root: &Path, programs: &Path) -> Result<PathBuf> {
    let target = image::host_target()?;
    let mut arguments = vec!["build", "--release", "--locked", "--target", &target];
    // With the others, so that what they need of common crates is switched on here as it is there.
    for package in image::PACKAGES {
        arguments.extend(["--package", package]);
    }
    arguments.extend(["--features", "coral-webhook/bench", "--bin", MEASURED]);
    cargo(root, &arguments, &[("RUSTFLAGS", "-C target-feature=+crt-static")]).await?;
    Ok(programs.join(MEASURED))
}

struct Server {
    process: Child,
    address: SocketAddr,
}

/// The running servers. They end when this is dropped.
pub(super) struct Servers {
    running: Vec<Server>,
    measured: PathBuf,
    authority: PathBuf,
}

/// How fast a server answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    /// By the clock.
    pub(super) per_second: f64,
    /// By the time that the server was on a processor.
    pub(super) per_processor_second: f64,
    /// Microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Servers {
    /// Starts them. The certificate is for the webhook's Service, and for `address`, if others than this machine are to call.
    pub(super) async fn start(webhook: &Path, measured: &Path, address: Option<Ipv4Addr>) -> Result<Self> {
        let folder = target_dir().join("bench/webhook");
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let mut certify = Command::new(measured);
        certify.arg("certificate").arg(&folder).arg(HOST);
        let status = certify
            .args(address.map(|address| address.to_string()))
            .status()
            .await
            .context("failed to make a certificate")?;
        ensure!(status.success(), "no certificate was made");
        let mut running = Vec::new();
        for command in COMMANDS {
            running.push(start(command.map_or(webhook, |_| measured), command, &folder).await?);
        }
        Ok(Self {
            running,
            measured: measured.to_owned(),
            authority: folder.join("ca.crt"),
        })
    }

    /// Who signed the certificates, in PEM.
    pub(super) fn authority(&self) -> &Path {
        &self.authority
    }

    /// The port of a server.
    pub(super) fn port(&self, server: usize) -> u16 {
        self.running[server].address.port()
    }

    pub(super) fn pid(&self, server: usize) -> Result<i32> {
        let pid = self.running[server].process.id().context("a server has ended")?;
        Ok(pid.try_into()?)
    }

    /// One of the objects.
    pub(super) async fn object(&self, name: &str) -> Result<Value> {
        let output = Command::new(&self.measured).args(["object", name]).output().await?;
        serde_json::from_slice(&output.stdout).context("failed to read the object")
    }

    /// Keeps so many reviews under way for so long.
    pub(super) async fn ask(&self, server: usize, object: &str, in_flight: usize, time: Duration) -> Result<Answers> {
        let pid = self.pid(server)?;
        let mut load = Command::new("taskset");
        load.args(["--cpu-list", PROCESSORS.1])
            .arg(&self.measured)
            .args(["load", "--host", HOST, "--object", object])
            .args(["--address", &self.running[server].address.to_string()])
            .args(["--in-flight", &in_flight.to_string()])
            .args(["--milliseconds", &time.as_millis().to_string()])
            .arg("--authority")
            .arg(&self.authority)
            .kill_on_drop(true);
        let before = process::threads_time(pid)?;
        let output = load.output().await.context("failed to send requests")?;
        let busy = process::threads_time(pid)?.saturating_sub(before).as_secs_f64();
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "requests failed: {text}");
        let said: Value = serde_json::from_slice(&output.stdout).context("failed to read how fast it was")?;
        let number = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
        Ok(Answers {
            per_second: number("requests") / number("seconds"),
            per_processor_second: number("requests") / busy,
            p50: number("p50"),
            p99: number("p99"),
        })
    }
}

async fn start(program: &Path, command: Option<&str>, certificates: &Path) -> Result<Server> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut server = Command::new("taskset");
    server
        .args(["--cpu-list", PROCESSORS.0])
        .arg(program)
        .args(command)
        .args(["--watch-prefetches", "false", "--listen", "127.0.0.1:0"])
        .arg(format!("--listen-tls=0.0.0.0:{port}"))
        .arg("--cert-dir")
        .arg(certificates)
        .env("CORAL_LOG", "error")
        .kill_on_drop(true);
    let process = server
        .spawn()
        .with_context(|| format!("failed to start {}", program.display()))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("a server to listen", PATIENCE, async || {
        TcpStream::connect(address).await?;
        Ok(Look::<(), ()>::Done(()))
    })
    .await?;
    Ok(Server { process, address })
}
