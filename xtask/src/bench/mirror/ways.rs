//! Ways of copying images, each as its documentation shows it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::super::process;

/// Pause between two looks at a process. The kernel keeps the most memory that there was.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// As many images at once as make the others fastest here.
const AT_ONCE: usize = 4;

/// A way of copying images.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// All of them by one command.
    Coral,
    /// One command after the other.
    Crane,
    /// Several commands at once.
    CraneAtOnce,
    /// One command, several images at once.
    Regsync,
}

/// The programs.
#[derive(Clone)]
pub(super) struct Programs {
    pub(super) coral: PathBuf,
    pub(super) crane: PathBuf,
    pub(super) regsync: PathBuf,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// Seconds.
    pub(super) seconds: f64,
    /// Seconds on a processor.
    pub(super) busy: f64,
    /// Most memory of a process, in MiB.
    pub(super) mebibytes: f64,
}

impl Way {
    /// All of them, Coral first.
    pub(super) const ALL: [Self; 4] = [Self::Coral, Self::Crane, Self::CraneAtOnce, Self::Regsync];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Coral => "kubectl coral mirror copy",
            Self::Crane => "crane copy, image by image",
            Self::CraneAtOnce => "crane copy, four at once",
            Self::Regsync => "regsync once, parallel: 4",
        }
    }

    /// Copies these images, `PATH:TAG`, from one registry to the other.
    pub(super) fn run(
        self,
        programs: &Programs,
        folder: &Path,
        images: &[String],
        from: &str,
        to: &str,
    ) -> Result<Run> {
        let began = Instant::now();
        let mut run = match self {
            Self::Coral => {
                let mut command = Command::new(&programs.coral);
                command.args(["mirror", "copy"]);
                command.args(images.iter().map(|image| format!("{from}/{image}")));
                watch(command.arg(format!("{to}/")))
            }
            Self::Crane => crane(&programs.crane, images, from, to, 1),
            Self::CraneAtOnce => crane(&programs.crane, images, from, to, AT_ONCE),
            Self::Regsync => {
                let file = folder.join("regsync.json");
                fs::write(&file, regsync(images, from, to)).context("write what regsync is to do")?;
                watch(Command::new(&programs.regsync).args(["once", "--config"]).arg(&file))
            }
        }
        .with_context(|| format!("failed to copy by {}", self.name()))?;
        run.seconds = began.elapsed().as_secs_f64();
        Ok(run)
    }
}

/// The name of a copy: the one that `kubectl coral` gives it.
pub(super) fn copy(image: &str, from: &str, to: &str) -> String {
    format!("{to}/{}/{image}", from.replace(':', "_"))
}

fn crane(program: &Path, images: &[String], from: &str, to: &str, at_once: usize) -> Result<Run> {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Run::default());
    let work = || -> Result<()> {
        while let Some(image) = images.get(next.fetch_add(1, Relaxed)) {
            let mut command = Command::new(program);
            command.args(["copy", "--insecure", &format!("{from}/{image}"), &copy(image, from, to)]);
            let run = watch(&mut command)?;
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.busy += run.busy;
            total.mebibytes = total.mebibytes.max(run.mebibytes);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread has panicked"),
            }
        }
        anyhow::Ok(())
    })?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What regsync is to do. JSON is YAML.
fn regsync(images: &[String], from: &str, to: &str) -> String {
    let registry = |host: &str| json!({"registry": host, "tls": "disabled"});
    let image = |image: &String| {
        json!({
            "source": format!("{from}/{image}"),
            "target": copy(image, from, to),
            "type": "image",
        })
    };
    json!({
        "version": 1,
        "creds": [registry(from), registry(to)],
        "defaults": {"parallel": AT_ONCE},
        "sync": images.iter().map(image).collect::<Vec<_>>(),
    })
    .to_string()
}

/// Runs a command to its end, and sees what it takes.
fn watch(command: &mut Command) -> Result<Run> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut stderr = child.stderr.take().context("read what a command says")?;
    let reader = thread::spawn(move || std::io::read_to_string(&mut stderr));
    let pid = i32::try_from(child.id())?;
    let mut run = Run::default();
    while !reader.is_finished() {
        run.mebibytes = process::memory(pid)?.most.max(run.mebibytes);
        thread::sleep(LOOK_AGAIN);
    }
    // Until it is waited for, its times are there.
    run.busy = process::processor_time(pid)?.as_secs_f64();
    let status = child.wait().context("wait for a command")?;
    let Ok(said) = reader.join() else {
        bail!("nobody reads what a command says");
    };
    ensure!(
        status.success(),
        "{command:?} ended with {status}: {}",
        said.unwrap_or_default()
    );
    Ok(run)
}
