//! `kubectl coral explain`: why a Pod waits.

use clap::Args;
use coral_api::NodeImages;
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _, api::DynamicObject};
use serde_json::json;

use crate::{
    apply,
    client::{Cluster, RequestError},
    error::Error,
    exit,
    explanation::{self, NodeFacts},
    failures,
    layout::{self, Wanted},
    manifests,
    matrix::Matrix,
    naming,
    originals::as_written,
    output,
    printer::Printer,
    workload,
};

/// Say why a Pod waits: which image is missing where, and why
#[derive(Args, Debug)]
#[command(
    long_about = "\
Say why a Pod waits: which image is missing where, and why.

Shows the images of the Pod on every node of which Coral knows, and says what keeps it: an image that is still pulled, that \
failed, that no Prefetch asks for, or a node selector of an image that the Pod does not have.",
    after_help = "\
Examples:
  kubectl coral explain pod/web-7d8f9c-x2v4q"
)]
pub(crate) struct ExplainArgs {
    /// The Pod
    #[arg(required = true, value_name = "pod/NAME", value_parser = naming::parse_pod)]
    pods: Vec<String>,
}

impl ExplainArgs {
    /// Explains.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self { pods } = self;
        let (resource, _) = manifests::resource(&json!({"apiVersion": "v1", "kind": "Pod"}));
        let (node_resource, _) = manifests::resource(&json!({"apiVersion": "v1", "kind": "Node"}));
        let mut blocks = Vec::new();
        for name in pods {
            let api = |client: Client| apply::api(client, &resource, Some(cluster.namespace()));
            let pod: DynamicObject = cluster.request(async |client| api(client).get(&name).await).await?;
            let pod = output::object(&pod, &resource)?;
            let now = Timestamp::now();
            let mut matrix = Matrix::of_images(workload::images_of_pod(&as_written(&pod)["spec"]));
            cluster
                .list(Api::<NodeImages>::all, |node| matrix.insert(&node, now))
                .await?;
            let mut nodes = Vec::new();
            let each = |node: DynamicObject| {
                nodes.push(NodeFacts {
                    name: node.name_any(),
                    labels: node.metadata.labels.unwrap_or_default(),
                });
            };
            match cluster
                .list(|client| apply::api(client, &node_resource, None), each)
                .await
            {
                Ok(()) => {}
                Err(error @ RequestError::Forbidden { .. }) => {
                    printer.warning(format_args!("{error}; so the labels of nodes are not known"));
                }
                Err(error) => return Err(error.into()),
            }
            blocks.push(explanation::headline(&pod));
            if !matrix.rows().is_empty() {
                let wanted = Wanted {
                    width: printer.width(),
                    wide: false,
                };
                blocks.push(layout::table(&matrix, wanted).render(true, printer.colour()));
            }
            blocks.push(explanation::reasons(&pod, &nodes, &matrix).join("\n"));
            let failures = failures::group(failures::collect(&matrix, []));
            blocks.push(failures::render(&failures, now));
        }
        blocks.retain(|block| !block.is_empty());
        printer.data(
            blocks
                .iter()
                .map(|block| block.trim_end())
                .collect::<Vec<_>>()
                .join("\n\n"),
        )?;
        Ok(exit::SUCCESS)
    }
}
