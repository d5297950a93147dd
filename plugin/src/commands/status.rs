//! `kubectl coral status`: what Prefetches want, and where the images are.

mod overview;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use coral_api::{NodeImages, Prefetch};
use jiff::Timestamp;
use kube::{Api, api::DynamicObject};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    exit, failures,
    layout::{self, Wanted},
    matrix::{Filter, Matrix},
    naming, output, prefetches,
    printer::Printer,
};

/// Pause between two looks of `--watch`.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

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

  # what failed, in all namespaces
  kubectl coral status -A --failed

  # one node, again and again
  kubectl coral status --node node-1 --watch"
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags that have nothing to do with each other"
)]
pub(crate) struct StatusArgs {
    /// Names of Prefetches, also as prefetch/NAME; all of the namespace if there is none
    #[arg(value_name = "NAME", value_parser = naming::parse_prefetch)]
    names: Vec<String>,

    /// The Prefetches with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    selector: Option<String>,

    /// The Prefetches of all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    all_namespaces: bool,

    /// Only images with this in their name; may be repeated
    #[arg(long = "image", value_name = "TEXT")]
    images: Vec<String>,

    /// Only these nodes, separated by commas
    #[arg(long = "node", value_name = "NAME", value_delimiter = ',', value_parser = naming::parse_node)]
    nodes: Vec<String>,

    /// Only what failed, also where it is tried again
    #[arg(long)]
    failed: bool,

    /// Show it again when it changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,

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
            selector,
            all_namespaces,
            images,
            nodes,
            failed,
            watch,
            output,
            no_headers,
        } = self;
        let view = View {
            all_namespaces,
            wide: output == StatusFormat::Wide,
            headers: !no_headers,
            filter: Filter { images, nodes, failed },
        };
        if watch {
            if !matches!(output, StatusFormat::Table | StatusFormat::Wide) {
                return Err(Error::WatchNeedsTable);
            }
            return tokio::select! {
                result = follow(cluster, printer, &names, selector.as_deref(), &view) => result,
                result = tokio::signal::ctrl_c() => {
                    result.map_err(Error::Runtime)?;
                    if printer.live_progress() {
                        // The terminal has echoed ^C.
                        printer.note("");
                    }
                    Ok(exit::INTERRUPTED)
                }
            };
        }
        let (objects, missing) = prefetches::find(cluster, &names, selector.as_deref(), all_namespaces).await?;
        match output {
            StatusFormat::Table | StatusFormat::Wide if !objects.is_empty() => {
                printer.data(render(cluster, printer, &objects, &view).await?)?;
            }
            StatusFormat::Name => {
                for object in &objects {
                    printer.data(prefetches::name(object))?;
                }
            }
            StatusFormat::Json | StatusFormat::Yaml => {
                let items = objects
                    .iter()
                    .map(|object| output::object(object, &prefetches::resource()));
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
            StatusFormat::Table | StatusFormat::Wide if names.is_empty() => {
                prefetches::tell_empty(cluster, all_namespaces, printer);
            }
            StatusFormat::Table | StatusFormat::Wide => {}
        }
        match missing {
            Some(error) => Err(error),
            None => Ok(exit::SUCCESS),
        }
    }
}

/// How the tables are shown.
struct View {
    all_namespaces: bool,
    wide: bool,
    headers: bool,
    filter: Filter,
}

/// Shows it, and again when it has changed, until somebody ends it.
async fn follow(
    cluster: &Cluster,
    printer: &Printer,
    names: &[String],
    selector: Option<&str>,
    view: &View,
) -> Result<u8, Error> {
    let mut last = String::new();
    loop {
        let began = Instant::now();
        let (objects, missing) = prefetches::find(cluster, names, selector, view.all_namespaces).await?;
        if let (Some(error), true) = (missing, last.is_empty()) {
            return Err(error);
        }
        let text = if objects.is_empty() {
            "No resources found".to_owned()
        } else {
            render(cluster, printer, &objects, view).await?
        };
        if text != last {
            printer.redraw(&text)?;
            last = text;
        }
        // A large cluster is not asked all the time.
        sleep(LOOK_AGAIN.max(began.elapsed() * 4)).await;
    }
}

/// The Prefetches, the nodes, and what there is to say about them.
async fn render(cluster: &Cluster, printer: &Printer, objects: &[DynamicObject], view: &View) -> Result<String, Error> {
    let mut prefetches: Vec<Prefetch> = objects.iter().map(prefetches::parse).collect::<Result<_, _>>()?;
    prefetches.retain(|prefetch| is_meant(prefetch, &view.filter));
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

    if !view.filter.is_none() {
        matrix.narrow(&view.filter);
    }
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
    // The summaries in the Prefetches know of failures that no node reports; whoever asks for a part gets what is there of it.
    let summaries: &[Prefetch] = if view.filter.is_none() || !nodes_are_known {
        &prefetches
    } else {
        &[]
    };
    let failures = failures::render(&failures::group(failures::collect(&matrix, summaries)), now);
    blocks.extend(
        [remarks.join("\n"), failures]
            .into_iter()
            .filter(|block| !block.is_empty()),
    );
    Ok(blocks
        .iter()
        .map(|block| block.trim_end())
        .collect::<Vec<_>>()
        .join("\n\n"))
}

/// Whether the Prefetch has to do with what is asked for.
fn is_meant(prefetch: &Prefetch, filter: &Filter) -> bool {
    let mut images = prefetch.spec.images.iter();
    let familiar = |image: &String| {
        image.parse().map_or_else(
            |_| image.clone(),
            |reference: coral_api::ImageReference| reference.familiar(),
        )
    };
    let has_failed = prefetch
        .status
        .as_ref()
        .is_some_and(|status| !status.failures.is_empty());
    images.any(|image| filter.has_image(&familiar(image))) && (!filter.failed || has_failed)
}
