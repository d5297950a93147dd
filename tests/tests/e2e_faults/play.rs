//! One row of the table: the fault begins, lasts and ends, and everything comes right.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::faulty_registry::{Conduct, FaultyRegistry};
use serde_json::{Value, json};

use crate::{
    report::Measured,
    site::{NODES, SMALL_NODE, Site, on},
    storm::storm,
    table::{Fault, PATIENCE, Row, Victim},
};

/// Of an image that is to be pulled while something happens. At 1 KB/s that is more than a minute.
const SLOW_IMAGE: usize = 80_000;
/// Any other image.
const IMAGE: usize = 40_000;
/// Of the image that the kubelet collects.
const LARGE_IMAGE: usize = 20_000_000;
/// What is left of the disk of 300 MB when it is filled: less than the kubelet puts up with.
const LEFT: u64 = 25_000_000;

/// What a row has done so far.
struct Played {
    /// When the fault began and when it was over.
    began: Instant,
    over: Instant,
    images: Vec<String>,
    /// How many nodes pull each of them.
    nodes: usize,
    note: String,
}

/// Plays one row. The fault lasts for `lasting`, where the table leaves it open.
pub(crate) async fn play(site: &Site, row: &Row, lasting: Duration) -> Result<Measured> {
    let name = format!("row{:04}", site.number());
    let played = match row.fault {
        Fault::Killed(victim) => killed(site, &name, victim, lasting).await,
        Fault::Registry(conduct, reasons) => registry(site, &name, conduct, reasons, lasting).await,
        Fault::CutOff => cut_off(site, &name, lasting).await,
        Fault::DiskFills => disk_fills(site, &name).await,
        Fault::ClockJumps => clock_jumps(site, &name, lasting).await,
        Fault::NodeReplaced => node_replaced(site, &name).await,
        Fault::Storm(count) => {
            let (images, ready, over) = storm(site, &name, count, row.allowed).await?;
            let began = over.checked_sub(ready).unwrap_or(over);
            let note = format!("all Ready after {:.1} s", ready.as_secs_f64());
            Ok(Played::everywhere(began, over, images, note))
        }
    }?;
    let right = site
        .checker
        .right(played.over, row.allowed, |wrong| site.concerns(wrong, &name))
        .await?;
    let mut most = 0;
    for image in &played.images {
        let pulls = site.pulls(image)?;
        let limit = row.most_pulls * played.nodes;
        ensure!(pulls <= limit, "{image} was pulled {pulls} times, more than {limit}");
        most = most.max(pulls);
    }
    // A row leaves nothing behind.
    for suffix in ["", "-late"] {
        let there = site.prefetches().get_opt(&format!("{name}{suffix}")).await?;
        if there.is_some() {
            site.delete(&format!("{name}{suffix}")).await?;
        }
    }
    let gone = site
        .checker
        .right(Instant::now(), PATIENCE, |wrong| site.concerns(wrong, &name))
        .await;
    gone.context("after its Prefetches were deleted")?;
    Ok(Measured {
        prefix: name,
        lasted: played.over - played.began,
        right_after: right,
        pulls: most,
        note: played.note,
    })
}

/// Images that both nodes pull at the same time.
fn everywhere(images: &[&str]) -> Value {
    json!({"images": images, "nodeSelector": on(&NODES), "parallelism": 2})
}

impl Played {
    /// A row in which every node pulls these images.
    fn everywhere(began: Instant, over: Instant, images: Vec<String>, note: String) -> Self {
        Self {
            began,
            over,
            images,
            nodes: NODES.len(),
            note,
        }
    }
}

/// A Prefetch of two images: one that is there, and one whose pull is under way.
async fn in_the_middle(site: &Site, name: &str) -> Result<(FaultyRegistry, [String; 2])> {
    let registry = site.cluster.faulty_registry().await?;
    let held = site.publish(&format!("{name}-held"), IMAGE);
    let slow = site.publish(&format!("{name}-slow"), SLOW_IMAGE);
    let slow = slow.replace(&site.cluster.registry(), &registry.host());
    registry.conduct(Conduct::Slow);
    site.prefetch(name, everywhere(&[&held, &slow])).await?;
    for node in NODES {
        site.holds(node, &held, true, PATIENCE).await?;
    }
    site.is_pulling(&NODES, &slow).await?;
    Ok((registry, [held, slow]))
}

