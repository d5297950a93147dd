//! `kubectl coral inject` and `kubectl coral uninject`: workloads whose pods run where their images are.

mod targets;

use clap::{ArgGroup, Args, ValueEnum};
use coral_webhook::mutate::{self, Containers, Coverage, Placement, PullPolicy, Wish};
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use self::targets::TargetArgs;
pub(crate) use self::targets::send;
use crate::{
    cli::ClusterArgs,
    error::Error,
    exit,
    output::{self, DryRun},
    printer::Printer,
};

/// Let the pods of workloads run only where their images are
#[derive(Args, Debug)]
#[command(
    long_about = "\
Let the pods of workloads run only where their images are.

Writes the annotations that Coral's webhook acts on, and makes the same changes that it would make, so that both agree: a node \
selector for each image, a pull policy, or both. A change of the pod template replaces the pods, as the update strategy of the \
workload says. With -f nothing is sent: the changed manifests are printed.",
    after_help = "\
Examples:
  # only nodes that have the images, and no pulls
  kubectl coral inject deploy/web --selectors --pull-policy

  # rather these nodes, but never stuck
  kubectl coral inject deploy/web --selectors --placement=preferred

  # manifests, before they are applied
  helm template chart | kubectl coral inject --selectors -f - | kubectl apply -f -

  # what would be changed
  kubectl coral inject deploy/web --selectors --dry-run=client -o patch",
    group = ArgGroup::new("what").args(["selectors", "pull_policy"]).required(true).multiple(true)
)]
pub(crate) struct InjectArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// Place pods by their images
    #[arg(long)]
    selectors: bool,

    /// Set the pull policy of the containers; default: Never, and `IfNotPresent` with --placement=preferred
    #[arg(long, value_enum, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "default")]
    pull_policy: Option<PolicyArgument>,

    /// required: nodes without the images will not do; preferred: they will, where no other has room
    #[arg(long, value_enum, value_name = "HOW", default_value = "required")]
    placement: PlacementArgument,

    /// Only these containers, separated by commas
    #[arg(long, value_name = "CONTAINER", value_delimiter = ',', conflicts_with = "exclude")]
    include: Vec<String>,

    /// All containers but these, separated by commas
    #[arg(long, value_name = "CONTAINER", value_delimiter = ',')]
    exclude: Vec<String>,

    #[command(flatten)]
    shown: ShownArgs,
}

/// Take back what `inject` and the webhook changed in workloads
#[derive(Args, Debug)]
#[command(
    long_about = "\
Take back what `inject` and the webhook changed in workloads.

Takes Coral's annotations away, and puts back what stood there before. With -f nothing is sent: the changed manifests are printed.",
    after_help = "\
Examples:
  kubectl coral uninject deploy/web

  # every workload of the cluster, before Coral is uninstalled
  kubectl coral uninject --all -A"
)]
pub(crate) struct UninjectArgs {
    #[command(flatten)]
    targets: TargetArgs,

    #[command(flatten)]
    shown: ShownArgs,
}

#[derive(Args, Clone, Copy, Debug)]
struct ShownArgs {
    /// client: send nothing; server: let the API server check it, and keep nothing
    #[arg(long, value_enum, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,

    /// Format of the output; patch is what changes, as JSON of RFC 6902
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<InjectFormat>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum InjectFormat {
    Json,
    Yaml,
    Name,
    Patch,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PolicyArgument {
    #[value(name = "Never")]
    Never,
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    #[value(hide = true)]
    Default,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PlacementArgument {
    Required,
    Preferred,
}

/// What becomes of one object.
struct Change {
    patch: Vec<PatchOperation>,
    warnings: Vec<String>,
}

impl InjectArgs {
    /// Injects.
    pub(crate) async fn run(self, cluster: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let wish = self.wish();
        let change = |object: &Value, coverage: Option<&Coverage>| {
            let outcome = mutate::inject(object, &wish, coverage)?;
            Ok(Change {
                patch: outcome.patch,
                warnings: outcome.warnings,
            })
        };
        self.targets
            .change(cluster, printer, self.shown, "injected", change)
            .await
    }

    fn wish(&self) -> Wish {
        let placement = match self.placement {
            PlacementArgument::Required => Placement::Required,
            PlacementArgument::Preferred => Placement::Preferred,
        };
        let names = |names: &[String]| names.iter().cloned().collect();
        Wish {
            placement: self.selectors.then_some(placement),
            pull_policy: self.pull_policy.map(|policy| match (policy, placement) {
                (PolicyArgument::Never, _) | (PolicyArgument::Default, Placement::Required) => PullPolicy::Never,
                (PolicyArgument::IfNotPresent, _) | (PolicyArgument::Default, Placement::Preferred) => {
                    PullPolicy::IfNotPresent
                }
            }),
            containers: match (self.include.as_slice(), self.exclude.as_slice()) {
                ([], []) => Containers::All,
                ([], exclude) => Containers::AllBut(names(exclude)),
                (include, _) => Containers::Only(names(include)),
            },
        }
    }
}

impl UninjectArgs {
    /// Takes back.
    pub(crate) async fn run(self, cluster: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let change = |object: &Value, _: Option<&Coverage>| {
            let patch = mutate::uninject(object)?;
            Ok(Change {
                patch,
                warnings: Vec::new(),
            })
        };
        self.targets
            .change(cluster, printer, self.shown, "uninjected", change)
            .await
    }
}

/// Prints one object that was changed, or would be.
fn print(
    printer: &Printer,
    shown: ShownArgs,
    name: &str,
    verb: &str,
    object: &Value,
    patch: &[PatchOperation],
) -> Result<u8, Error> {
    let verb = if patch.is_empty() { "unchanged" } else { verb };
    printer.data(match shown.output {
        None => format!("{name} {verb}{}", shown.dry_run.suffix()),
        Some(InjectFormat::Name) => name.to_owned(),
        Some(InjectFormat::Json) => output::json(object)?,
        Some(InjectFormat::Yaml) => output::yaml(object)?,
        Some(InjectFormat::Patch) => {
            let patch =
                serde_json::to_value(Patch(patch.to_vec())).map_err(|error| Error::Format(error.to_string()))?;
            output::json(&patch)?
        }
    })?;
    Ok(exit::SUCCESS)
}
