//! What a Prefetch takes from beginning to end on real nodes, and what others would take.
//!
//! Real containerds and kubelets, a registry, and Coral's programs as they are shipped, as processes of this machine. What is compared
//! takes turns, so that what else the machine does cancels out as far as it can.

mod peers;
mod site;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use coral_api::{NodeImages, node_images::ImageState};
use coral_tests::{
    cluster::NodeHandle,
    relay::Relay,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use self::{
    peers::{Cost, Way},
    site::{PATIENCE, Site},
};
use super::{
    api_server::{Kind, Requests},
    figures::{Figure, Samples, table, to_json},
    machine, write_result,
};

const SMALL_IMAGES: usize = 20;
const SMALL_BYTES: usize = 1_000_000;
const LARGE_BYTES: usize = 200_000_000;
const FLEET_BYTES: usize = 5_000_000;
/// Nodes that pull at the same time, where nothing keeps them from it.
const FLEET: usize = 4;
/// What the uplink of the registry lets pass in a second: few enough bytes that one connection can use it up.
const UPLINK: u64 = 2_000_000;
const SAMPLE: Duration = Duration::from_millis(250);
/// How long nothing may have been written before a count is taken for the last one.
const REST: Duration = Duration::from_secs(6);
/// What Coral writes.
const RESOURCES: &[&str] = &["events", "nodeimages", "nodes", "prefetches"];

/// What a Prefetch takes from beginning to end on real nodes, and what others would take.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Rounds of the comparison with other ways.
    #[arg(long, default_value_t = 3)]
    peer_rounds: usize,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args { rounds, peer_rounds } = args;
    let mut site = Site::start(root).await?;
    let machine = machine::facts("containerd and kubelet of the tests' cluster");
    println!("{}", machine::line(&machine));
    let large = site.publish("large", 1, LARGE_BYTES)?;
    let small = site.publish("small", SMALL_IMAGES, SMALL_BYTES)?;
    let mut figures = Vec::new();

    let Overhead { bare, coral, added } = overhead(&site, "large", &large, rounds).await?;
    figures.extend([
        Figure::new("one 200 MB image: Coral adds", "s", added).at_most(0.5),
        Figure::new("  bare CRI pull", "s", bare),
        Figure::new("  Prefetch created → Ready", "s", coral),
    ]);
    let Overhead { bare, coral, added } = overhead(&site, "small", &small, rounds).await?;
    figures.extend([
        Figure::new("20 images of 1 MB: Coral adds", "s", added).at_most(0.6),
        Figure::new("  bare CRI pulls, 4 at a time", "s", bare),
        Figure::new("  Prefetch created → Ready", "s", coral),
    ]);
    let light = site.light();
    figures.extend([
        Figure::new(
            "API writes, 20 images on 1 node",
            "",
            writes(&site, "one", &small, &light[..1]).await?,
        )
        .at_most(8.0),
        Figure::new(
            "API writes, 20 images on 5 nodes",
            "",
            writes(&site, "five", &small, light).await?,
        )
        .at_most(30.0),
        Figure::new(
            "removed behind our back → noticed",
            "s",
            noticed(&site, &small[..1], rounds).await?,
        )
        .at_most(10.0),
    ]);
    let (cold, warm) = pod_starts(&site, &large, rounds).await?;
    figures.extend([
        Figure::new("pod start, 200 MB image, cold", "s", cold),
        Figure::new("pod start, image prefetched", "s", warm),
    ]);
    let (budgets, timelines) = budgets(&site).await?;
    figures.extend(budgets);

    peers::prepare(&site)?;
    let mut costs = Way::ALL.map(|way| (way, Cost::default()));
    for round in 0..peer_rounds {
        for (turn, (way, cost)) in costs.iter_mut().enumerate() {
            let images = site.tagged(&small, &format!("peer-{round}-{turn}"))?;
            Box::pin(peers::run(&site, *way, &images, round * 10 + turn, cost)).await?;
        }
    }
    let mut of_ways = Vec::new();
    for (way, cost) in &costs {
        let figure =
            |what: &str, unit, samples: &Samples| Figure::new(format!("{}: {what}", way.name()), unit, samples.clone());
        of_ways.extend([
            figure("all there", "s", &cost.there),
            figure("API writes", "", &cost.writes),
            figure("pods", "", &cost.pods),
            figure("memory", "MiB", &cost.mebibytes),
        ]);
    }
    let mut agents = Samples::default();
    for agent in &mut site.agents {
        agent.ensure_runs()?;
        agents.push(agent.memory()?.now);
    }
    site.controller.ensure_runs()?;
    figures.extend([
        Figure::new("memory (RSS) of an agent", "MiB", agents).at_most(12.0),
        Figure::new("memory (RSS) of the controller", "MiB", site.controller.memory()?.now).at_most(25.0),
    ]);

    println!("\n{}\n\n{}", table(&of_ways), table(&figures));
    let mut result = to_json(&machine, &figures);
    result["peers"] = costs.iter().map(|(way, cost)| cost.json(*way)).collect();
    result["registry"] = timelines;
    write_result("pull", &result)?;
    let Site {
        cluster,
        controller,
        agents,
        ..
    } = site;
    drop((controller, agents));
    cluster.down().await
}