async fn late(site: &Site, name: &str) -> Result<String> {
    let image = site.publish(&format!("{name}-late"), IMAGE);
    site.prefetch(&format!("{name}-late"), everywhere(&[&image])).await?;
    Ok(image)
}

async fn killed(site: &Site, name: &str, victim: Victim, lasting: Duration) -> Result<Played> {
    if let Some((program, processes)) = victim.in_pods() {
        // One of them may have been the victim of a row before.
        site.runs(program, processes).await?;
    }
    let (registry, images) = in_the_middle(site, name).await?;
    let mut images = images.to_vec();
    let node = site.cluster.node(NODES[0])?;
    let leader = site.leader().await?;
    let began = Instant::now();
    match victim {
        Victim::Containerd => node.kill_containerd()?,
        Victim::Kubelet => node.kill_kubelet()?,
        Victim::ApiServer => site.cluster.kill_api_server()?,
        Victim::Etcd => site.cluster.kill_etcd()?,
        Victim::Agent | Victim::Leader | Victim::Webhook => {
            let is_meant = |uid: &str| victim != Victim::Leader || uid == leader;
            kill(site, victim, is_meant)?;
        }
    }
    // Nobody who could look after it is left: an image goes, and somebody wants another one.
    if victim != Victim::Containerd {
        node.remove_image(&images[0])?;
    }
    if !matches!(victim, Victim::ApiServer | Victim::Etcd) {
        images.push(late(site, name).await?);
    }
    tokio::time::sleep(lasting).await;
    match victim {
        Victim::Containerd | Victim::Kubelet => node.start().await?,
        Victim::ApiServer | Victim::Etcd => site.cluster.start_etcd().await?,
        // The other one goes on.
        Victim::Leader => {}
        // When they are started again is the kubelet's to say.
        Victim::Agent | Victim::Webhook => {
            if let Some((program, processes)) = victim.in_pods() {
                site.runs(program, processes).await?;
            }
        }
    }
    registry.conduct(Conduct::Well);
    let over = Instant::now();
    let mut seen = String::new();
    if victim == Victim::Webhook {
        site.webhook_works(&images[0], PATIENCE).await?;
        seen = format!("injects after {:.1} s", over.elapsed().as_secs_f64());
    }
    keep(registry, site, name, &images).await?;
    Ok(Played::everywhere(began, over, images, seen))
}

/// Kills the processes of a part of Coral in the pods whose UIDs are meant.
fn kill(site: &Site, victim: Victim, is_meant: impl Fn(&str) -> bool) -> Result<()> {
    let (program, _) = victim.in_pods().context("it runs in no pod")?;
    let mut killed = 0;
    for process in site.cluster.pod_processes(program)? {
        if is_meant(&process.pod_uid) {
            process.kill()?;
            killed += 1;
        }
    }
    ensure!(killed > 0, "{program} runs nowhere");
    Ok(())
}

/// Holds on to the registry until what comes from it is there.
async fn keep(registry: FaultyRegistry, site: &Site, name: &str, images: &[String]) -> Result<()> {
    for node in NODES {
        for image in images {
            site.holds(node, image, true, PATIENCE)
                .await
                .with_context(|| format!("what {name} asks for"))?;
        }
    }
    drop(registry);
    Ok(())
}

async fn registry(site: &Site, name: &str, conduct: Conduct, reasons: &[&str], lasting: Duration) -> Result<Played> {
    let registry = site.cluster.faulty_registry().await?;
    let image = site.publish(&format!("{name}-image"), SLOW_IMAGE);
    let image = image.replace(&site.cluster.registry(), &registry.host());
    let began = Instant::now();
    registry.conduct(conduct);
    site.prefetch(name, everywhere(&[&image])).await?;
    let note = if conduct == Conduct::Slow {
        site.is_pulling(&NODES, &image).await?;
        "said to be pulling".to_owned()
    } else if reasons.is_empty() {
        String::new()
    } else {
        format!("said to be {}", site.is_told(name, reasons).await?)
    };
    tokio::time::sleep(lasting.saturating_sub(began.elapsed())).await;
    // A runtime goes on where a connection was cut, and so gets there.
    for node in NODES.into_iter().filter(|_| conduct != Conduct::Cuts) {
        ensure!(
            !site.cluster.node(node)?.has_image(&image)?,
            "{image} came from a registry that fails"
        );
    }
    registry.conduct(Conduct::Well);
    let over = Instant::now();
    let images = vec![image];
    keep(registry, site, name, &images).await?;
    Ok(Played::everywhere(began, over, images, note))
}

