//! `cargo xtask cluster`: a real Kubernetes cluster on this machine, from the harness of the tests.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use coral_tests::{
    Cluster, ClusterOptions, NodeOptions,
    cluster::{
        self, AgentOptions, Containerd, DIRECTORY_VARIABLE, Layout, prerequisites,
        state::State,
        tools::{Checks, Tools},
    },
    progress::{Progress, step_line},
};
use tokio::signal::unix::{SignalKind, signal};

/// A real Kubernetes cluster on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the cluster; several run side by side in different ones.
    #[arg(long, global = true, default_value_os_t = default_dir())]
    dir: PathBuf,

    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Build the programs of the cluster; `up` does that too.
    Build,
    /// Start a cluster, or start again what has died of it.
    Up(Up),
    /// Print what a shell needs to use it: eval "$(cargo xtask cluster env)".
    Env,
    /// Show its parts.
    Status,
    /// End it and remove everything but its logs.
    Down,
    /// Join one more node.
    AddNode(AddNode),
    /// Take a node away, as if its machine had been switched off.
    RemoveNode {
        /// Name of the node.
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Up {
    /// Number of nodes with a kubelet [default: 2, or as many as there are].
    #[arg(long)]
    nodes: Option<u32>,

    /// Size of the disk of each of these nodes, e.g. 300m; a small one makes the kubelet collect garbage.
    #[arg(long, value_name = "SIZE")]
    node_disk: Option<String>,

    /// Number of further nodes with a containerd and Coral's agent but no kubelet.
    #[arg(long, value_name = "N", default_value_t = 0)]
    light: u32,
}

#[derive(Debug, clap::Args)]
struct AddNode {
    /// Size of its disk, e.g. 300m.
    #[arg(long, value_name = "SIZE")]
    node_disk: Option<String>,

    /// Join a light node: a containerd and Coral's agent but no kubelet.
    #[arg(long)]
    light: bool,

    /// Which containerd it runs.
    #[arg(long, value_enum, default_value_t = ContainerdChoice::Bundled)]
    containerd: ContainerdChoice,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ContainerdChoice {
    /// The newest, from the Go modules of the cluster.
    Bundled,
    /// The one of this Debian, fetched and unpacked but not installed.
    Debian,
}

impl From<ContainerdChoice> for Containerd {
    fn from(choice: ContainerdChoice) -> Self {
        match choice {
            ContainerdChoice::Bundled => Self::Bundled,
            ContainerdChoice::Debian => Self::Debian,
        }
    }
}

pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::workspace().join("target"), PathBuf::from)
}

pub(crate) fn default_dir() -> PathBuf {
    target_dir().join("cluster")
}

/// Prints a line. That nobody reads on, as behind `| head`, is no failure, and no reason to stop half-way.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints each step as it ends.
pub(crate) struct Lines;

impl Progress for Lines {
    fn step(&self, name: &str, elapsed: Duration) {
        say(&step_line(name, elapsed));
    }

    fn note(&self, line: &str) {
        say(line);
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let Args { dir, command } = args;
    match command {
        ClusterCommand::Build => build().await,
        ClusterCommand::Up(up) => self::up(&dir, up).await,
        ClusterCommand::Env => print_env(&dir).await,
        ClusterCommand::Status => print_status(&dir),
        ClusterCommand::Down => down(&dir).await,
        ClusterCommand::AddNode(add) => add_node(&dir, add).await,
        ClusterCommand::RemoveNode { name } => {
            let cluster = Cluster::attach_with(&dir, Arc::new(Lines)).await?;
            cluster.remove_node(&name).await?;
            say(&format!("{name} is gone"));
            Ok(())
        }
    }
}

async fn build() -> Result<()> {
    let started = Instant::now();
    prerequisites::ensure(&Lines)?;
    let cached = Tools::locate()?.are_built();
    let tools = or_signal(Tools::build(&Lines)).await?;
    or_signal(Checks::build(&Lines)).await?;
    let word = if cached { "cached" } else { "built" };
    for folder in tools.folders() {
        say(&format!("{word} in {}", folder.display()));
    }
    say(&step_line("programs", started.elapsed()));
    Ok(())
}

async fn up(dir: &Path, up: Up) -> Result<()> {
    let Up {
        nodes,
        node_disk,
        light,
    } = up;
    let started = Instant::now();
    let agent = if light > 0 { Some(build_agent()?) } else { None };
    let nodes = match nodes {
        Some(nodes) => nodes,
        None => present_nodes(dir)?.unwrap_or(2),
    };
    let options = ClusterOptions {
        dir: dir.to_owned(),
        nodes,
        node_disk,
        light_nodes: light,
        agent,
        keep: true,
        progress: Arc::new(Lines),
        ..ClusterOptions::default()
    };
    let cluster = or_signal(Cluster::start(options)).await?;
    say(&step_line("up", started.elapsed()));
    say(&format!("logs: {}", cluster.logs().display()));
    let flag = if cluster.dir() == Layout::new(&default_dir())?.dir {
        String::new()
    } else {
        format!(" --dir {}", cluster.dir().display())
    };
    say(&format!("to use it: eval \"$(cargo xtask cluster env{flag})\""));
    Ok(())
}

/// How many nodes with a kubelet the cluster has that is there already.
fn present_nodes(dir: &Path) -> Result<Option<u32>> {
    let state = State::read(&Layout::new(dir)?)?;
    let count = state.map(|state| state.nodes.iter().filter(|node| !node.light).count());
    count.map(u32::try_from).transpose().context("count the nodes")
}

/// Ends the work when somebody presses Ctrl-C or asks the process to end: what it was making goes with it.
pub(crate) async fn or_signal<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut signalled = pin!(async {
        tokio::select! {
            _ = interrupt.recv() => "interrupt",
            _ = terminate.recv() => "terminate",
        }
    });
    let name = tokio::select! {
        result = work => {
            // A terminal interrupts the programs that we run too, so that their failure may come first.
            let pending = tokio::time::timeout(Duration::from_millis(50), &mut signalled);
            match result {
                Ok(result) => return Ok(result),
                Err(error) => pending.await.map_err(|_| error)?,
            }
        }
        name = &mut signalled => name,
    };
    bail!("ended by the {name} signal; nothing is left behind");
}