#[derive(Default)]
struct Overhead {
    bare: Samples,
    coral: Samples,
    /// Differences of neighbours.
    added: Samples,
}

/// Brings these images to one node with and without Coral, in turns. One round more than is counted warms everything up.
async fn overhead(site: &Site, name: &str, images: &[String], rounds: usize) -> Result<Overhead> {
    let mut overhead = Overhead::default();
    let node = &site.light()[..1];
    for round in 0..=rounds {
        let (mut bare, mut coral) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let images = site.tagged(images, &format!("bare-{round}"))?;
                bare = site.pull_bare(&node[0], &images).await?;
                site.remove(node, &images).await?;
            } else {
                let images = site.tagged(images, &format!("coral-{round}"))?;
                let name = format!("{name}-{round}");
                coral = site.prefetch(&name, &images, node, &json!("25%")).await?;
                site.forget(&name, node, &images).await?;
            }
        }
        if round > 0 {
            overhead.bare.push(bare.as_secs_f64());
            overhead.coral.push(coral.as_secs_f64());
            overhead.added.push(coral.as_secs_f64() - bare.as_secs_f64());
        }
    }
    Ok(overhead)
}

/// What Coral writes to the API server for these images on these nodes.
async fn writes(site: &Site, name: &str, images: &[String], nodes: &[NodeHandle]) -> Result<f64> {
    let is_counted = |kind: &Kind| {
        // What nodes say of themselves is none of Coral's, nor is the Prefetch itself.
        let is_of_node = kind.is_of(&["nodes"]) && kind.subresource == "status";
        let is_of_user = kind.is_of(&["prefetches"]) && kind.verb == "POST";
        kind.is_write() && kind.is_of(RESOURCES) && !is_of_node && !is_of_user
    };
    let images = site.tagged(images, name)?;
    let client = site.cluster.client();
    let before = Requests::settle(&client, REST, PATIENCE, is_counted).await?;
    site.prefetch(name, &images, nodes, &json!("100%")).await?;
    let written = Requests::settle(&client, REST, PATIENCE, is_counted)
        .await?
        .since(&before);
    println!(
        "{} images on {} nodes:\n{}",
        images.len(),
        nodes.len(),
        written.table(is_counted)
    );
    site.forget(name, nodes, &images).await?;
    Ok(u32::try_from(written.total(is_counted))?.into())
}

/// How long it takes until the status says that an image has gone which somebody has removed.
async fn noticed(site: &Site, images: &[String], rounds: usize) -> Result<Samples> {
    let images = site.tagged(images, "removed")?;
    let node = &site.light()[..1];
    site.prefetch("removed", &images, node, &json!("100%")).await?;
    let api: Api<NodeImages> = Api::all(site.cluster.client());
    let is_there = async || {
        let status = api.get(node[0].name()).await?.status.unwrap_or_default();
        let found = status.images.into_iter().find(|image| image.image == images[0]);
        anyhow::Ok(found.map(|image| (image.state, image.last_pull_time)))
    };
    let mut samples = Samples::default();
    for _ in 0..rounds {
        let before = is_there().await?;
        let began = Instant::now();
        site.remove(node, &images).await?;
        // It is fetched again at once: what counts is that the status is not what it was.
        let noticed = eventually("the status to say that the image has gone", PATIENCE, async || {
            let now = is_there().await?;
            Ok(if now == before {
                Look::NotYet(now)
            } else {
                Look::Done(began.elapsed())
            })
        })
        .await?;
        samples.push(noticed.as_secs_f64());
        eventually("the image to be back", PATIENCE, async || {
            let now = is_there().await?;
            Ok(if matches!(now, Some((ImageState::Present, _))) {
                Look::Done(())
            } else {
                Look::NotYet(now)
            })
        })
        .await?;
    }
    site.forget("removed", node, &images).await?;
    Ok(samples)
}

