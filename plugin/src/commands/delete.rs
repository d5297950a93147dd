//! `kubectl coral delete`: deletes Prefetches, and takes their images off the nodes if asked to.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use coral_api::{NodeImages, Prefetch, prefetch::RemovalPolicy};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Preconditions},
};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    exit, human, matrix,
    output::DryRun,
    prefetches::{self, Selection},
    printer::Printer,
};

/// Pause between two looks at what the controller has noted.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Delete Prefetches, and with --remove-images their images on the nodes
#[derive(Args, Debug)]
#[command(
    long_about = "\
Delete Prefetches, and with --remove-images their images on the nodes.

Without --remove-images the images stay, and the kubelet may collect them like any other. With it they are taken off \
the nodes, but for those that another Prefetch wants, that a container uses, or that somebody else pinned. For that, \
spec.removalPolicy becomes Remove, and the Prefetch is deleted when Coral's controller has noted that for every node.",
    after_help = "\
Examples:
  kubectl coral delete web

  # and its images
  kubectl coral delete web --remove-images

  # every Prefetch of the namespace
  kubectl coral delete --all"
)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    selection: Selection,

    /// Take the images off the nodes, too
    #[arg(long)]
    remove_images: bool,

    /// A name that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,

    /// With --remove-images: how long Coral's controller may take to note it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = human::parse_duration)]
    timeout: Duration,

    /// client: only say what would be deleted; server: let the API server check it, and keep everything
    #[arg(long, value_enum, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<DeleteFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeleteFormat {
    Name,
}

impl DeleteArgs {
    /// Deletes.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self {
            selection,
            remove_images,
            ignore_not_found,
            timeout,
            dry_run,
            output,
        } = self;
        let (objects, missing) = selection.find(cluster).await?;
        selection.tell_if_empty(&objects, cluster, printer);
        if remove_images && dry_run == DryRun::None {
            let end = Instant::now() + timeout;
            let mut marked = Vec::new();
            for object in &objects {
                marked.push(mark(cluster, object).await?);
            }
            for (object, prefetch) in objects.iter().zip(&marked) {
                wait_until_noted(cluster, object, prefetch, end, timeout).await?;
            }
        }
        for object in &objects {
            if dry_run != DryRun::Client {
                delete(cluster, object, dry_run == DryRun::Server).await?;
            }
            let name = prefetches::name(object);
            printer.data(match output {
                None => format!("{name} deleted{}", dry_run.suffix()),
                Some(DeleteFormat::Name) => name,
            })?;
        }
        match missing {
            Some(error) if !ignore_not_found => Err(error),
            _ => Ok(exit::SUCCESS),
        }
    }
}

/// Says in the Prefetch that its images are to go with it.
async fn mark(cluster: &Cluster, object: &DynamicObject) -> Result<Prefetch, Error> {
    let prefetch = prefetches::parse(object)?;
    if prefetch.spec.removal_policy == RemovalPolicy::Remove {
        return Ok(prefetch);
    }
    let change = json!({"spec": {"removalPolicy": "Remove"}});
    prefetches::parse(&prefetches::patch(cluster, object, &change).await?)
}

/// Waits until the wish stands where it outlives the Prefetch: in the `NodeImages` of every node. What is deleted before that leaves its
/// images behind.
async fn wait_until_noted(
    cluster: &Cluster,
    object: &DynamicObject,
    marked: &Prefetch,
    end: Instant,
    timeout: Duration,
) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    loop {
        let newest = cluster
            .request(async |client| prefetches::api(client, &namespace).get_opt(&object.name_any()).await)
            .await?;
        // Somebody else deleted it meanwhile.
        let Some(newest) = newest else { return Ok(()) };
        let status = prefetches::parse(&newest)?.status.unwrap_or_default();
        if status.observed_generation >= marked.metadata.generation
            && is_noted_on_nodes(cluster, &matrix::key(marked)).await?
        {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Error::RemovalNotNoted {
                prefetch: matrix::key(marked),
                after: timeout,
            });
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether no node still has it that an image that only this Prefetch wants is to stay. Who may not read the nodes relies on the controller,
/// which writes them before it says that it has observed a generation.
async fn is_noted_on_nodes(cluster: &Cluster, key: &str) -> Result<bool, RequestError> {
    let mut is_noted = true;
    let each = |node: NodeImages| is_noted &= !retains(&node, key);
    match cluster.list(Api::<NodeImages>::all, each).await {
        Ok(()) => Ok(is_noted),
        Err(RequestError::Forbidden { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the node is to keep an image that only this Prefetch wants there.
fn retains(node: &NodeImages, key: &str) -> bool {
    node.spec
        .images
        .iter()
        .any(|image| image.removal_policy == RemovalPolicy::Retain && image.requested_by == [key])
}

async fn delete(cluster: &Cluster, object: &DynamicObject, dry_run: bool) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let parameters = DeleteParams {
        dry_run,
        // One that was made anew under this name meanwhile is not the one that was meant.
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let deleted = cluster
        .request(async |client| {
            prefetches::api(client, &namespace)
                .delete(&object.name_any(), &parameters)
                .await
        })
        .await;
    match deleted {
        Ok(_) | Err(RequestError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::node_images;

    #[test]
    fn only_images_that_nobody_else_wants_are_to_go() {
        for (requested_by, policy, expected) in [
            (json!(["shop/web"]), "Retain", true),
            (json!(["shop/web"]), "Remove", false),
            (json!(["shop/other", "shop/web"]), "Retain", false),
            (json!(["shop/other"]), "Retain", false),
        ] {
            let entry =
                json!({"image": "docker.io/library/nginx:1.29", "requestedBy": requested_by, "removalPolicy": policy});
            let node = node_images(json!({"metadata": {"name": "node-1"}, "spec": {"images": [entry]}}));
            assert_eq!(retains(&node, "shop/web"), expected, "{requested_by} {policy}");
        }
    }
}
