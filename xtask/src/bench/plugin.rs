//! How long `kubectl coral` keeps people waiting: its start, and the largest table that it has to show.
//!
//! The measure of the start is kubectl's own. The measure of the table is the lists that it is made from, fetched page by page by a
//! client that looks at nothing in them. The two take turns.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use coral_api::{NodeImages, Prefetch};
use coral_tests::hollow::ControlPlane;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::{Value, json};

use super::{
    figures::{Figure, Samples, table, to_json},
    machine, process, write_result,
};
use crate::{cluster::target_dir, image};

/// Requests that fill the API server at the same time.
const PARALLEL: usize = 24;
/// Objects in an answer, as the command asks for them.
const PAGE: u32 = 500;
const NAMESPACE: &str = "default";
/// Pause between two looks at the memory of a process.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long `kubectl coral` keeps people waiting.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes of which the API server knows.
    #[arg(long, default_value_t = 5000)]
    nodes: usize,

    /// Images on each of them.
    #[arg(long, default_value_t = 20)]
    images: usize,

    /// Rounds of the comparison of lists.
    #[arg(long, default_value_t = 9)]
    rounds: usize,

    /// Starts of each program.
    #[arg(long, default_value_t = 41)]
    starts: usize,
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    let Args {
        nodes,
        images,
        rounds,
        starts,
    } = args;
    let plugin = image::build(root, &["kubectl-coral"]).await?.join("kubectl-coral");
    let size = fs::metadata(&plugin).context("find kubectl-coral")?.len();
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let plane = ControlPlane::start(&folder, "plugin").await?;
    let machine = machine::facts("API server and etcd of the tests' cluster, without nodes");
    println!("{}", machine::line(&machine));
    let kubectl = plane.cluster().tools().control_plane("kubectl");

    #[expect(clippy::cast_precision_loss, reason = "a size in megabytes")]
    let mut figures = vec![Figure::new("static kubectl-coral", "MB", size as f64 / 1e6)];
    let (ours, theirs, ratio) = starts_of(&plugin, &kubectl, starts)?;
    figures.extend([
        Figure::new("kubectl-coral version --client", "ms", ours).at_most(10.0),
        Figure::new("  kubectl version --client", "ms", theirs),
        Figure::new("  kubectl-coral / kubectl", "×", ratio).at_most(1.0),
    ]);

    let began = Instant::now();
    fill(&plane, nodes, images).await?;
    println!(
        "{nodes} nodes with {images} images each are there after {:.1?}",
        began.elapsed()
    );
    let tables = Tables::measure(&plane, &plugin, rounds).await?;
    figures.extend([
        Figure::new("status / the same lists, raw", "×", tables.ratio).at_most(1.5),
        Figure::new("  the lists, raw", "s", tables.raw),
        Figure::new("  kubectl coral status", "s", tables.status),
        Figure::new("  of that on a processor", "s", tables.busy),
        Figure::new("  memory of status at most", "MiB", tables.memory).at_most(100.0),
    ]);
    println!("\n{}", table(&figures));
    let mut result = to_json(&machine, &figures);
    result["nodes"] = json!(nodes);
    result["images"] = json!(images);
    result["bytes"] = json!(tables.bytes);
    write_result("plugin", &result)?;
    plane.down().await
}

/// How long both programs take to say their version, in milliseconds, and their ratio.
fn starts_of(plugin: &Path, kubectl: &Path, starts: usize) -> Result<(Samples, Samples, Samples)> {
    let start = |program: &Path| -> Result<f64> {
        let began = Instant::now();
        let output = Command::new(program)
            .args(["version", "--client"])
            .output()
            .with_context(|| format!("start {}", program.display()))?;
        let took = began.elapsed();
        ensure!(output.status.success(), "{} failed: {output:?}", program.display());
        Ok(took.as_secs_f64() * 1e3)
    };
    // The first start reads the program from the disk.
    start(plugin)?;
    start(kubectl)?;
    let mut samples = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..starts {
        let (ours, theirs) = (start(plugin)?, start(kubectl)?);
        samples.0.push(ours);
        samples.1.push(theirs);
        samples.2.push(ours / theirs);
    }
    Ok(samples)
}

