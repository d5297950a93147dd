//! `kubectl coral status`: what Prefetches want, and where the images are.

mod layout;
mod overview;

use clap::{Args, ValueEnum};
use coral_api::{NodeImages, Prefetch};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde_json::Value;

use self::layout::Wanted;
use crate::{
    client::{Cluster, RequestError},
    error::Error,
    exit, failures,
    matrix::Matrix,
    near, output,
    printer::Printer,
};

/// Show Prefetches, and which image is on which node
#[derive(Args, Debug)]
#[command(
    long_about = "\
Show Prefetches, and which image is on which node.

What is shown about the nodes is what the agents there read from the container runtime. Nodes are rows and images are \
columns; where that does not fit the terminal, images are rows. On a terminal, nodes that are alike are put together \
where there are many.

  present    the image is on the node
  pulling    it is being pulled
  waiting    its pull has not begun, or something keeps it from beginning
  held       its turn has not come: the Prefetch limits how many nodes pull at a time
  retrying   an attempt failed, and another follows
  failed     all attempts failed; what to do stands under the table
  -          nobody wants it there

With -o json or yaml the Prefetch is printed as the API server has it, and several as a List, as kubectl does.",
    after_help = "\
Examples:
  # every Prefetch of the namespace
  kubectl coral status

  # one of them, with digests, sizes and runtimes
  kubectl coral status web -o wide

  # all namespaces
  kubectl coral status -A"
)]
pub(crate) struct StatusArgs {
    /// Names of Prefetches; all of the namespace if there is none
    #[arg(value_name = "NAME", value_parser = crate::naming::parse_name)]
    names: Vec<String>,

    /// The Prefetches of all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    all_namespaces: bool,

    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: StatusFormat,

    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum StatusFormat {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl StatusArgs {
    /// Prints what is asked for.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self {
            names,
            all_namespaces,
            output,
            no_headers,
        } = self;
        let resource = ApiResource::erase::<Prefetch>(&());
        let (objects, missing) = find(cluster, &resource, &names, all_namespaces).await?;
        match output {
            StatusFormat::Table | StatusFormat::Wide if !objects.is_empty() => {
                let view = View {
                    all_namespaces,
                    wide: output == StatusFormat::Wide,
                    headers: !no_headers,
                };
                show(cluster, printer, &objects, &view).await?;
            }
            StatusFormat::Name => {
                for object in &objects {
                    printer.data(output::name(&object.name_any(), &resource))?;
                }
            }
            StatusFormat::Json | StatusFormat::Yaml => {
                let items = objects.iter().map(|object| output::object(object, &resource));
                let mut items = items.collect::<Result<Vec<Value>, _>>()?;
                let value = match names.len() {
                    1 => items.pop(),
                    _ => Some(output::list(&items)),
                };
                if let Some(value) = value {
                    let json = output == StatusFormat::Json;
                    printer.data(if json {
                        output::json(&value)?
                    } else {
                        output::yaml(&value)?
                    })?;
                }
            }
            StatusFormat::Table | StatusFormat::Wide if names.is_empty() => printer.note(if all_namespaces {
                "No resources found".to_owned()
            } else {
                format!("No resources found in {} namespace.", cluster.namespace())
            }),
            StatusFormat::Table | StatusFormat::Wide => {}
        }
        match missing {
            Some(error) => Err(error),
            None => Ok(exit::SUCCESS),
        }
    }
}

/// The objects that are there, and an error about those that are not.
async fn find(
    cluster: &Cluster,
    resource: &ApiResource,
    names: &[String],
    all_namespaces: bool,
) -> Result<(Vec<DynamicObject>, Option<Error>), Error> {
    let api = |client| -> Api<DynamicObject> {
        if all_namespaces {
            Api::all_with(client, resource)
        } else {
            Api::namespaced_with(client, cluster.namespace(), resource)
        }
    };
    let list = async || {
        let mut objects = Vec::new();
        cluster.list(api, |object| objects.push(object)).await.map(|()| objects)
    };
    if names.is_empty() {
        return Ok((list().await?, None));
    }
    let mut objects = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match cluster.request(async |client| api(client).get_opt(name).await).await {
            Ok(Some(object)) => objects.push(object),
            Ok(None) => missing.push(name.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok((objects, None));
    }
    // Who may read one object need not be allowed to list them: then there are no suggestions.
    let others: Vec<String> = list()
        .await
        .unwrap_or_default()
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    let near = missing
        .iter()
        .flat_map(|name| near::nearest(name, others.iter().map(String::as_str)));
    let error = Error::NoSuchPrefetch {
        near: near.map(str::to_owned).collect(),
        namespace: cluster.namespace().to_owned(),
        names: missing,
    };
    Ok((objects, Some(error)))
}

/// How the tables are shown.
struct View {
    all_namespaces: bool,
    wide: bool,
    headers: bool,
}

/// Prints the Prefetches, the nodes, and what there is to say about them.
async fn show(cluster: &Cluster, printer: &Printer, objects: &[DynamicObject], view: &View) -> Result<(), Error> {
    let parse = |object: &DynamicObject| object.clone().try_parse::<Prefetch>();
    let prefetches: Vec<Prefetch> = objects
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Format(error.to_string()))?;
    let now = Timestamp::now();
    let mut matrix = Matrix::new(&prefetches);
    let nodes = cluster
        .list(Api::<NodeImages>::all, |node| matrix.insert(&node, now))
        .await;
    let nodes_are_known = match nodes {
        Ok(()) => true,
        Err(error @ RequestError::Forbidden { .. }) => {
            printer.warning(format_args!("{error}; what follows is the summary in the Prefetches"));
            false
        }
        Err(error) => return Err(error.into()),
    };

    let colour = printer.colour();
    let mut blocks =
        vec![overview::prefetches(&prefetches, view.all_namespaces, view.wide, now).render(view.headers, colour)];
    if nodes_are_known && !matrix.rows().is_empty() {
        let wanted = Wanted {
            width: printer.width(),
            wide: view.wide,
        };
        blocks.push(layout::table(&matrix, wanted).render(view.headers, colour));
    } else if !nodes_are_known {
        let (columns, summaries) = overview::summaries(&matrix, &prefetches);
        if !columns.is_empty() {
            blocks.push(layout::counts_of(&columns, &summaries).render(view.headers, colour));
        }
    }
    let remarks = overview::notes(&prefetches, &matrix, now);
    let failures = failures::render(&failures::group(failures::collect(&matrix, &prefetches)), now);
    blocks.extend(
        [remarks.join("\n"), failures]
            .into_iter()
            .filter(|block| !block.is_empty()),
    );
    printer.data(
        blocks
            .iter()
            .map(|block| block.trim_end())
            .collect::<Vec<_>>()
            .join("\n\n"),
    )?;
    Ok(())
}
