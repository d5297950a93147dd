//! The hollow nodes, in processes of their own: none could open the files that all of them take.
//!
//! ```text
//!   bench scale ──── `pulls` ───► bench hollow   (stdin; its end is that of the nodes)
//!               ◄─── `ready`, 20000 ─────┘
//! ```

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use coral_tests::{
    cri::{Catalogue, Ending},
    hollow::{Fleet, HollowOptions},
};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Most nodes of one process.
const MOST_NODES: usize = 1000;
/// Size of each image, in bytes. Nothing takes time or space for it.
const IMAGE_SIZE: u64 = 1_000_000;
/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_mins(1);
const READY: &str = "ready";
const PULLS: &str = "pulls";

/// Be hollow nodes until the end of standard input: a part of `bench scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubeconfig of the harness, which makes the nodes.
    #[arg(long)]
    kubeconfig: PathBuf,

    /// Kubeconfig of the agents.
    #[arg(long)]
    agent_kubeconfig: PathBuf,

    /// Name of the fleet, with which those of the nodes begin.
    #[arg(long)]
    name: String,

    /// How many.
    #[arg(long)]
    nodes: usize,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let everything = Catalogue::of_everything(IMAGE_SIZE);
    let (own, agents) = (config(&args.kubeconfig).await?, config(&args.agent_kubeconfig).await?);
    let fleet = Fleet::start_with(&own, &agents, &args.name, args.nodes, |_| {
        HollowOptions::new(&everything)
    })
    .await?;
    println!("{READY}");
    // The agents go on while this thread waits.
    tokio::task::spawn_blocking(move || {
        for question in io::stdin().lines() {
            let question = question.context("read a question")?;
            ensure!(question == PULLS, "nobody knows what {question:?} means");
            println!("{}", fleet.timeline().ended(Ending::Succeeded));
        }
        Ok(())
    })
    .await?
}

async fn config(path: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("use {}", path.display()))
}

/// Hollow nodes in other processes. These end when this is dropped, of themselves: each removes what its runtimes have in the temporary folder.
pub(super) struct Fleets(Vec<Worker>);

impl Fleets {
    /// Makes `nodes` nodes, and returns when all of them are Ready and have an agent.
    pub(super) async fn start(kubeconfig: &Path, agent_kubeconfig: &Path, nodes: usize) -> Result<Self> {
        let mut workers = Vec::new();
        for (number, size) in sizes(nodes).into_iter().enumerate() {
            workers.push(Worker::start(kubeconfig, agent_kubeconfig, number, size)?);
        }
        for worker in &mut workers {
            let answer = worker.answer().await?;
            ensure!(answer == READY, "{} says {answer:?}", worker.name);
        }
        Ok(Self(workers))
    }

    /// How many pulls have succeeded, on all nodes.
    pub(super) async fn pulls(&mut self) -> Result<usize> {
        let mut pulls = 0;
        for worker in &mut self.0 {
            let question = format!("{PULLS}\n");
            let asked = worker.questions.write_all(question.as_bytes()).await;
            asked.with_context(|| format!("ask {}", worker.name))?;
            let answer = worker.answer().await?;
            let count = answer.parse::<usize>();
            pulls += count.with_context(|| format!("{} says {answer:?}", worker.name))?;
        }
        Ok(pulls)
    }

    /// Ends all of them, and returns when they have ended.
    pub(super) async fn end(self) -> Result<()> {
        for Worker {
            name,
            questions,
            mut child,
            ..
        } in self.0
        {
            drop(questions);
            let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
            let status = ended.with_context(|| format!("{name} does not end"))??;
            ensure!(status.success(), "{name} ended with {status}");
        }
        Ok(())
    }
}

/// How many nodes each process gets.
fn sizes(nodes: usize) -> Vec<usize> {
    let firsts = (0..nodes).step_by(MOST_NODES);
    firsts.map(|first| MOST_NODES.min(nodes - first)).collect()
}

struct Worker {
    name: String,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Worker {
    fn start(kubeconfig: &Path, agent_kubeconfig: &Path, number: usize, nodes: usize) -> Result<Self> {
        let name = format!("hollow-{number}");
        let program = env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(program);
        command
            .args(["bench", "hollow", "--name", &name, "--nodes", &nodes.to_string()])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--agent-kubeconfig")
            .arg(agent_kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name} has no standard input and output")
        };
        Ok(Self {
            name,
            questions,
            answers: BufReader::new(answers).lines(),
            child,
        })
    }

    async fn answer(&mut self) -> Result<String> {
        let line = self.answers.next_line().await?;
        line.with_context(|| format!("{} has ended", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_has_more_nodes_than_it_may() {
        for (nodes, expected) in [(0, &[][..]), (300, &[300]), (1000, &[1000]), (2500, &[1000, 1000, 500])] {
            assert_eq!(sizes(nodes), expected, "{nodes}");
        }
    }
}
