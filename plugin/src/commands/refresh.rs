//! `kubectl coral refresh`: has the images of Prefetches resolved again.

use clap::Args;
use coral_api::keys;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    client::Cluster,
    error::Error,
    exit,
    output::{self, ObjectFormat},
    prefetches::{self, Selection},
    printer::Printer,
};

/// Look for newer images of the same name now
#[derive(Args, Debug)]
#[command(
    long_about = "\
Look for newer images of the same name now.

Every node of the Prefetch asks the registry again what its images are, and pulls what has changed; as many nodes at a time as \
spec.parallelism allows. It says when that is to be in the annotation image.stvz.io/refresh, and does not wait for it.",
    after_help = "\
Examples:
  # a moving tag has moved
  kubectl coral refresh web

  # every Prefetch with a label
  kubectl coral refresh -l team=shop"
)]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    selection: Selection,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<ObjectFormat>,
}

impl RefreshArgs {
    /// Writes the annotation.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self { selection, output } = self;
        let (objects, missing) = selection.find(cluster).await?;
        selection.tell_if_empty(&objects, cluster, printer);
        // Whole seconds, as every time of Coral's.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let change = json!({"metadata": {"annotations": {keys::REFRESH_ANNOTATION: now.to_string()}}});
        for object in &objects {
            let after = prefetches::patch(cluster, object, &change).await?;
            let value = output::object(&after, &prefetches::resource())?;
            output::print(printer, output, &prefetches::name(object), "refreshed", &value)?;
            if value["spec"]["suspend"] == true {
                printer.warning(format_args!(
                    "{} is suspended: nothing is pulled until it is resumed",
                    prefetches::name(object)
                ));
            }
        }
        missing.map_or(Ok(exit::SUCCESS), Err)
    }
}