/// Makes the objects of a cluster with so many nodes, as the controller and the agents write them.
async fn fill(plane: &ControlPlane, nodes: usize, images: usize) -> Result<()> {
    let client = plane.client();
    let references: Vec<String> = (0..images)
        .map(|image| format!("registry.example/team-{}/application-{image}:v1.{image}", image % 5))
        .collect();
    let prefetches: Api<Prefetch> = Api::namespaced(client.clone(), NAMESPACE);
    let prefetch: Prefetch = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"images": references},
    }))?;
    prefetches.create(&PostParams::default(), &prefetch).await?;
    let status = json!({"status": {
        "observedGeneration": 1,
        "nodes": {"desired": nodes, "ready": nodes, "pulling": 0, "failed": 0},
        "imageCount": images,
    }});
    prefetches
        .patch_status("web", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let api: Api<NodeImages> = Api::all(client);
    let writes = (0..nodes).map(|number| {
        let (api, references) = (api.clone(), &references);
        async move {
            let node = node(number, references);
            let name = format!("node-{number:05}");
            let object: NodeImages = serde_json::from_value(node.clone())?;
            api.create(&PostParams::default(), &object).await?;
            let status = json!({"status": node["status"]});
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
                .await?;
            anyhow::Ok(())
        }
    });
    stream::iter(writes.collect::<Vec<_>>())
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

/// A node that holds most of its images, pulls a few and failed with one now and then.
fn node(number: usize, references: &[String]) -> Value {
    let wanted = references.iter().map(|image| {
        json!({"image": image, "requestedBy": [format!("{NAMESPACE}/web")], "pullPolicy": "IfNotPresent", "pin": false,
            "priority": 0, "timeout": "10m", "backoffLimit": 6, "state": "Present"})
    });
    let reported = references.iter().enumerate().map(|(index, image)| {
        let digest = format!("sha256:{:064x}", index * 7919 + 1);
        match (number + index) % 97 {
            0 => json!({"image": image, "state": "Failed", "pinned": false, "failure": {"reason": "RegistryUnavailable",
                "message": "dial tcp 192.0.2.1:443: connect: connection refused", "attempts": 3,
                "nextAttemptTime": "2026-01-01T00:05:00Z"}}),
            1..=5 => json!({"image": image, "state": "Pulling", "pinned": false, "pull": {"startTime": "2026-01-01T00:00:00Z",
                "doneBytes": 40_000_000 + number, "totalBytes": 120_000_000}}),
            _ => json!({"image": image, "state": "Present", "pinned": false, "digest": digest, "sizeBytes": 120_000_000 + index,
                "lastPullTime": "2026-01-01T00:00:00Z", "pull": {"startTime": "2026-01-01T00:00:00Z", "seconds": 7}}),
        }
    });
    let ready = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "NodeImages",
        "metadata": {"name": format!("node-{number:05}")},
        "spec": {"images": wanted.collect::<Vec<_>>()},
        "status": {
            "observedGeneration": 1,
            "runtime": {"name": "containerd", "version": "2.4.2"},
            "imageFilesystem": {"usedBytes": 40_000_000_000_i64, "freeBytes": 60_000_000_000_i64, "capacityBytes": 100_000_000_000_i64},
            "conditions": [ready("Ready"), ready("Accepting")],
            "images": reported.collect::<Vec<_>>(),
        },
    })
}

/// What a table takes beside the lists that it is made from.
#[derive(Default)]
struct Tables {
    raw: Samples,
    status: Samples,
    ratio: Samples,
    busy: Samples,
    memory: Samples,
    /// Bytes of the lists.
    bytes: usize,
}

impl Tables {
    async fn measure(plane: &ControlPlane, plugin: &Path, rounds: usize) -> Result<Self> {
        let mut tables = Self::default();
        // The API server reads everything from etcd once.
        fetch(plane.config()).await?;
        for round in 0..rounds {
            let before = if round % 2 == 0 {
                Some(fetch(plane.config()).await?)
            } else {
                None
            };
            let shown = Shown::by(plugin, plane)?;
            let (seconds, bytes) = match before {
                Some(raw) => raw,
                None => fetch(plane.config()).await?,
            };
            tables.bytes = bytes;
            tables.raw.push(seconds);
            tables.status.push(shown.seconds);
            tables.ratio.push(shown.seconds / seconds);
            tables.busy.push(shown.busy);
            tables.memory.push(shown.memory);
        }
        Ok(tables)
    }
}

/// Fetches both lists by a new connection, page by page. Returns seconds and bytes.
async fn fetch(config: &Config) -> Result<(f64, usize)> {
    let began = Instant::now();
    let client = Client::try_from(config.clone())?;
    let mut bytes = 0;
    for kind in ["prefetches", "nodeimages"] {
        let mut token = None;
        loop {
            let parameters = ListParams {
                continue_token: token,
                ..ListParams::default().limit(PAGE)
            };
            let request = Request::new(format!("/apis/image.stvz.io/v1alpha1/{kind}")).list(&parameters)?;
            let text = client.request_text(request).await?;
            bytes += text.len();
            token = next(&text);
            if token.is_none() {
                break;
            }
        }
    }
    Ok((began.elapsed().as_secs_f64(), bytes))
}

/// The token of the next page, which stands before the items.
fn next(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("\"continue\":\"")?;
    let (token, _) = rest.split_once('"')?;
    (!token.is_empty()).then(|| token.to_owned())
}

/// One run of `kubectl coral status`.
struct Shown {
    seconds: f64,
    /// Seconds on a processor.
    busy: f64,
    /// Resident at most, in MiB.
    memory: f64,
}

impl Shown {
    fn by(plugin: &Path, plane: &ControlPlane) -> Result<Self> {
        let began = Instant::now();
        let mut child = Command::new(plugin)
            .args(["status", "-n", NAMESPACE])
            .env("KUBECONFIG", plane.cluster().kubeconfig())
            .stdout(Stdio::piped())
            .spawn()
            .context("start kubectl-coral")?;
        let mut stdout = child.stdout.take().context("read what is shown")?;
        let reader = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let pid = i32::try_from(child.id())?;
        let mut memory = 0.0;
        // The kernel keeps the most that there was; what came after the last look is not in it.
        while !reader.is_finished() {
            memory = process::memory(pid)?.most.max(memory);
            thread::sleep(LOOK_AGAIN);
        }
        let Ok(text) = reader.join() else {
            bail!("nobody reads what is shown");
        };
        let text = text.context("read what is shown")?;
        // Until it is waited for, its times are there.
        let busy = process::processor_time(pid)?.as_secs_f64();
        let status = child.wait().context("wait for kubectl-coral")?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(status.success(), "kubectl-coral ended with {status}");
        ensure!(text.contains("application-0:v1.0"), "no image is shown: {text}");
        Ok(Self { seconds, busy, memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_the_next_page_is_found() {
        let page = |token: &str| format!(r#"{{"kind":"List","metadata":{{"resourceVersion":"1"{token}}},"items":[]}}"#);
        assert_eq!(next(&page("")), None);
        assert_eq!(next(&page(r#","continue":"""#)), None);
        assert_eq!(
            next(&page(r#","continue":"abc","remainingItemCount":9"#)).as_deref(),
            Some("abc")
        );
    }
}
