//! `kubectl coral suspend` and `kubectl coral resume`.

use clap::Args;
use serde_json::json;

use crate::{
    client::Cluster,
    error::Error,
    exit,
    output::{self, ObjectFormat},
    prefetches::{self, Selection},
    printer::Printer,
};

/// Let Prefetches begin no further pulls
#[derive(Args, Debug)]
#[command(
    long_about = "\
Let Prefetches begin no further pulls.

Images that are on nodes stay there. A pull that has begun goes on to its end.",
    after_help = "\
Examples:
  kubectl coral suspend web

  # everything in the namespace, for a night
  kubectl coral suspend --all"
)]
pub(crate) struct SuspendArgs {
    #[command(flatten)]
    selection: Selection,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<ObjectFormat>,
}

/// Let suspended Prefetches go on
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl coral resume web

  # all that were suspended in the namespace
  kubectl coral resume --all")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    selection: Selection,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<ObjectFormat>,
}

impl SuspendArgs {
    /// Suspends.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self { selection, output } = self;
        set(cluster, printer, &selection, output, true).await
    }
}

impl ResumeArgs {
    /// Resumes.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self { selection, output } = self;
        set(cluster, printer, &selection, output, false).await
    }
}

async fn set(
    cluster: &Cluster,
    printer: &Printer,
    selection: &Selection,
    output: Option<ObjectFormat>,
    suspend: bool,
) -> Result<u8, Error> {
    let (objects, missing) = selection.find(cluster).await?;
    selection.tell_if_empty(&objects, cluster, printer);
    for object in &objects {
        let is_so = object.data["spec"]["suspend"] == suspend || (!suspend && object.data["spec"]["suspend"].is_null());
        let (after, verb) = if is_so {
            (object.clone(), "unchanged")
        } else {
            let change = json!({"spec": {"suspend": suspend}});
            let verb = if suspend { "suspended" } else { "resumed" };
            (prefetches::patch(cluster, object, &change).await?, verb)
        };
        let value = output::object(&after, &prefetches::resource())?;
        output::print(printer, output, &prefetches::name(object), verb, &value)?;
    }
    missing.map_or(Ok(exit::SUCCESS), Err)
}
