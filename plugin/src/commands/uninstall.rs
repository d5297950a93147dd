//! `kubectl coral uninstall`: takes Coral out of the cluster, and leaves nothing of it behind.

pub(crate) mod consent;
mod injected;
mod remains;

use std::time::{Duration, Instant};

use clap::Args;
use coral_api::{NodeImages, Prefetch, keys};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject},
    core::ApiResource,
};
use serde_json::json;
use tokio::time::sleep;

use self::{
    consent::Consent,
    injected::{Injected, Judgement},
    remains::Remains,
};
use crate::{
    apply,
    cli::ClusterArgs,
    client::{Cluster, RequestError},
    commands::inject,
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
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags that have nothing to do with each other"
)]
#[command(
    long_about = "\
Take Coral out of the cluster.

Deletes every Prefetch and waits a moment for the agents to let go of their images; then deletes the in-cluster parts, Coral's \
labels and taints on nodes, the rights that `allow-secret` gave, the resource types, and the namespace, unless that was there \
before Coral. Images on nodes stay where they are, and the kubelet may collect them. It asks before it begins.

Workloads that were injected would find no node any more, or no image. So nothing is done until it is said what is to become of \
them: --uninject takes back what was injected, and --leave-injected leaves them as they are.",
    after_help = "\
Examples:
  kubectl coral uninstall

  # see first
  kubectl coral uninstall --dry-run=client

  # and take back what was injected into workloads
  kubectl coral uninstall --uninject

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

    /// Take back what was injected into workloads, which replaces their pods
    #[arg(long, conflicts_with = "leave_injected")]
    uninject: bool,

    /// Leave injected workloads as they are, though new pods of theirs will find no node or no image
    #[arg(long)]
    leave_injected: bool,

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
            uninject,
            leave_injected,
            timeout,
            dry_run,
        } = self;
        let cluster = &Cluster::connect(arguments).await?;
        let namespace = match &arguments.namespace {
            Some(namespace) => namespace.clone(),
            None => installation::namespace_or_default(cluster).await,
        };
        let remains = Remains::find(cluster, &namespace, keep_crds).await?;
        let injected = Injected::find(cluster).await?;
        let everything = injected::named(&injected, |_| true);
        if remains.is_empty() && (everything.is_none() || !uninject) {
            printer.note("nothing of Coral is in this cluster");
            if let Some(workloads) = everything {
                printer.hint(format_args!(
                    "what was injected into {workloads} is still there: `kubectl coral uninstall --uninject` takes it back"
                ));
            }
            return Ok(exit::SUCCESS);
        }
        printer.note(remains.summary());
        let consent = Consent {
            uninject,
            leave_injected,
            can_ask: !yes && dry_run == DryRun::None,
            is_dry: dry_run != DryRun::None,
        };
        let Some(uninject) = consent.about_workloads(&injected, printer)? else {
            return Ok(exit::ERROR);
        };
        if dry_run != DryRun::None {
            let taken_back = injected.iter().filter(|_| uninject);
            for one in taken_back.filter(|one| !one.judgement.patch.is_empty()) {
                printer.data(format!("{} uninjected{}", one.name(), dry_run.suffix()))?;
            }
            for name in remains.names() {
                printer.data(format!("{name} deleted{}", dry_run.suffix()))?;
            }
            return Ok(exit::SUCCESS);
        }
        if !yes && !consent::agrees("Uninstall Coral?", printer)? {
            return Ok(exit::ERROR);
        }
        let end = Instant::now() + timeout;
        Uninstalling {
            cluster,
            printer,
            end,
            timeout,
        }
        .run(remains, if uninject { injected.as_slice() } else { &[] })
        .await?;
        let left = everything.filter(|_| !uninject);
        let left = left.map(|workloads| format!(" and what was injected into {workloads}"));
        printer.note(format_args!(
            "nothing of Coral is left in this cluster, but for images on nodes{}",
            left.unwrap_or_default()
        ));
        Ok(exit::SUCCESS)
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
    async fn run(&self, remains: Remains, injected: &[Injected]) -> Result<(), Error> {
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
        // It says in which namespace the rest is, to whoever has to begin again.
        let signpost = |object: &&(ApiResource, DynamicObject)| {
            object.0.kind == "ClusterRoleBinding" && object.1.name_any() == keys::AGENT_SERVICE_ACCOUNT
        };
        self.delete_all(objects.iter().filter(webhooks)).await?;
        // Nobody injects any more what is taken back now.
        for one in injected {
            self.take_back(one).await?;
        }
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
            .filter(|object| !webhooks(object) && !workloads(object) && !namespaces(object) && !signpost(object));
        self.delete_all(rest).await?;
        self.delete_all(objects.iter().filter(namespaces)).await?;
        self.delete_all(objects.iter().filter(signpost)).await
    }

    /// Takes back what was injected into a workload.
    async fn take_back(&self, one: &Injected) -> Result<(), Error> {
        loop {
            let Some(object) = one.read_again(self.cluster).await? else {
                return Ok(());
            };
            let judgement = Judgement::of(&output::object(&object, &one.resource)?).unwrap_or_default();
            if judgement.patch.is_empty() {
                return Ok(());
            }
            match inject::send(self.cluster, &one.resource, &object, &judgement.patch, DryRun::None).await {
                Ok(_) => break,
                Err(Error::Request(RequestError::NotFound { .. })) => return Ok(()),
                // Somebody else changed it meanwhile, if only its status: it is read anew.
                Err(Error::Request(RequestError::Conflict { .. } | RequestError::Invalid { .. }))
                    if Instant::now() < self.end =>
                {
                    sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.printer.data(format!("{} uninjected", one.name()))?;
        Ok(())
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
                let held_by = match found {
                    Ok(Some(found)) if found.metadata.uid == object.metadata.uid => found.metadata.finalizers,
                    Ok(_) | Err(RequestError::NotFound { .. } | RequestError::NotInstalled) => break,
                    Err(error) => return Err(error.into()),
                };
                if Instant::now() >= self.end {
                    return Err(Error::NotGone {
                        object: full_name,
                        after: self.timeout,
                        held_by: held_by.unwrap_or_default(),
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
            match self.cluster.list(Api::<NodeImages>::all, each).await {
                Ok(()) => {}
                // Somebody took the resource type away before.
                Err(RequestError::NotInstalled | RequestError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
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
