//! What people would use instead, each in its smallest honest form: a `DaemonSet` whose init containers are the images, and one Job for
//! each image and node.
//!
//! Each container runs a static program that ends at once, from a folder of the node: images need not have one. The main container
//! of the `DaemonSet` is the pause image, which every node has.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use coral_tests::{
    cluster::{Layout, NodeHandle},
    wait::{Look, eventually},
};
use k8s_openapi::api::{apps::v1::DaemonSet, batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    super::{
        api_server::{Kind, Requests},
        figures::Samples,
        process,
    },
    site::{PATIENCE, Site},
};
use crate::command::output;

/// Where the program lies on the nodes.
const FOLDER: &str = "/var/lib/coral-bench";
/// How long nothing may have been written before a count is taken for the last one.
const REST: Duration = Duration::from_secs(6);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(250);
const LABEL: &str = "bench=peer";

/// Ways to get images onto nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    Coral,
    DaemonSet,
    Jobs,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Coral, Self::DaemonSet, Self::Jobs];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Coral => "Coral",
            Self::DaemonSet => "DaemonSet with init containers",
            Self::Jobs => "one Job per image and node",
        }
    }
}

/// What one way needed.
#[derive(Default)]
pub(super) struct Cost {
    /// Until every image was on every node, as the runtimes have it.
    pub(super) there: Samples,
    /// Until its own status said so.
    pub(super) told: Samples,
    pub(super) writes: Samples,
    pub(super) pods: Samples,
    /// Memory of what it takes on the nodes, at most, and for Coral of the controller.
    pub(super) mebibytes: Samples,
}

impl Cost {
    pub(super) fn json(&self, way: Way) -> Value {
        json!({
            "way": way.name(),
            "there_seconds": self.there.median(),
            "told_seconds": self.told.median(),
            "writes": self.writes.median(),
            "pods": self.pods.median(),
            "mebibytes": self.mebibytes.median(),
        })
    }
}

/// Puts the program that ends at once on the nodes with a kubelet.
pub(super) fn prepare(site: &Site) -> Result<()> {
    let folder = site.cluster.dir().join("peers");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let (source, program) = (folder.join("true.c"), folder.join("true"));
    fs::write(&source, "int main(void) { return 0; }\n").with_context(|| format!("write {}", source.display()))?;
    output(
        Command::new("gcc")
            .args(["-static", "-Os", "-s", "-o"])
            .arg(&program)
            .arg(&source),
    )?;
    for node in site.kubelets() {
        let folder = node.path(FOLDER)?;
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        fs::copy(&program, folder.join("true")).with_context(|| format!("copy a program to {}", node.name()))?;
    }
    Ok(())
}

/// Lets one way bring these images to all nodes with a kubelet, and cleans up behind it.
pub(super) async fn run(site: &Site, way: Way, images: &[String], round: usize, cost: &mut Cost) -> Result<()> {
    let client = site.cluster.client();
    let before = Requests::settle(&client, REST, PATIENCE, is_counted).await?;
    let name = format!("peer-{round}");
    let cgroup = Layout::new(site.cluster.dir())?.cgroup().join("node-");
    let watch = MemoryWatch::start(site, way, cgroup.display().to_string());
    let began = Instant::now();
    let told = async {
        match way {
            Way::Coral => {
                site.prefetch(&name, images, site.kubelets(), &json!("100%")).await?;
            }
            Way::DaemonSet => daemon_set(site, &name, images).await?,
            Way::Jobs => jobs(site, &name, images).await?,
        }
        anyhow::Ok(began.elapsed())
    };
    let there = async {
        let held = site.kubelets().iter().map(|node| until_held(node, images));
        futures::future::try_join_all(held).await?;
        anyhow::Ok(began.elapsed())
    };
    let (told, there) = tokio::try_join!(told, there)?;
    let written = Requests::settle(&client, REST, PATIENCE, is_counted)
        .await?
        .since(&before);
    let pods = written.total(|kind| kind.verb == "POST" && kind.is_of(&["pods"]) && kind.subresource.is_empty());
    println!("  {}: {:.1} s", way.name(), there.as_secs_f64());
    println!("{}", written.table(is_counted));
    cost.there.push(there.as_secs_f64());
    cost.told.push(told.as_secs_f64());
    cost.writes.push(u32::try_from(written.total(is_counted))?.into());
    cost.pods.push(u32::try_from(pods)?.into());
    cost.mebibytes.push(watch.end().await?);
    match way {
        Way::Coral => site.forget(&name, site.kubelets(), images).await,
        Way::DaemonSet | Way::Jobs => clear(site, images).await,
    }
}

/// Everything that is written, but for what nodes and the control plane say of themselves all the time.
fn is_counted(kind: &Kind) -> bool {
    let is_of_node = kind.is_of(&["nodes"]) && kind.subresource == "status";
    kind.is_write() && !is_of_node && !kind.is_of(&["leases", "tokenreviews", "subjectaccessreviews"])
}