async fn cut_off(site: &Site, name: &str, lasting: Duration) -> Result<Played> {
    let (registry, images) = in_the_middle(site, name).await?;
    let mut images = images.to_vec();
    let agents = site.agent_addresses(&NODES).await?;
    let began = Instant::now();
    site.cluster.cut_off(&agents)?;
    let fault = async {
        site.cluster.node(NODES[0])?.remove_image(&images[0])?;
        registry.conduct(Conduct::Well);
        let wanted = late(site, name).await?;
        // An agent needs no API server to keep what it was asked to keep, nor to bring a pull to its end.
        for image in &images {
            site.holds(NODES[0], image, true, PATIENCE).await?;
        }
        tokio::time::sleep(lasting.saturating_sub(began.elapsed())).await;
        ensure!(
            !site.cluster.node(NODES[0])?.has_image(&wanted)?,
            "the agents were not cut off"
        );
        Ok(wanted)
    };
    let wanted = fault.await;
    site.cluster.reconnect()?;
    let over = Instant::now();
    images.push(wanted?);
    keep(registry, site, name, &images).await?;
    Ok(Played::everywhere(began, over, images, String::new()))
}

async fn disk_fills(site: &Site, name: &str) -> Result<Played> {
    let filler = site.cluster.node(SMALL_NODE)?.path("/var/lib/filler")?;
    let image = site.publish(&format!("{name}-large"), LARGE_IMAGE);
    // The next image that is to be collected should not be spared because this one is there to go first.
    let spec = json!({"images": [image], "nodeSelector": on(&[SMALL_NODE]), "removalPolicy": "Remove"});
    site.prefetch(name, spec).await?;
    site.holds(SMALL_NODE, &image, true, PATIENCE).await?;
    let began = Instant::now();
    fill(&filler)?;
    let collected = site.holds(SMALL_NODE, &image, false, 2 * PATIENCE).await;
    let note = format!("collected by the kubelet after {:.1} s", began.elapsed().as_secs_f64());
    fs::remove_file(&filler).context("make room")?;
    collected?;
    Ok(Played {
        began,
        over: Instant::now(),
        images: vec![image],
        nodes: 1,
        note,
    })
}

fn fill(filler: &Path) -> Result<()> {
    fs::write(filler, []).context("begin to fill the disk")?;
    let disk = rustix::fs::statvfs(filler).context("look at the disk")?;
    let free = disk.f_bavail * disk.f_frsize;
    let bytes = usize::try_from(free.saturating_sub(LEFT)).context("count bytes")?;
    fs::write(filler, vec![0; bytes]).context("fill the disk")
}

async fn clock_jumps(site: &Site, name: &str, lasting: Duration) -> Result<Played> {
    let light = site.skewed.name();
    let image = site.publish(&format!("{name}-image"), IMAGE);
    let spec = json!({"images": [image], "nodeSelector": on(&[light])});
    site.prefetch(name, spec).await?;
    site.holds(light, &image, true, PATIENCE).await?;
    let began = Instant::now();
    site.skewed.set(Duration::from_hours(1))?;
    // It lives by that clock for more than the time between two looks.
    tokio::time::sleep(lasting).await;
    site.skewed.set(Duration::ZERO)?;
    site.cluster.node(light)?.remove_image(&image)?;
    let over = Instant::now();
    // The agent sees it go and fetches it again.
    site.holds(light, &image, true, PATIENCE).await?;
    Ok(Played {
        began,
        over,
        images: vec![image],
        nodes: 1,
        note: format!("noticed and fetched again after {:.1} s", over.elapsed().as_secs_f64()),
    })
}

async fn node_replaced(site: &Site, name: &str) -> Result<Played> {
    let image = site.publish(&format!("{name}-image"), IMAGE);
    let spec = json!({"images": [image], "nodeSelector": on(&[SMALL_NODE])});
    site.prefetch(name, spec).await?;
    site.holds(SMALL_NODE, &image, true, PATIENCE).await?;
    let began = Instant::now();
    site.cluster.remove_node(SMALL_NODE).await?;
    let options = coral_tests::NodeOptions {
        disk: Some("300m".to_owned()),
        ..coral_tests::NodeOptions::default()
    };
    let node = site.cluster.add_node(options).await?;
    ensure!(node.name() == SMALL_NODE, "the new node is {}", node.name());
    Ok(Played {
        began,
        over: Instant::now(),
        images: vec![image],
        nodes: 1,
        note: String::new(),
    })
}
