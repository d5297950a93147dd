//! Starting processes that outlive us, and ending exactly those.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one that got the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks after boot (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
}

impl ProcessRecord {
    /// Records the process that has this id now.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = read_stat(pid).with_context(|| format!("find process {pid}"))?;
        Ok(Self {
            pid,
            start_time: stat.start_time,
        })
    }

    /// Whether it still runs. A zombie does not: nobody has asked for its exit code yet, that is all.
    #[must_use]
    pub fn is_running(&self) -> bool {
        read_stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.ended)
    }

    /// Sends a signal, to this process and never to another one.
    pub fn signal(&self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the look and the signal; then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; `false` when it has not within `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() >= timeout {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Asks it to end, and makes it end when it has not after `patience`.
    pub fn stop(&self, patience: Duration) {
        self.signal(Signal::TERM);
        if !self.wait(patience) {
            self.signal(Signal::KILL);
            let _ = self.wait(Duration::from_secs(5));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    start_time: u64,
}

fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name in field 2 may hold anything, blanks and parentheses too: fields are counted from its last `)`.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    Some(Stat {
        ended,
        start_time: fields.nth(18)?.parse().ok()?,
    })
}

/// What to start, and where it runs.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// The `cgroup.procs` file of the cgroup that it and its children are in.
    pub cgroup_procs: PathBuf,
    /// The network namespace to enter.
    pub network_namespace: PathBuf,
    /// The mount namespace to enter: that of this process.
    pub mount_namespace_of: Option<i32>,
    /// Where its output goes; appended to.
    pub log: PathBuf,
}

/// Enters the cgroup before the program is there, so that none of its children can be outside of it. `$0` is the file
/// to write to.
const ENTER_CGROUP: &str = r#"echo $$ > "$0" && exec "$@""#;

impl ProcessSpec {
    /// The whole command line: a session of its own, then the cgroup, then the namespaces, then the program, each by
    /// `exec`, so that the process id stays the same.
    fn command_line(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = ["setsid", "sh", "-c", ENTER_CGROUP].map(OsString::from).to_vec();
        line.push(self.cgroup_procs.clone().into());
        line.push("nsenter".into());
        line.push(joined("--net=", self.network_namespace.as_os_str()));
        if let Some(pid) = self.mount_namespace_of {
            line.push(format!("--mount=/proc/{pid}/ns/mnt").into());
        }
        line.push("--".into());
        line.extend(self.command.iter().cloned());
        line
    }

    /// Starts it.
    pub fn start(&self) -> Result<ProcessRecord> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let line = self.command_line();
        let (program, arguments) = line.split_first().context("no program to start")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(
                log.try_clone()
                    .with_context(|| format!("share {}", self.log.display()))?,
            )
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let pid = i32::try_from(child.id()).context("understand a process id")?;
        let record = ProcessRecord::of(pid);
        // Somebody has to ask for the exit code, or it stays a zombie for as long as this process runs.
        thread::spawn(move || child.wait());
        record
    }
}

fn joined(prefix: &str, rest: &OsStr) -> OsString {
    let mut whole = OsString::from(prefix);
    whole.push(rest);
    whole
}

/// Runs a short command to its end.
///
/// # Errors
/// With what it wrote, when it fails.
pub fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
    run_command(Command::new(program).args(arguments))
}

/// Runs a short command to its end; see [`run`].
pub fn run_command(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

/// The last lines of a log, for an error message.
#[must_use]
pub fn log_tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What tells this boot of the machine from others.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path)
        .with_context(|| format!("read {path}"))?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let numbers = (4..=30).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = parse_stat(&format!("17 (a) (b c) S {numbers}")).unwrap();
        assert_eq!(
            stat,
            Stat {
                ended: false,
                start_time: 22
            }
        );
        assert!(parse_stat(&format!("17 (x) Z {numbers}")).unwrap().ended);
    }

    #[test]
    fn process_with_a_reused_id_is_not_ours() {
        let own = ProcessRecord::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_running());
        let earlier = ProcessRecord {
            start_time: own.start_time - 1,
            ..own
        };
        assert!(!earlier.is_running());
        // Would end this test process if it were sent.
        earlier.signal(Signal::KILL);
    }

    #[test]
    fn program_starts_inside_its_cgroup_and_namespaces() {
        let spec = ProcessSpec {
            command: vec!["etcd".into(), "--x".into()],
            environment: Vec::new(),
            cgroup_procs: "/cg/cgroup.procs".into(),
            network_namespace: "/run/coral/1/netns".into(),
            mount_namespace_of: Some(12),
            log: "/dev/null".into(),
        };
        let line: Vec<String> = spec
            .command_line()
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            line[4..],
            [
                "/cg/cgroup.procs",
                "nsenter",
                "--net=/run/coral/1/netns",
                "--mount=/proc/12/ns/mnt",
                "--",
                "etcd",
                "--x"
            ]
        );
    }

    #[test]
    fn failing_command_tells_what_it_said() {
        let error = run("sh", ["-c", "echo not so >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("not so") && error.contains("exit status: 3"), "{error}");
    }
}
