//! What the agent adds to a pull, and what it takes when it has nothing to do.
//!
//! The measure of a pull is the same pull of the same image on the same node, asked of the runtime directly. The two take turns, and
//! which is first alternates too; each figure is a ratio of neighbours, so that what else the machine does cancels out.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::images;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    figures::{Figure, Samples, table, to_json},
    machine,
    node::Ground,
};
use crate::{cluster::target_dir, image};

/// How many pulls the agent runs at the same time by default.
const PARALLEL_PULLS: usize = 4;
const SMALL_IMAGES: usize = 20;
const SMALL_BYTES: usize = 5_000_000;
const LARGE_BYTES: usize = 200_000_000;
/// How many images a node holds when memory and idling are measured.
const HELD_IMAGES: usize = 50;

/// What the agent adds to a pull, and what it takes when it has nothing to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 7)]
    rounds: usize,

    /// Rounds of work, 50 images each, before the memory is measured.
    #[arg(long, default_value_t = 20)]
    work: usize,

    /// How long to watch the agent do nothing, in seconds.
    #[arg(long, default_value_t = 120)]
    idle: u64,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args { rounds, work, idle } = args;
    let binaries = image::build(root, &["coral-agent"]).await?;
    let agent = binaries.join("coral-agent");
    let size = fs::metadata(&agent).context("find the agent")?.len();
    let ground = Ground::start(root, &agent).await?;
    ground.ask(&[]).await?;
    let machine = machine::facts(&ground.runtime().await?);
    println!("{}", machine::line(&machine));

    #[expect(clippy::cast_precision_loss, reason = "a size in megabytes")]
    let mut figures = vec![Figure::new("static binary", "MB", size as f64 / 1e6).at_most(8.0)];
    let large = publish(&ground, "large", 1, LARGE_BYTES)?;
    let Comparison {
        ratio,
        bare,
        coral,
        pull,
    } = compare(&ground, &large, rounds).await?;
    figures.extend([
        Figure::new("one 200 MB image: Coral / bare CRI", "×", ratio).at_most(1.05),
        Figure::new("  bare CRI", "s", bare),
        Figure::new("  Coral, from the spec to the status", "s", coral),
        Figure::new("  of that the pull, by the agent's own clock", "s", pull),
    ]);
    let small = publish(&ground, "small", SMALL_IMAGES, SMALL_BYTES)?;
    let Comparison { ratio, bare, coral, .. } = compare(&ground, &small, rounds).await?;
    figures.extend([
        Figure::new("20 images of 5 MB, 4 at a time: Coral / bare", "×", ratio).at_most(1.10),
        Figure::new("  bare CRI", "s", bare),
        Figure::new("  Coral, from the spec to the status", "s", coral),
    ]);
    figures.extend(at_rest(&ground, work, Duration::from_secs(idle)).await?);

    println!("\n{}", table(&figures));
    let file = target_dir().join("bench/agent.json");
    fs::write(&file, format!("{:#}\n", to_json(&machine, &figures)))
        .with_context(|| format!("failed to write {}", file.display()))?;
    println!("\n{}", file.display());
    ground.cluster.down().await
}

/// Images that share nothing but a few kilobytes.
fn publish(ground: &Ground, name: &str, count: usize, bytes: usize) -> Result<Vec<String>> {
    let registry = ground.cluster.open_registry();
    let publish = |number| {
        let name = format!("bench/{name}-{number}");
        Ok(images::tiny(&registry, &name, "v1", bytes, &name)?.reference)
    };
    (0..count).map(publish).collect()
}

#[derive(Default)]
struct Comparison {
    ratio: Samples,
    bare: Samples,
    coral: Samples,
    /// Seconds that the pulls took, of all images together.
    pull: Samples,
}

