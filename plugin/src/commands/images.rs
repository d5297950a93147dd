//! `kubectl coral images`: what is on the nodes.

use clap::{Args, ValueEnum};
use coral_api::NodeImages;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::DynamicObject,
    core::{ApiResource, ObjectMeta},
};
use serde_json::Value;

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    exit,
    inventory::Inventory,
    naming, near, output,
    printer::Printer,
};

/// Show what is on the nodes: images, sizes, digests, and who wants them
#[derive(Args, Debug)]
#[command(
    long_about = "\
Show what is on the nodes: images, sizes, digests, and who wants them.

That is what the agents read from the container runtimes about images that Prefetches want; other images on the nodes are \
not shown. Without --node there is a row for each node and one for each image. The size of a node is the sum over its \
images, in which layers that images share count for each of them.

With -o json or yaml the NodeImages of the nodes are printed as the API server has them.",
    after_help = "\
Examples:
  # all nodes
  kubectl coral images

  # every image on one node
  kubectl coral images --node node-1

  # with whole digests, all Prefetches, and the times of the last pulls
  kubectl coral images --node node-1 -o wide"
)]
pub(crate) struct ImagesArgs {
    /// Only this node, image by image; may be repeated
    #[arg(long = "node", value_name = "NAME", value_delimiter = ',', value_parser = naming::parse_node)]
    nodes: Vec<String>,

    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: ImagesFormat,

    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum ImagesFormat {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl ImagesArgs {
    /// Prints what is asked for.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self {
            nodes,
            output,
            no_headers,
        } = self;
        let resource = ApiResource::erase::<NodeImages>(&());
        if matches!(output, ImagesFormat::Table | ImagesFormat::Wide) {
            let mut inventory = Inventory::default();
            let missing = each(cluster, &nodes, Api::<NodeImages>::all, |node| inventory.insert(&node)).await?;
            let wide = output == ImagesFormat::Wide;
            if inventory.is_empty() {
                if nodes.is_empty() {
                    printer.note("No resources found");
                }
            } else {
                let tables = if nodes.is_empty() {
                    vec![inventory.totals(printer.width().is_some()), inventory.by_image(wide)]
                } else {
                    vec![inventory.by_node(wide, Timestamp::now())]
                };
                let tables = tables.iter().filter(|table| !table.rows.is_empty());
                let blocks: Vec<String> = tables
                    .map(|table| table.render(!no_headers, printer.colour()))
                    .collect();
                printer.data(blocks.join("\n\n"))?;
            }
            return missing.map_or(Ok(exit::SUCCESS), Err);
        }
        let mut objects: Vec<DynamicObject> = Vec::new();
        let api = |client: Client| Api::all_with(client, &resource);
        let missing = each(cluster, &nodes, api, |node| objects.push(node)).await?;
        if output == ImagesFormat::Name {
            for object in &objects {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                printer.data(output::name(name, &resource))?;
            }
        } else if !(objects.is_empty() && missing.is_some()) {
            let items = objects.iter().map(|object| output::object(object, &resource));
            let mut items = items.collect::<Result<Vec<Value>, _>>()?;
            let value = match items.pop() {
                Some(only) if nodes.len() == 1 => only,
                last => {
                    items.extend(last);
                    output::list(&items)
                }
            };
            printer.data(match output {
                ImagesFormat::Json => output::json(&value)?,
                _ => output::yaml(&value)?,
            })?;
        }
        missing.map_or(Ok(exit::SUCCESS), Err)
    }
}

/// Gives each of the nodes with these names, or all; and an error about those of which Coral knows nothing.
async fn each<K>(
    cluster: &Cluster,
    names: &[String],
    api: impl Fn(Client) -> Api<K>,
    mut take: impl FnMut(K),
) -> Result<Option<Error>, Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    if names.is_empty() {
        cluster.list(api, take).await?;
        return Ok(None);
    }
    let mut missing = Vec::new();
    for name in names {
        match cluster.request(async |client| api(client).get(name).await).await {
            Ok(node) => take(node),
            Err(RequestError::NotFound { .. }) => missing.push(name.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let mut others: Vec<String> = Vec::new();
    let list = |node: kube::core::PartialObjectMeta<NodeImages>| {
        let ObjectMeta { name, .. } = node.metadata;
        others.extend(name);
    };
    // A suggestion is worth no error of its own.
    let _ = cluster
        .list(Api::<kube::core::PartialObjectMeta<NodeImages>>::all, list)
        .await;
    let near = missing
        .iter()
        .flat_map(|name| near::nearest(name, others.iter().map(String::as_str)));
    Ok(Some(Error::NoSuchNode {
        near: near.map(str::to_owned).collect(),
        names: missing.clone(),
    }))
}
