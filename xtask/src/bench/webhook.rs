//! What the webhook costs: how many reviews a second it answers, how much memory it takes, and what an API server waits for.
//!
//! The measure of an answer is the same server with nothing behind it. The servers take turns, and which is first alternates. Each has a
//! processor for itself, and the requests come from another; a server's rate is what it would answer if it had all of its processor's
//! time, so that what else the machine does cancels out as far as it can.

mod admission;
mod servers;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use self::servers::{Answers, OBJECTS, SERVERS, Servers};
use super::{
    figures::{Figure, Samples, table, to_json},
    machine, process, write_result,
};
use crate::image;

/// Reviews at the same time, as many as a busy API server has.
const IN_FLIGHT: usize = 16;
/// Reviews at the same time when the memory is measured.
const MANY_IN_FLIGHT: usize = 100;
/// And for how long.
const MANY_FOR: Duration = Duration::from_secs(6);

/// What the webhook costs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds in which the servers are asked. Many short ones: what else the machine does changes from second to second, and what is compared
    /// should have the same of it.
    #[arg(long, default_value_t = 40)]
    rounds: usize,

    /// How long each server is asked in a round, in milliseconds.
    #[arg(long, default_value_t = 300)]
    milliseconds: u64,

    /// Rounds in which Deployments are created.
    #[arg(long, default_value_t = 7)]
    creation_rounds: usize,

    /// Deployments that are created in each state of the cluster in a round.
    #[arg(long, default_value_t = 100)]
    creations: usize,

    /// Leave out the API server.
    #[arg(long)]
    without_cluster: bool,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args {
        rounds,
        milliseconds,
        creation_rounds,
        creations,
        without_cluster,
    } = args;
    let programs = image::build(root, image::PACKAGES).await?;
    let webhook = programs.join("coral-webhook");
    let size = fs::metadata(&webhook).context("find the webhook")?.len();
    let measured = servers::build_measured(root, &programs).await?;
    let machine = machine::facts("no runtime");
    println!("{}", machine::line(&machine));

    #[expect(clippy::cast_precision_loss, reason = "a size in megabytes")]
    let mut figures = vec![Figure::new("static binary", "MB", size as f64 / 1e6).at_most(8.0)];
    let cluster = if without_cluster {
        None
    } else {
        Some(admission::start_cluster().await?)
    };
    let host = cluster.as_ref().map(coral_tests::Cluster::host_address);
    let servers = Servers::start(&webhook, &measured, host).await?;
    for object in OBJECTS {
        figures.extend(compare(&servers, object, rounds, Duration::from_millis(milliseconds)).await?);
    }
    let memory = process::memory(servers.pid(0)?)?;
    figures.push(Figure::new("memory (RSS) under this load, at most", "MiB", memory.most).at_most(15.0));
    servers.ask(0, OBJECTS[0].0, MANY_IN_FLIGHT, MANY_FOR).await?;
    let memory = process::memory(servers.pid(0)?)?;
    figures.push(Figure::new(
        format!("  with {MANY_IN_FLIGHT} reviews at the same time"),
        "MiB",
        memory.most,
    ));
    if let Some(cluster) = cluster {
        let created = admission::measure(root, &cluster, &servers, creation_rounds, creations).await;
        let down = cluster.down().await;
        figures.extend(created?);
        down?;
    }
    println!("\n{}", table(&figures));
    write_result("webhook", &to_json(&machine, &figures))
}

/// Asks every server to review this object, in turns. One round more than is counted warms everything up.
async fn compare(
    servers: &Servers,
    (object, name): (&str, &str),
    rounds: usize,
    time: Duration,
) -> Result<Vec<Figure>> {
    let mut rates = vec![Samples::default(); SERVERS.len()];
    let mut ratios = vec![Samples::default(); SERVERS.len()];
    let (mut wall, mut p50, mut p99) = (Samples::default(), Samples::default(), Samples::default());
    let (mut alone_p50, mut alone_p99) = (Samples::default(), Samples::default());
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..SERVERS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        let mut answers = vec![Answers::default(); SERVERS.len()];
        for server in order {
            answers[server] = servers.ask(server, object, IN_FLIGHT, time).await?;
        }
        let alone = servers.ask(0, object, 1, time / 3).await?;
        if round == 0 {
            continue;
        }
        for (server, answers_of) in answers.iter().enumerate() {
            rates[server].push(answers_of.per_processor_second);
            ratios[server].push(answers[0].per_processor_second / answers_of.per_processor_second);
        }
        wall.push(answers[0].per_second);
        p50.push(answers[0].p50);
        p99.push(answers[0].p99);
        alone_p50.push(alone.p50);
        alone_p99.push(alone.p99);
    }
    let mut figures = Vec::new();
    for ((what, target), (rate, ratio)) in SERVERS.iter().zip(rates.into_iter().zip(ratios)) {
        figures.push(Figure::new(format!("{name}: {what}"), "/s", rate));
        let ratio = Figure::new(format!("  {name}: the webhook / that"), "×", ratio);
        match target {
            Some(target) => figures.push(ratio.at_least(*target)),
            None if *what != SERVERS[0].0 => figures.push(ratio),
            None => {}
        }
    }
    figures.extend([
        Figure::new("  by the clock, beside what else ran", "/s", wall),
        Figure::new(format!("  {IN_FLIGHT} at a time: half are faster than"), "µs", p50),
        Figure::new("  and 99 of 100 faster than", "µs", p99),
        Figure::new("  one at a time: half are faster than", "µs", alone_p50),
        Figure::new("  and 99 of 100 faster than", "µs", alone_p99),
    ]);
    Ok(figures)
}
