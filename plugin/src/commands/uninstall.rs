//! `kubectl coral uninstall`: takes Coral out of the cluster, and leaves nothing of it behind.

mod remains;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use clap::Args;
use coral_api::{NodeImages, Prefetch, keys};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject},
    core::ApiResource,
};
use serde_json::json;
use tokio::time::sleep;

use self::remains::Remains;
use crate::{
    apply,
    cli::ClusterArgs,
    client::{Cluster, RequestError},
    error::Error,
    exit, human, installation, manifests,
    output::{self, DryRun},
    printer::Printer,
    progress::steps::Steps,
};

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How long the agents may take to unpin images, and to take away those that are to go with their Prefetch.
const AGENTS_PATIENCE: Duration = Duration::from_secs(20);

/// Take Coral out of the cluster
#[derive(Args, Debug)]
#[command(
    long_about = "\
Take Coral out of the cluster.

Deletes every Prefetch and waits a moment for the agents to let go of their images; then deletes the in-cluster parts, Coral's \
labels and taints on nodes, the rights that `allow-secret` gave, the resource types, and the namespace, unless that was there \
before Coral. Images on nodes stay where they are, and the kubelet may collect them. It asks before it begins.",
    after_help = "\
Examples:
  kubectl coral uninstall

  # see first
  kubectl coral uninstall --dry-run=client

  # to install it again later, with the same Prefetches
  kubectl coral uninstall --keep-crds"
)]
pub(crate) struct UninstallArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// Leave the resource types, and with them every Prefetch
    #[arg(long)]
    keep_crds: bool,

    /// How long to wait until everything is gone
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = human::parse_duration)]
    timeout: Duration,

    /// client: only say what would go
    #[arg(long, value_enum, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,
}

impl UninstallArgs {
    /// Uninstalls.
    pub(crate) async fn run(self, arguments: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let Self {
            yes,
            keep_crds,
            timeout,
            dry_run,
        } = self;
        let cluster = &Cluster::connect(arguments).await?;
        let namespace = match &arguments.namespace {
            Some(namespace) => namespace.clone(),
            None => installation::namespace_or_default(cluster).await,
        };
        let remains = Remains::find(cluster, &namespace, keep_crds).await?;
        if remains.is_empty() {
            printer.note("nothing of Coral is in this cluster");
            return Ok(exit::SUCCESS);
        }
        printer.note(remains.summary());
        for warning in remains.warnings() {
            printer.warning(warning);
        }
        if dry_run != DryRun::None {
            for name in remains.names() {
                printer.data(format!("{name} deleted{}", dry_run.suffix()))?;
            }
            return Ok(exit::SUCCESS);
        }
        if !yes {
            confirm(printer)?;
        }
        let end = Instant::now() + timeout;
        Uninstalling {
            cluster,
            printer,
            end,
            timeout,
        }
        .run(remains)
        .await?;
        printer.note("nothing of Coral is left in this cluster, but for images on nodes");
        Ok(exit::SUCCESS)
    }
}

/// Asks, where somebody is there to answer.
fn confirm(printer: &Printer) -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::NotConfirmed);
    }
    // On stderr, where it does not mix with data.
    let mut stderr = io::stderr().lock();
    write!(stderr, "Uninstall Coral? [y/N] ")?;
    stderr.flush()?;
    drop(stderr);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        printer.note("nothing was changed");
        Err(Error::NotConfirmed)
    }
}

struct Uninstalling<'a> {
    cluster: &'a Cluster,
    printer: &'a Printer,
    end: Instant,
    timeout: Duration,
}

