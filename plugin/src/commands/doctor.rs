//! `kubectl coral doctor`: what is wrong with the installation.

use clap::{Args, ValueEnum};

use crate::{
    client::Cluster,
    doctor::{
        diagnose,
        gather::{self, Bounds},
        report::Report,
    },
    error::Error,
    exit, output,
    printer::Printer,
    progress::steps::Steps,
};

/// Check the installation, and say what to do about what is wrong
#[derive(Args, Debug)]
#[command(
    long_about = "\
Check the installation from outside, and say what to do about what is wrong.

  versions        of this command, the parts, Kubernetes and the kubelets: do they fit together
  resource types  are they there, served, and those that this command knows
  controller      does it run, and does one replica lead
  agents          is there one at work on every Linux node; if not, why
  runtimes        does each agent reach its container runtime
  webhook         a Pod is created for show, and not kept: does the webhook change it
  certificates    does the API server trust the webhook's, and how long do they last
  kubelets        settings that defeat prefetching: garbage collection, verification of credentials
  nodes           disk pressure, startup taints that stay, labels of images that are not there
  prefetches      selectors that match no node, pull secrets that nobody may read
  mirrors         do images get copied; Secrets, relays on nodes, the webhook's rewriting, the registry's collector
  rights          of Coral's service accounts, and yours

A problem is something that Coral is for and that does not work; a warning is something that works otherwise than somebody probably \
wants it; a note is worth knowing. What you may not look at is a note, too. Nothing is changed in the cluster.

The exit code is 0 where there are no problems, and 1 where there are.",
    after_help = "\
Examples:
  # everything
  kubectl coral doctor

  # only what is wrong, for a script
  kubectl coral doctor --quiet

  # every kubelet of a large cluster
  kubectl coral doctor --kubelets 5000"
)]
pub(crate) struct DoctorArgs {
    /// Only warnings and problems
    #[arg(short, long)]
    quiet: bool,

    /// How many kubelets are asked for their settings, spread over the nodes; 0 asks none
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    kubelets: usize,

    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: DoctorFormat,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum DoctorFormat {
    Table,
    Json,
    Yaml,
}

impl DoctorArgs {
    /// Looks, prints what was found, and gives the exit code.
    pub(crate) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self {
            quiet,
            kubelets,
            output,
        } = self;
        // It takes a second or two: worth a line on a terminal, and none in a log.
        let mut steps = printer.live_progress().then(|| Steps::new(printer));
        let facts = Box::pin(gather::gather(cluster, Bounds { kubelets }, &mut steps)).await?;
        drop(steps);
        let report = Report::new(diagnose(&facts));
        let value = || report.value(quiet).map_err(|error| Error::Format(error.to_string()));
        let text = match output {
            DoctorFormat::Table => report.text(quiet, printer.width(), printer.colour()),
            DoctorFormat::Json => output::json(&value()?)?,
            DoctorFormat::Yaml => output::yaml(&value()?)?,
        };
        if !text.is_empty() {
            printer.data(text)?;
        }
        Ok(if report.has_problems() {
            exit::ERROR
        } else {
            exit::SUCCESS
        })
    }
}
