//! What copies of images take from one registry to another, and what others take: `crane copy` and `regsync once`.
//!
//! Real registries, one with the originals and one that is empty, anew for each run; Coral's command as it is shipped. What is compared takes
//! turns, so that what else the machine does cancels out as far as it can. What passes between program and registries is counted in a round of
//! its own, because the counters would slow down those that are timed.

mod counter;
mod images;
mod refresh;
mod registry;
mod ways;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::cluster::tools::Tools;
use serde_json::{Value, json};

use self::{
    counter::Counter,
    images::Stock,
    registry::Registry,
    ways::{Programs, Run, Way},
};
use super::{
    figures::{Figure, Samples, table, to_json},
    machine, write_result,
};
use crate::{
    cluster::{Lines, target_dir},
    image,
};

/// What copies of images take from one registry to another, and what others take.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds of the comparison.
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Size of the images, in percent of what they are to be: 20 images of 50 to 500 MB. Less is for a look.
    #[arg(long, default_value_t = 100)]
    percent: u64,

    /// A `kubectl-coral` that is built already.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// What was found of one way.
#[derive(Default)]
struct Cost {
    /// Seconds to copy everything to a registry that has nothing.
    cold: Samples,
    /// Seconds of that on a processor, of the program alone.
    busy: Samples,
    /// Seconds to look at everything once more.
    again: Samples,
    /// Requests to both registries while nothing had changed.
    requests: Samples,
    /// Resident at most, of one process, in MiB.
    memory: Samples,
    /// Bytes that the registry of the copies got.
    sent: u64,
    /// Bytes that the registry of the originals gave.
    fetched: u64,
    /// Requests to both registries for the first copy.
    cold_requests: usize,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args {
        rounds,
        percent,
        program,
    } = args;
    let coral = match program {
        Some(program) => program,
        None => image::build(root, &["kubectl-coral"]).await?.join("kubectl-coral"),
    };
    let tools = Tools::build(&Lines).await?;
    let programs = Programs {
        coral,
        crane: tools.node("crane"),
        regsync: Tools::build_peers(&Lines).await?.join("regsync"),
    };
    let folder = target_dir().join("bench/mirror");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let machine = machine::facts("two CNCF distribution registries on this machine");
    println!("{}", machine::line(&machine));

    let origin = Registry::start(&tools.node("registry"), &folder, "origin").await?;
    let stock = Stock::publish(origin.host(), percent, &folder).await?;
    println!(
        "{} images, {} MB, of which {} MB are distinct",
        stock.images().len(),
        stock.bytes() / 1_000_000,
        stock.distinct_bytes() / 1_000_000
    );
    let bench = Bench {
        tools,
        programs,
        folder: folder.clone(),
        origin,
        stock,
    };
    let mut costs = Way::ALL.map(|way| (way, Cost::default()));
    for (way, cost) in &mut costs {
        bench.count(*way, cost).await?;
    }
    let refresh = bench.refresh().await?;
    let mut ratios = Samples::default();
    for round in 0..rounds {
        let mut order: Vec<_> = costs.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        let (mut ours, mut best) = (0.0, f64::INFINITY);
        for (way, cost) in order {
            let seconds = bench.time(*way, cost).await?;
            if *way == Way::Coral {
                ours = seconds;
            } else {
                best = best.min(seconds);
            }
        }
        ratios.push(ours / best);
    }
    let figures = bench.figures(ratios, refresh, &costs);
    println!("\n{}", table(&figures));
    let mut result = to_json(&machine, &figures);
    result["images"] = json!(bench.stock.images().len());
    result["bytes"] = json!(bench.stock.bytes());
    result["distinct_bytes"] = json!(bench.stock.distinct_bytes());
    result["ways"] = costs.iter().map(|(way, cost)| cost.json(*way)).collect();
    drop(bench);
    fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    if percent == 100 {
        write_result("mirror", &result)?;
    }
    Ok(())
}

/// Where it is measured.
struct Bench {
    tools: Tools,
    programs: Programs,
    folder: PathBuf,
    origin: Registry,
    stock: Stock,
}

impl Bench {
    /// Copies everything with counters in between, and looks whether the copies are what the originals are. Warms everything up, too.
    async fn count(&self, way: Way, cost: &mut Cost) -> Result<()> {
        let destination = self.destination().await?;
        let from = Counter::start(self.origin.host()).await?;
        let to = Counter::start(destination.host()).await?;
        let asked = self.origin.requests()?;
        self.run(way, from.host(), to.host()).await?;
        (cost.sent, cost.fetched) = (to.there(), from.back());
        cost.cold_requests = self.origin.requests()? - asked + destination.requests()?;
        self.stock.ensure_copied(from.host(), destination.host()).await?;
        println!(
            "{}: {} MB fetched, {} MB sent, {} requests",
            way.name(),
            cost.fetched / 1_000_000,
            cost.sent / 1_000_000,
            cost.cold_requests
        );
        destination.remove()
    }