/// Pulls these images with and without Coral, in turns. One round more than is counted warms everything up.
async fn compare(ground: &Ground, images: &[String], rounds: usize) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    for round in 0..=rounds {
        let (bare, coral, pull) = if round % 2 == 0 {
            let bare = pull_bare(ground, &tagged(ground, images, &format!("bare-{round}"))?).await?;
            let (coral, pull) = pull_with_coral(ground, &tagged(ground, images, &format!("coral-{round}"))?).await?;
            (bare, coral, pull)
        } else {
            let (coral, pull) = pull_with_coral(ground, &tagged(ground, images, &format!("coral-{round}"))?).await?;
            let bare = pull_bare(ground, &tagged(ground, images, &format!("bare-{round}"))?).await?;
            (bare, coral, pull)
        };
        if round > 0 {
            comparison.ratio.push(coral / bare);
            comparison.bare.push(bare);
            comparison.coral.push(coral);
            comparison.pull.push(pull);
        }
    }
    Ok(comparison)
}

/// The same images under names that neither the runtime nor the agent has heard.
fn tagged(ground: &Ground, images: &[String], tag: &str) -> Result<Vec<String>> {
    let registry = ground.cluster.open_registry();
    let tagged = |image: &String| {
        images::retag(&registry, image, tag)?;
        let (repository, _) = image.rsplit_once(':').context("the image has no tag")?;
        Ok(format!("{repository}:{tag}"))
    };
    images.iter().map(tagged).collect()
}

/// Seconds until the runtime has pulled these images, as many at a time as the agent would have it do.
async fn pull_bare(ground: &Ground, images: &[String]) -> Result<f64> {
    let permits = Arc::new(Semaphore::new(PARALLEL_PULLS));
    let began = Instant::now();
    let mut pulls = JoinSet::new();
    for image in images {
        let (bare, permits, image) = (ground.bare.clone(), Arc::clone(&permits), image.clone());
        pulls.spawn(async move {
            let _permit = permits.acquire().await?;
            bare.pull(&image).await
        });
    }
    while let Some(pulled) = pulls.join_next().await {
        pulled??;
    }
    let took = began.elapsed();
    remove(ground, images).await?;
    Ok(took.as_secs_f64())
}

/// Seconds until the agent has said that these images are there, and how many of them it has counted as pulls.
async fn pull_with_coral(ground: &Ground, images: &[String]) -> Result<(f64, f64)> {
    const SECONDS: &str = "coral_agent_pull_duration_seconds_sum";
    const COUNT: &str = "coral_agent_pull_duration_seconds_count";
    let (seconds, count) = (ground.metric(SECONDS).await?, ground.metric(COUNT).await?);
    let took = ground.ask(images).await?;
    let pulled = (ground.metric(COUNT).await? - count).round();
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let expected = images.len() as f64;
    ensure!(
        (pulled - expected).abs() < 0.5,
        "{expected} images were asked for and {pulled} pulled"
    );
    let pull = ground.metric(SECONDS).await? - seconds;
    ground.ask(&[]).await?;
    remove(ground, images).await?;
    Ok((took.as_secs_f64(), pull))
}

async fn remove(ground: &Ground, images: &[String]) -> Result<()> {
    for image in images {
        ground.bare.remove(image).await?;
    }
    Ok(())
}

/// Memory after much work with 50 images, and work while nothing is to be done.
async fn at_rest(ground: &Ground, rounds: usize, idle: Duration) -> Result<Vec<Figure>> {
    let images = publish(ground, "held", HELD_IMAGES, 20_000)?;
    let young = ground.memory()?.0;
    for round in 0..rounds {
        // Two sets in turns: by the time that names come again the agent has noticed that they went.
        let tag = if round % 2 == 0 { "even" } else { "odd" };
        let images = tagged(ground, &images, tag)?;
        ground.ask(&images).await?;
        if round + 1 < rounds {
            ground.ask(&[]).await?;
            remove(ground, &images).await?;
        }
    }
    let (old, most) = ground.memory()?;
    // The last status of the last round may still be under way.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let (before, began) = (ground.processor_time()?, Instant::now());
    tokio::time::sleep(idle).await;
    let busy = ground.processor_time()?.saturating_sub(before).as_secs_f64();
    let share = 100.0 * busy / began.elapsed().as_secs_f64();
    Ok(vec![
        Figure::new("memory (RSS) with 50 images after the work", "MiB", old).at_most(12.0),
        Figure::new("  before it", "MiB", young),
        Figure::new("  at most", "MiB", most),
        Figure::new("idle with 50 images, of one processor", "%", share).at_most(0.2),
    ])
}