async fn until_held(node: &NodeHandle, images: &[String]) -> Result<()> {
    eventually(&format!("all images on {}", node.name()), PATIENCE, async || {
        let asked = node.clone();
        let held = tokio::task::spawn_blocking(move || asked.images()).await??;
        let missing = images.iter().filter(|image| !held.contains(image)).count();
        Ok(if missing == 0 {
            Look::Done(())
        } else {
            Look::NotYet(missing)
        })
    })
    .await
}

fn container(name: &str, image: &str) -> Value {
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bench/true"],
        "volumeMounts": [{"name": "bench", "mountPath": "/bench", "readOnly": true}],
    })
}

/// What all pods have in common.
fn pod(containers: &Value) -> Value {
    json!({
        "containers": containers,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "bench", "hostPath": {"path": FOLDER, "type": "Directory"}}],
    })
}

async fn daemon_set(site: &Site, name: &str, images: &[String]) -> Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(site.cluster.client(), "default");
    let inits = images
        .iter()
        .enumerate()
        .map(|(number, image)| container(&format!("image-{number}"), image));
    let mut pod = pod(&json!([{"name": "pause", "image": site.cluster.pause_image()}]));
    pod["initContainers"] = inits.collect();
    let object: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "peer"}},
        "spec": {
            "selector": {"matchLabels": {"bench": "peer"}},
            "template": {"metadata": {"labels": {"bench": "peer"}}, "spec": pod},
        },
    }))?;
    api.create(&PostParams::default(), &object)
        .await
        .context("create a DaemonSet")?;
    eventually("the DaemonSet to be ready", PATIENCE, async || {
        let status = api.get(name).await?.status.unwrap_or_default();
        let wanted = i32::try_from(site.kubelets().len())?;
        Ok(if status.number_ready == wanted {
            Look::Done(())
        } else {
            Look::NotYet(status)
        })
    })
    .await
}

async fn jobs(site: &Site, name: &str, images: &[String]) -> Result<()> {
    let api: Api<Job> = Api::namespaced(site.cluster.client(), "default");
    for (number, image) in images.iter().enumerate() {
        for node in site.kubelets() {
            let mut pod = pod(&json!([container("image", image)]));
            pod["restartPolicy"] = json!("Never");
            pod["nodeSelector"] = json!({"kubernetes.io/hostname": node.name()});
            let object: Job = serde_json::from_value(json!({
                "metadata": {"name": format!("{name}-{number}-{}", node.name()), "labels": {"bench": "peer"}},
                "spec": {"template": {"metadata": {"labels": {"bench": "peer"}}, "spec": pod}},
            }))?;
            api.create(&PostParams::default(), &object)
                .await
                .context("create a Job")?;
        }
    }
    eventually("all Jobs to be complete", PATIENCE, async || {
        let jobs = api.list(&ListParams::default().labels(LABEL)).await?.items;
        let is_done = |job: &&Job| job.status.as_ref().and_then(|status| status.succeeded) == Some(1);
        let done = jobs.iter().filter(is_done).count();
        Ok(if done == images.len() * site.kubelets().len() {
            Look::Done(())
        } else {
            Look::NotYet(done)
        })
    })
    .await
}

/// Takes away what the peers made, and the images.
async fn clear(site: &Site, images: &[String]) -> Result<()> {
    let client = site.cluster.client();
    let (delete, list) = (DeleteParams::background(), ListParams::default().labels(LABEL));
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), "default");
    let jobs: Api<Job> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    sets.delete_collection(&delete, &list).await?;
    jobs.delete_collection(&delete, &list).await?;
    eventually("the pods to go", PATIENCE, async || {
        let left = pods.list(&list).await?.items.len();
        Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(left) })
    })
    .await?;
    site.remove(site.kubelets(), images).await
}

/// Looks again and again at the memory that a way takes. What processes share counts for a share.
struct MemoryWatch {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<f64>,
}

impl MemoryWatch {
    fn start(site: &Site, way: Way, cgroup: String) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let programs = site.agents[..site.kubelets().len()].iter().chain([&site.controller]);
        let own: Vec<i32> = programs.map(super::super::coral::Program::pid).collect();
        let task = tokio::task::spawn_blocking(move || {
            let mut most = 0.0_f64;
            while !over.load(Ordering::Relaxed) {
                let pids = match way {
                    Way::Coral => own.clone(),
                    Way::DaemonSet | Way::Jobs => process::in_cgroup(&cgroup, is_of_pod),
                };
                most = most.max(pids.into_iter().map(process::proportional_memory).sum());
                std::thread::sleep(LOOK);
            }
            most
        });
        Self { is_over, task }
    }

    async fn end(self) -> Result<f64> {
        self.is_over.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

/// Whether a program of this name is there because of a pod: the shim, what starts containers, and what runs in them.
fn is_of_pod(name: &str) -> bool {
    matches!(name, "pause" | "true") || name.starts_with("containerd-shim") || name.starts_with("runc")
}
