//! A registry for one run: the CNCF's, with its content in a folder.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::wait::{Look, eventually};
use serde_json::json;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a line of its log about a request has, and no other.
const REQUEST: &str = " HTTP/1.1\" ";

/// A registry that runs. It is killed when this is dropped.
pub(super) struct Registry {
    host: String,
    folder: PathBuf,
    _child: Child,
}

impl Registry {
    /// Starts one without any content.
    pub(super) async fn start(program: &Path, folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(name);
        ensure!(!folder.exists(), "{} is there already", folder.display());
        fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let host = format!("127.0.0.1:{}", port.context("find a free port")?.port());
        let config = json!({
            "version": "0.1",
            "log": {"accesslog": {"disabled": false}, "level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.join("data")}},
            "http": {"addr": host},
        });
        let file = folder.join("config.json");
        fs::write(&file, config.to_string()).with_context(|| format!("failed to write {}", file.display()))?;
        let log = File::create(folder.join("log")).context("make the log of a registry")?;
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::from(log.try_clone().context("share the log")?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        eventually("a registry to listen", PATIENCE, async || {
            Ok(match TcpStream::connect(&host).await {
                Ok(_) => Look::Done(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
        .await?;
        Ok(Self {
            host,
            folder,
            _child: child,
        })
    }

    /// `host:port`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Requests that it has answered.
    pub(super) fn requests(&self) -> Result<usize> {
        let log = self.folder.join("log");
        let text = fs::read_to_string(&log).with_context(|| format!("failed to read {}", log.display()))?;
        Ok(text.lines().filter(|line| line.contains(REQUEST)).count())
    }

    /// Ends it, and clears everything away.
    pub(super) fn remove(self) -> Result<()> {
        let folder = self.folder.clone();
        drop(self);
        // What it was about to write is of no use to anybody.
        fs::remove_dir_all(&folder)
            .or_else(|_| fs::remove_dir_all(&folder))
            .with_context(|| format!("failed to remove {}", folder.display()))
    }
}
