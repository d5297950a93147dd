//! What thousands of nodes cost: hollow ones, each with the real agent, a real API server, and the controller as it is shipped.

mod accounts;
mod fleet;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use coral_api::{
    ImageReference, Prefetch,
    conditions::{self, READY},
};
use coral_tests::{
    cluster::clean_up,
    hollow::ControlPlane,
    wait::{Look, eventually},
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

pub(crate) use self::fleet::{Args as HollowArgs, run as hollow};
use self::{accounts::Accounts, fleet::Fleets};
use super::{
    api_server::{Kind, Requests},
    coral::Program,
    figures::{Figure, table, to_json},
    machine, process, write_result,
};
use crate::{cluster::target_dir, image};

/// How long one number of nodes may take to be ready.
const PATIENCE: Duration = Duration::from_mins(15);
/// How long nothing may have been written before a count is taken for the last one.
const REST: Duration = Duration::from_secs(6);
/// What Coral reads and writes. Leases, which hollow kubelets renew, are not among it.
const RESOURCES: &[&str] = &["events", "nodeimages", "nodes", "prefetches"];
/// Kinds of objects that nobody but Coral has to do with: every request about them is its own.
const OWN: &[&str] = &["nodeimages", "prefetches"];
const GOAL_NODES: usize = 1000;

/// What thousands of nodes cost.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of nodes, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 2000, 5000])]
    nodes: Vec<usize>,

    /// Images of the Prefetch.
    #[arg(long, default_value_t = 20)]
    images: usize,

    /// How long to watch nothing happen, in seconds.
    #[arg(long, default_value_t = 60)]
    idle: u64,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args { nodes, images, idle } = args;
    let controller = image::build(root, image::PACKAGES).await?.join("coral-controller");
    let machine = machine::facts("hollow nodes: real agents, container runtimes that only pretend");
    println!("{}", machine::line(&machine));
    let mut figures = Vec::new();
    let mut rows = Vec::new();
    for count in nodes {
        println!("\n{count} nodes, {images} images");
        let row = Box::pin(measure(root, &controller, count, images, Duration::from_secs(idle))).await?;
        figures.extend(row.figures());
        rows.push(row.json());
        let mut result = to_json(&machine, &figures);
        result["rows"] = Value::Array(rows.clone());
        result["idle_seconds"] = json!(idle);
        result["images"] = json!(images);
        // After each, so that what was measured is not lost when more nodes do not fit.
        write_result("scale", &result)?;
    }
    println!("\n{}", table(&figures));
    Ok(())
}

/// What was measured with one number of nodes.
struct Row {
    nodes: usize,
    ready_seconds: f64,
    labelled_seconds: f64,
    writes_per_node: f64,
    controller_mebibytes: f64,
    controller_seconds: f64,
    api_server_seconds: f64,
    api_server_mebibytes: f64,
    etcd_seconds: f64,
    /// Requests of Coral that are no watches, per minute and node, when nothing happens.
    idle_requests: f64,
    idle_watches: f64,
    /// Share of one processor, in percent.
    idle_controller: f64,
}

impl Row {
    fn figures(&self) -> Vec<Figure> {
        let nodes = self.nodes;
        let figure = |what: &str, unit, value: f64| Figure::new(format!("{nodes} nodes: {what}"), unit, value);
        let ready = figure("Prefetch created → Ready", "s", self.ready_seconds);
        vec![
            if nodes == GOAL_NODES {
                ready.at_most(30.0)
            } else {
                ready
            },
            figure("… → every label on every node", "s", self.labelled_seconds),
            figure("writes per node", "", self.writes_per_node).at_most(5.0),
            figure("memory of the controller (most)", "MiB", self.controller_mebibytes),
            figure("processor time of the controller", "s", self.controller_seconds),
            figure("processor time of the API server", "s", self.api_server_seconds),
            figure("processor time of etcd", "s", self.etcd_seconds),
            figure("memory of the API server (most)", "MiB", self.api_server_mebibytes),
            figure("idle: requests per minute and node", "", self.idle_requests).at_most(0.1),
            figure("idle: watches begun again, the same", "", self.idle_watches),
            figure("idle: controller, of one processor", "%", self.idle_controller),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "nodes": self.nodes,
            "ready_seconds": self.ready_seconds,
            "labelled_seconds": self.labelled_seconds,
            "writes_per_node": self.writes_per_node,
            "controller_mebibytes": self.controller_mebibytes,
            "controller_seconds": self.controller_seconds,
            "api_server_seconds": self.api_server_seconds,
            "api_server_mebibytes": self.api_server_mebibytes,
            "etcd_seconds": self.etcd_seconds,
            "idle_requests": self.idle_requests,
            "idle_controller_percent": self.idle_controller,
        })
    }
}