impl Uninstalling<'_> {
    /// In an order in which nothing calls, writes or waits for what is gone already.
    async fn run(&self, remains: Remains) -> Result<(), Error> {
        let Remains {
            objects,
            crds,
            prefetches,
            nodes,
            grants,
            ..
        } = remains;
        let is_kind = |kinds: &'static [&str]| {
            move |object: &&(ApiResource, DynamicObject)| kinds.contains(&object.0.kind.as_str())
        };
        let webhooks = is_kind(&["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
        let workloads = is_kind(&["Deployment", "DaemonSet"]);
        let namespaces = is_kind(&["Namespace"]);
        self.delete_all(objects.iter().filter(webhooks)).await?;
        if !crds.is_empty() {
            self.delete_prefetches(&prefetches).await?;
        }
        self.delete_all(objects.iter().filter(workloads)).await?;
        // Nobody writes labels any more.
        for node in &nodes {
            self.clean_node(node).await?;
        }
        self.delete_all(grants.iter()).await?;
        self.free_of_finalizers(&prefetches).await?;
        self.delete_all(crds.iter()).await?;
        let rest = objects
            .iter()
            .filter(|object| !webhooks(object) && !workloads(object) && !namespaces(object));
        self.delete_all(rest).await?;
        self.delete_all(objects.iter().filter(namespaces)).await
    }

    /// Deletes objects, and waits until each is gone.
    async fn delete_all(&self, objects: impl Iterator<Item = &(ApiResource, DynamicObject)>) -> Result<(), Error> {
        let mut leaving = Vec::new();
        for (resource, object) in objects {
            installation::delete(self.cluster, resource, object).await?;
            self.printer
                .data(format!("{} deleted", output::name(&object.name_any(), resource)))?;
            leaving.push((resource, object));
        }
        let mut steps = Steps::new(self.printer);
        for (resource, object) in leaving {
            let name = object.name_any();
            let full_name = output::name(&name, resource);
            loop {
                let found = self
                    .cluster
                    .request(async |client: Client| {
                        let api = apply::api(client, resource, object.metadata.namespace.as_deref());
                        api.get_metadata_opt(&name).await
                    })
                    .await;
                match found {
                    Ok(Some(found)) if found.metadata.uid == object.metadata.uid => {}
                    Ok(_) | Err(RequestError::NotFound { .. } | RequestError::NotInstalled) => break,
                    Err(error) => return Err(error.into()),
                }
                if Instant::now() >= self.end {
                    return Err(Error::NotGone {
                        object: full_name,
                        after: self.timeout,
                    });
                }
                steps.show(&format!("waiting until {full_name} is gone"));
                sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    /// Deletes every Prefetch while there are still agents, so that they unpin images and take away those that are to go.
    async fn delete_prefetches(&self, prefetches: &[DynamicObject]) -> Result<(), Error> {
        if prefetches.is_empty() {
            return Ok(());
        }
        for prefetch in prefetches {
            let namespace = prefetch.namespace().unwrap_or_default();
            let api = |client| Api::<Prefetch>::namespaced(client, &namespace);
            let deleted = self
                .cluster
                .request(async |client| api(client).delete(&prefetch.name_any(), &DeleteParams::default()).await)
                .await;
            match deleted {
                Ok(_) | Err(RequestError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let name = crate::prefetches::name(prefetch);
            self.printer.data(format!("{name} deleted"))?;
        }
        let end = Instant::now() + AGENTS_PATIENCE;
        let mut steps = Steps::new(self.printer);
        loop {
            let mut busy = 0;
            let each = |node: NodeImages| busy += usize::from(!is_let_go(&node));
            self.cluster.list(Api::<NodeImages>::all, each).await?;
            if busy == 0 {
                return Ok(());
            }
            if Instant::now() >= end {
                steps.tell(&format!(
                    "warning: {} did not let go of their images in time; what was pinned there may stay pinned",
                    human::counted(busy, "node")
                ));
                return Ok(());
            }
            steps.show(&format!(
                "waiting until {} let go of their images",
                human::counted(busy, "node")
            ));
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Nothing of this version sets a finalizer. What another one left would keep its resource type for ever.
    async fn free_of_finalizers(&self, prefetches: &[DynamicObject]) -> Result<(), Error> {
        for prefetch in prefetches {
            let finalizers = prefetch.finalizers();
            let others: Vec<&String> = finalizers
                .iter()
                .filter(|finalizer| !finalizer.starts_with(keys::PREFIX))
                .collect();
            if others.len() < finalizers.len() {
                let change = json!({"metadata": {"finalizers": others}});
                match crate::prefetches::patch(self.cluster, prefetch, &change).await {
                    Ok(_) | Err(RequestError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Takes Coral's labels, annotations and taints off a node, and nothing else.
    async fn clean_node(&self, name: &str) -> Result<(), Error> {
        let (nodes, _) = manifests::resource(&json!({"apiVersion": "v1", "kind": "Node"}));
        loop {
            let node = self
                .cluster
                .request(async |client: Client| apply::api(client, &nodes, None).get_opt(name).await)
                .await?;
            let Some(node) = node else { return Ok(()) };
            let Some(change) = remains::cleaning(&output::object(&node, &nodes)?) else {
                break;
            };
            let patch = kube::api::Patch::Merge(&change);
            let patched = self
                .cluster
                .request(async |client: Client| {
                    let parameters = kube::api::PatchParams::default();
                    apply::api(client, &nodes, None).patch(name, &parameters, &patch).await
                })
                .await;
            match patched {
                Ok(_) | Err(RequestError::NotFound { .. }) => break,
                // Somebody else changed it meanwhile: its taints are read anew.
                Err(RequestError::Conflict { .. }) if Instant::now() < self.end => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.printer.data(format!("node/{name} cleaned"))?;
        Ok(())
    }
}

/// Whether nothing is asked of the node any more, and its agent has said so.
fn is_let_go(node: &NodeImages) -> bool {
    let observed = node.status.as_ref().and_then(|status| status.observed_generation);
    node.spec.images.is_empty() && (node.status.is_none() || observed >= node.metadata.generation)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixtures::node_images;

    #[test]
    fn a_node_has_let_go_when_its_agent_has_seen_that_nothing_is_wanted() {
        let node = |images: Value, generation: i64| {
            node_images(
                json!({"metadata": {"name": "n", "generation": 2}, "spec": {"images": images},
                "status": {"observedGeneration": generation}}),
            )
        };
        assert!(is_let_go(&node(json!([]), 2)));
        assert!(!is_let_go(&node(json!([]), 1)));
        assert!(!is_let_go(&node(
            json!([{"image": "docker.io/library/a:1", "state": "Absent"}]),
            2
        )));
    }
}