    /// Copies everything to a registry that has nothing, and once more. Returns the seconds of the first copy.
    async fn time(&self, way: Way, cost: &mut Cost) -> Result<f64> {
        let destination = self.destination().await?;
        let cold = self.run(way, self.origin.host(), destination.host()).await?;
        let before = self.origin.requests()? + destination.requests()?;
        let again = self.run(way, self.origin.host(), destination.host()).await?;
        let requests = self.origin.requests()? + destination.requests()? - before;
        println!("{}: {:.2} s, {:.2} s", way.name(), cold.seconds, again.seconds);
        cost.cold.push(cold.seconds);
        cost.busy.push(cold.busy);
        cost.memory.push(cold.mebibytes);
        cost.again.push(again.seconds);
        cost.requests.push(u32::try_from(requests)?.into());
        destination.remove()?;
        Ok(cold.seconds)
    }

    /// Requests of the mirror controller for each image and interval, when nothing changes.
    async fn refresh(&self) -> Result<f64> {
        let destination = self.destination().await?;
        self.run(Way::Coral, self.origin.host(), destination.host()).await?;
        let requests = Box::pin(refresh::requests(
            &self.folder,
            self.stock.images(),
            &self.origin,
            &destination,
        ));
        let requests = requests.await?;
        println!("the controller: {requests:.2} requests for each image and interval");
        destination.remove()?;
        Ok(requests)
    }

    async fn destination(&self) -> Result<Registry> {
        Registry::start(&self.tools.node("registry"), &self.folder, "copies").await
    }

    async fn run(&self, way: Way, from: &str, to: &str) -> Result<Run> {
        let (programs, folder) = (self.programs.clone(), self.folder.clone());
        let images = self.stock.images().to_vec();
        let (from, to) = (from.to_owned(), to.to_owned());
        // It waits for processes and looks at them.
        let run = tokio::task::spawn_blocking(move || way.run(&programs, &folder, &images, &from, &to)).await??;
        ensure!(run.seconds > 0.0, "no time has passed");
        Ok(run)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "sizes in megabytes, and counts of a few thousand"
    )]
    fn figures(&self, ratios: Samples, refresh: f64, costs: &[(Way, Cost)]) -> Vec<Figure> {
        let images = self.stock.images().len() as f64;
        let Some((_, ours)) = costs.first() else {
            return Vec::new();
        };
        let mut figures = vec![
            Figure::new("cold / the fastest other way of the round", "×", ratios).at_most(0.8),
            Figure::new(
                "bytes sent / distinct bytes",
                "×",
                ours.sent as f64 / self.stock.distinct_bytes() as f64,
            )
            .at_most(1.01),
            // What falls on the edge of the time may be in or out.
            Figure::new(
                "requests per image and interval, nothing changed (controller)",
                "",
                refresh,
            )
            .at_most(1.05),
            // The command knows nothing from before: it asks for the original, and for the copy.
            Figure::new(
                "requests per image, nothing changed (command)",
                "",
                ours.requests.over(images),
            ),
            Figure::new("memory (RSS) at most", "MiB", ours.memory.clone()).at_most(64.0),
        ];
        for (way, cost) in costs {
            figures.push(Figure::new(format!("{}: cold", way.name()), "s", cost.cold.clone()));
            figures.extend([
                Figure::new("  of that on a processor", "s", cost.busy.clone()),
                Figure::new("  nothing changed", "s", cost.again.clone()),
                Figure::new("  requests, nothing changed", "", cost.requests.clone()),
                Figure::new("  requests, cold", "", cost.cold_requests as f64),
                Figure::new("  sent", "MB", cost.sent as f64 / 1e6),
                Figure::new("  fetched", "MB", cost.fetched as f64 / 1e6),
                Figure::new("  memory (RSS) of a process, at most", "MiB", cost.memory.clone()),
            ]);
        }
        figures
    }
}

impl Cost {
    fn json(&self, way: Way) -> Value {
        json!({
            "way": way.name(),
            "cold_seconds": self.cold.median(),
            "busy_seconds": self.busy.median(),
            "again_seconds": self.again.median(),
            "again_requests": self.requests.median(),
            "cold_requests": self.cold_requests,
            "sent_bytes": self.sent,
            "fetched_bytes": self.fetched,
            "mebibytes": self.memory.median(),
        })
    }
}