/// The agent that light nodes run, built from this workspace.
fn build_agent() -> Result<AgentOptions> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "coral-agent"])
        .current_dir(crate::workspace())
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "building coral-agent failed");
    Ok(AgentOptions::new(target_dir().join("debug/coral-agent")))
}

async fn add_node(dir: &Path, add: AddNode) -> Result<()> {
    let AddNode {
        node_disk,
        light,
        containerd,
    } = add;
    let started = Instant::now();
    let cluster = Cluster::attach_with(dir, Arc::new(Lines)).await?;
    let options = NodeOptions {
        disk: node_disk,
        containerd: containerd.into(),
        ..NodeOptions::default()
    };
    let node = if light {
        cluster.add_light_node(options).await?
    } else {
        cluster.add_node(options).await?
    };
    say(&step_line(&format!("{} has joined", node.name()), started.elapsed()));
    Ok(())
}

async fn print_env(dir: &Path) -> Result<()> {
    let cluster = Cluster::attach(dir).await?;
    let auth = cluster.registry_auth();
    let path = |path: &Path| path.display().to_string();
    let mut variables = vec![
        ("KUBECONFIG".to_owned(), path(&cluster.kubeconfig())),
        (DIRECTORY_VARIABLE.to_owned(), path(cluster.dir())),
        ("CORAL_REGISTRY".to_owned(), cluster.registry()),
        ("CORAL_REGISTRY_AUTH".to_owned(), auth.host),
        ("CORAL_REGISTRY_AUTH_USER".to_owned(), auth.user),
        ("CORAL_REGISTRY_AUTH_PASSWORD".to_owned(), auth.password),
        ("CORAL_REGISTRY_AUTH_CA".to_owned(), path(&auth.authority)),
    ];
    for node in cluster.nodes()? {
        variables.push((socket_variable(node.name()), path(&node.containerd_socket())));
    }
    for (name, value) in variables {
        say(&format!("export {name}={}", quoted(&value)));
    }
    let [control_plane, node] = cluster.tools().folders();
    let debug = target_dir().join("debug");
    let folders: Vec<String> = [debug.as_path(), control_plane, node]
        .map(|folder| quoted(&path(folder)))
        .to_vec();
    say(&format!("export PATH={}:\"$PATH\"", folders.join(":")));
    Ok(())
}

/// `node-1` is `CORAL_NODE_1_SOCKET`, `light-1` is `CORAL_LIGHT_1_SOCKET`.
fn socket_variable(node: &str) -> String {
    format!("CORAL_{}_SOCKET", node.to_uppercase().replace('-', "_"))
}

/// A word of a shell, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn print_status(dir: &Path) -> Result<()> {
    let layout = Layout::new(dir)?;
    let Some(state) = State::read(&layout)? else {
        bail!(
            "there is no cluster in {}; `cargo xtask cluster up` starts one",
            layout.dir.display()
        );
    };
    say(&format!("{:<26} {:>8}  {:<8} LOG", "PART", "PID", "STATE"));
    let mut dead = 0;
    for (name, part) in &state.parts {
        let running = part.process.is_running();
        dead += usize::from(!running);
        let word = if running { "running" } else { "dead" };
        say(&format!(
            "{name:<26} {:>8}  {word:<8} {}",
            part.process.pid,
            part.log.display()
        ));
    }
    if dead > 0 {
        say(&format!("{dead} dead; `cargo xtask cluster up` starts them again"));
    }
    Ok(())
}

async fn down(dir: &Path) -> Result<()> {
    let started = Instant::now();
    cluster::down(&Layout::new(dir)?).await?;
    say(&step_line("down", started.elapsed()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_keep_quotes() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn each_node_has_a_variable_for_its_socket() {
        assert_eq!(socket_variable("node-2"), "CORAL_NODE_2_SOCKET");
    }
}