async fn measure(root: &Path, controller: &Path, count: usize, images: usize, idle: Duration) -> Result<Row> {
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    // A run that was killed leaves it, with the nodes of then.
    let left = folder.join("scale-plane");
    if left.exists() {
        clean_up(&left)?;
    }
    let plane = ControlPlane::start(&folder, "scale-plane").await?;
    let client = plane.client();
    let (api_server, etcd) = (pid(&plane, "kube-apiserver")?, pid(&plane, "etcd")?);
    let cluster = plane.cluster();
    let accounts = Accounts::make(root, cluster, &client).await?;
    let began = Instant::now();
    let mut fleet = Fleets::start(&cluster.kubeconfig(), &accounts.agent, count).await?;
    println!("  the nodes are there after {:.0} s", began.elapsed().as_secs_f64());
    let arguments = ["--lease-namespace=coral-system", "--identity=bench"];
    let mut controller = Program::start(
        "coral-controller",
        controller.to_owned(),
        &accounts.controller,
        &cluster.logs(),
        &arguments,
    )
    .await?;

    let is_counted = |kind: &Kind| kind.is_write() && kind.is_of(RESOURCES);
    let before = Requests::settle(&client, REST, PATIENCE, is_counted).await?;
    let times = || -> Result<[Duration; 3]> {
        Ok([
            process::processor_time(api_server)?,
            process::processor_time(etcd)?,
            controller.processor_time()?,
        ])
    };
    let began_with = times()?;
    let images: Vec<String> = (0..images)
        .map(|number| format!("registry.example/scale/app-{number:02}:v1"))
        .collect();
    let began = Instant::now();
    place(&client, &images).await?;
    until_ready(&client, count, began + PATIENCE).await?;
    let ready = began.elapsed();
    println!("  Ready after {:.1} s", ready.as_secs_f64());
    until_labelled(&client, &images, count).await?;
    let labelled = began.elapsed();
    let after = Requests::settle(&client, REST, PATIENCE, is_counted).await?;
    let ended_with = times()?;
    let [api_server_time, etcd_time, controller_time] =
        [0, 1, 2].map(|place: usize| ended_with[place].saturating_sub(began_with[place]).as_secs_f64());
    let written = after.since(&before);
    println!("{}", written.table(is_counted));
    let (pulls, wanted) = (fleet.pulls().await?, count * images.len());
    ensure!(pulls == wanted, "{pulls} pulls of {wanted} have succeeded");

    println!("  nothing happens for {} s", idle.as_secs());
    let before = Requests::count(&client).await?;
    let controller_before = controller.processor_time()?;
    let rested = Instant::now();
    tokio::time::sleep(idle).await;
    let busy = controller.processor_time()?.saturating_sub(controller_before);
    let idled = Requests::count(&client).await?.since(&before);
    let minutes = rested.elapsed().as_secs_f64() / 60.0;
    let per_node = |requests: u64| number(requests) / number(count) / minutes;
    let is_watch = |kind: &Kind| kind.verb == "WATCH";
    let is_own = |kind: &Kind| kind.is_of(OWN) || is_counted(kind);
    println!("{}", idled.table(is_own));

    controller.ensure_runs()?;
    let row = Row {
        nodes: count,
        ready_seconds: ready.as_secs_f64(),
        labelled_seconds: labelled.as_secs_f64(),
        writes_per_node: number(written.total(is_counted)) / number(count),
        controller_mebibytes: controller.memory()?.most,
        controller_seconds: controller_time,
        api_server_seconds: api_server_time,
        api_server_mebibytes: process::memory(api_server)?.most,
        etcd_seconds: etcd_time,
        idle_requests: per_node(idled.total(|kind| is_own(kind) && !is_watch(kind))),
        idle_watches: per_node(idled.total(|kind| kind.is_of(OWN) && is_watch(kind))),
        idle_controller: 100.0 * busy.as_secs_f64() / rested.elapsed().as_secs_f64(),
    };
    drop(controller);
    fleet.end().await?;
    plane.down().await?;
    Ok(row)
}

fn number(count: impl TryInto<u32>) -> f64 {
    count.try_into().map_or(f64::INFINITY, f64::from)
}

/// The process of a part of the control plane.
fn pid(plane: &ControlPlane, part: &str) -> Result<i32> {
    let state = plane.cluster().state()?;
    let part = state
        .parts
        .get(part)
        .with_context(|| format!("the cluster has no {part}"))?;
    Ok(part.process.pid)
}

async fn place(client: &Client, images: &[String]) -> Result<()> {
    let api: Api<Prefetch> = Api::namespaced(client.clone(), "default");
    let object: Prefetch = serde_json::from_value(json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": "scale"},
        "spec": {"images": images},
    }))?;
    api.create(&PostParams::default(), &object)
        .await
        .context("create the Prefetch")?;
    Ok(())
}

/// Returns when a watch of the Prefetch says that every node has everything.
async fn until_ready(client: &Client, nodes: usize, end: Instant) -> Result<()> {
    let api: Api<Prefetch> = Api::namespaced(client.clone(), "default");
    let mut last = None;
    // A watch ends now and then; the next one begins with what is there.
    while Instant::now() < end {
        let events = api.watch(&WatchParams::default().timeout(60), "0").await?;
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = tokio::time::timeout_at(end.into(), events.next()).await {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event? else {
                continue;
            };
            let Some(status) = object.status else { continue };
            let ready = usize::try_from(status.nodes.ready).unwrap_or_default();
            if conditions::is_true(&status.conditions, READY) && ready == nodes {
                return Ok(());
            }
            last = Some(status.nodes);
        }
    }
    bail!("the Prefetch does not become Ready on {nodes} nodes in {PATIENCE:?}; last seen: {last:?}")
}

/// Returns when every node has the label of every image.
async fn until_labelled(client: &Client, images: &[String], nodes: usize) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let labels = images.iter().map(|image| {
        let image: ImageReference = image.parse()?;
        Ok(format!("{}=available", image.label_key()))
    });
    let selector = labels.collect::<Result<Vec<_>>>()?.join(",");
    eventually("the labels of all nodes", PATIENCE, async || {
        let list = api.list_metadata(&ListParams::default().labels(&selector)).await?;
        Ok(if list.items.len() == nodes {
            Look::Done(())
        } else {
            Look::NotYet(list.items.len())
        })
    })
    .await
}