/// How long a pod takes until it runs, whose image is not there and whose image was prefetched.
async fn pod_starts(site: &Site, images: &[String], rounds: usize) -> Result<(Samples, Samples)> {
    let (mut cold, mut warm) = (Samples::default(), Samples::default());
    let node = &site.kubelets()[..1];
    for round in 0..rounds {
        let images_of_round = site.tagged(images, &format!("cold-{round}"))?;
        cold.push(start_pod(site, &node[0], &images_of_round[0]).await?.as_secs_f64());
        site.remove(node, &images_of_round).await?;
        let images_of_round = site.tagged(images, &format!("warm-{round}"))?;
        let name = format!("warm-{round}");
        site.prefetch(&name, &images_of_round, node, &json!("100%")).await?;
        warm.push(start_pod(site, &node[0], &images_of_round[0]).await?.as_secs_f64());
        site.forget(&name, node, &images_of_round).await?;
    }
    Ok((cold, warm))
}

/// Runs a pod on a node and takes it away again.
async fn start_pod(site: &Site, node: &NodeHandle, image: &str) -> Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(site.cluster.client(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "start"},
        "spec": {
            "nodeName": node.name(),
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"}],
            "terminationGracePeriodSeconds": 0,
        },
    }))?;
    let began = Instant::now();
    pods.create(&PostParams::default(), &pod)
        .await
        .context("create a pod")?;
    let took = eventually("the pod to run", PATIENCE, async || {
        let status = pods.get("start").await?.status.unwrap_or_default();
        Ok(if status.phase.as_deref() == Some("Running") {
            Look::Done(began.elapsed())
        } else {
            Look::NotYet(status.phase)
        })
    })
    .await?;
    pods.delete("start", &DeleteParams::default()).await?;
    eventually("the pod to be gone", PATIENCE, async || {
        let pod = pods.get_opt("start").await?;
        Ok(pod.map_or(Look::Done(()), |pod| Look::NotYet(pod.status)))
    })
    .await?;
    Ok(took)
}

/// Four nodes that pull from a registry whose uplink is narrow, with the budget that is the default and without one.
async fn budgets(site: &Site) -> Result<(Vec<Figure>, Value)> {
    let relay = Relay::start(site.cluster.host_address(), &site.cluster.registry(), UPLINK).await?;
    site.cluster.trust_plain_http(&relay.host())?;
    let published = site.publish("fleet", 1, FLEET_BYTES)?;
    let nodes = &site.light()[..FLEET];
    let (mut figures, mut timelines) = (Vec::new(), Vec::new());
    for (name, parallelism) in [("budget of 25 %", "25%"), ("no budget", "100%")] {
        let tag = format!("fleet-{}", parallelism.trim_end_matches('%'));
        let images: Vec<String> = site
            .tagged(&published, &tag)?
            .into_iter()
            .map(|image| image.replacen(&site.cluster.registry(), &relay.host(), 1))
            .collect();
        let before = relay.passed_bytes();
        let began = Instant::now();
        let budget = json!(parallelism);
        let pulled = site.prefetch(&tag, &images, nodes, &budget);
        let first = async {
            let held = nodes.iter().map(|node| Box::pin(until_held(node, &images[0])));
            futures::future::select_all(held).await.0?;
            anyhow::Ok(began.elapsed())
        };
        let mut bytes: Vec<u64> = Vec::new();
        let sampled = async {
            loop {
                tokio::time::sleep(SAMPLE).await;
                bytes.push(relay.passed_bytes() - before);
            }
        };
        let (took, first) = tokio::select! {
            both = async { tokio::try_join!(pulled, first) } => both?,
            () = sampled => unreachable!("it samples for ever"),
        };
        let rates = rates(&bytes);
        figures.extend([
            Figure::new(format!("4 nodes, {name}: all Ready"), "s", took.as_secs_f64()),
            Figure::new(format!("4 nodes, {name}: first node"), "s", first.as_secs_f64()),
            Figure::new(
                format!("4 nodes, {name}: registry, at most"),
                "MB/s",
                rates.iter().copied().fold(0.0, f64::max),
            ),
        ]);
        timelines.push(json!({"budget": name, "sample_seconds": SAMPLE.as_secs_f64(), "megabytes_per_second": rates}));
        site.forget(&tag, nodes, &images).await?;
    }
    Ok((figures, timelines.into()))
}

async fn until_held(node: &NodeHandle, image: &str) -> Result<()> {
    eventually(&format!("{image} on {}", node.name()), PATIENCE, async || {
        let asked = node.clone();
        let held = tokio::task::spawn_blocking(move || asked.images()).await??;
        Ok(if held.iter().any(|held| held == image) {
            Look::Done(())
        } else {
            Look::NotYet(held.len())
        })
    })
    .await
}

/// From bytes so far to megabytes per second.
#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn rates(bytes: &[u64]) -> Vec<f64> {
    let earlier = std::iter::once(&0).chain(bytes);
    let rate = |(now, before): (&u64, &u64)| (now - before) as f64 / 1e6 / SAMPLE.as_secs_f64();
    bytes.iter().zip(earlier).map(rate).collect()
}
