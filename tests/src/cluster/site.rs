//! Where the parts of one cluster are started and watched.

use std::{
    ffi::OsString,
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    cgroup::Hierarchies,
    layout::Layout,
    network::Addresses,
    process::{ProcessRecord, ProcessSpec, log_tail},
    state::{PartRecord, State},
    tools::Tools,
};
use crate::{
    progress::Progress,
    wait::{Look, eventually},
};

/// How many lines of its log an error about a part holds.
const TAIL_LINES: usize = 15;

/// The group of the parts that belong to no node.
pub(super) const CONTROL_PLANE: &str = "control-plane";

/// Everything needed to start parts of a cluster.
#[derive(Clone)]
pub(super) struct Site {
    /// Its paths.
    pub layout: Layout,
    /// Its addresses.
    pub addresses: Addresses,
    /// The built programs.
    pub tools: Tools,
    /// The machine's cgroups.
    pub hierarchies: Hierarchies,
    /// Who is told how far things are.
    pub progress: Arc<dyn Progress>,
}

/// A part to start: one long-running process.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its name in the state, and that of its log.
    pub name: String,
    /// Its program and arguments.
    pub command: Vec<OsString>,
    /// Its environment besides `PATH`.
    pub environment: Vec<(String, String)>,
    /// The node that it belongs to, or [`CONTROL_PLANE`].
    pub group: String,
    /// The folders that its `PATH` begins with.
    pub path: Vec<PathBuf>,
    /// Whose mount namespace it runs in; by default the host's.
    pub mount_namespace_of: Option<ProcessRecord>,
}

impl Part {
    /// A part of the control plane.
    pub(super) fn new(name: &str, program: impl Into<OsString>) -> Self {
        Self {
            name: name.to_owned(),
            command: vec![program.into()],
            environment: Vec::new(),
            group: CONTROL_PLANE.to_owned(),
            path: Vec::new(),
            mount_namespace_of: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub(super) fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.command.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds `--NAME=PATH`.
    #[must_use]
    pub(super) fn path_arg(self, name: &str, path: &Path) -> Self {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(path);
        self.args([argument])
    }
}

impl Site {
    /// The process of a part, if it runs.
    pub(super) fn running(&self, name: &str) -> Result<Option<ProcessRecord>> {
        let state = State::read(&self.layout)?;
        let record = state.as_ref().and_then(|state| state.parts.get(name));
        Ok(record.map(|record| record.process).filter(ProcessRecord::is_running))
    }

    /// Starts a part unless it runs, and says whether it had to.
    pub(super) fn ensure(&self, part: &Part) -> Result<bool> {
        if self.running(&part.name)?.is_some() {
            return Ok(false);
        }
        self.start(part)?;
        Ok(true)
    }

    fn start(&self, part: &Part) -> Result<ProcessRecord> {
        let cgroup = self.layout.cgroup().join(&part.group).join("parts");
        let log = self.layout.log(&part.name);
        fs::create_dir_all(self.layout.logs()).with_context(|| format!("create {}", self.layout.logs().display()))?;
        let mut folders: Vec<String> = part.path.iter().map(|folder| folder.display().to_string()).collect();
        folders.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(str::to_owned));
        let mut environment = part.environment.clone();
        environment.push(("PATH".to_owned(), folders.join(":")));
        environment.push(("HOME".to_owned(), "/root".to_owned()));
        let mut command = part.command.clone();
        let state = State::read(&self.layout)?;
        let further = state.as_ref().and_then(|state| state.arguments.get(&part.name));
        command.extend(further.into_iter().flatten().map(OsString::from));
        let process = ProcessSpec {
            command,
            environment,
            cgroup_procs: self.hierarchies.procs_file(&cgroup)?,
            network_namespace: self.layout.network_namespace(),
            mount_namespace_of: part.mount_namespace_of.map(|process| process.pid),
            log: log.clone(),
        }
        .start()
        .with_context(|| format!("start {}", part.name))?;
        State::update(&self.layout, |state| {
            state.parts.insert(part.name.clone(), PartRecord { process, log });
        })?;
        Ok(process)
    }

    /// Waits until `look` is content. Fails at once, with the end of its log, when one of `parts` ends.
    pub(super) async fn ready<T, S, F>(&self, what: &str, parts: &[&str], timeout: Duration, look: F) -> Result<T>
    where
        S: Debug,
        F: AsyncFnMut() -> Result<Look<T, S>>,
    {
        tokio::select! {
            result = eventually(what, timeout, look) => result.map_err(|error| {
                let tails: Vec<String> = parts.iter().map(|part| self.tail(part)).collect();
                anyhow!("{error:#}\n{}", tails.join("\n"))
            }),
            error = self.end_of(parts) => Err(error),
        }
    }

    async fn end_of(&self, parts: &[&str]) -> anyhow::Error {
        loop {
            for part in parts {
                match self.running(part) {
                    Ok(Some(_)) => {}
                    Ok(None) => return anyhow!("{part} has ended; {}", self.tail(part)),
                    Err(error) => return error,
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn tail(&self, part: &str) -> String {
        let log = self.layout.log(part);
        format!("the end of {}:\n{}", log.display(), log_tail(&log, TAIL_LINES))
    }

    /// Tells how long a step took.
    pub(super) fn step(&self, name: &str, started: Instant) {
        self.progress.step(name, started.elapsed());
    }
}
