//! `kubectl coral prefetch`: asks for images on nodes, and waits for them.

mod nodes;
mod policy;
mod request;
mod sources;

use std::time::Duration;

use clap::Args;
use coral_api::{Prefetch, keys};
use kube::core::ApiResource;

use self::{nodes::NodeArgs, policy::PolicyArgs, request::Request, sources::SourceArgs};
use crate::{
    cli::ClusterArgs,
    client::{self, Cluster},
    commands::allow_secret::warn_if_missing,
    error::Error,
    exit, grant, human,
    images::{self, Images},
    naming,
    output::{self, DryRun, ObjectFormat},
    printer::Printer,
    progress, wait,
};

/// Have images on nodes before anyone needs them
#[derive(Args, Debug)]
#[command(
    long_about = "\
Have images on nodes before anyone needs them.

Makes a Prefetch: Coral pulls its images to the nodes that it selects, keeps them there, and gives them to nodes that \
join later. The same command twice is one Prefetch. With --name, an existing one becomes what is asked for.",
    after_help = "\
Examples:
  # on every Linux node
  kubectl coral prefetch nginx:1.29 redis:8

  # all that a deployment and a Helm chart need
  kubectl coral prefetch --from deploy/web
  helm template chart | kubectl coral prefetch -f -

  # on the nodes with a GPU, and wait until it is there
  kubectl coral prefetch ghcr.io/acme/model:v7 --node-selector gpu=true --wait --timeout 30m

  # from a private registry, with the pull secret regcred of this namespace
  kubectl coral prefetch registry.example/team/app:v1 --pull-secret regcred

  # only print what would be made
  kubectl coral prefetch nginx:1.29 --name web --dry-run=client -o yaml"
)]
pub(crate) struct PrefetchArgs {
    #[command(flatten)]
    sources: SourceArgs,

    /// Name of the Prefetch; default: from the first image, and the same for the same images and nodes
    #[arg(long, value_name = "NAME", value_parser = naming::parse_name)]
    name: Option<String>,

    #[command(flatten)]
    nodes: NodeArgs,

    #[command(flatten)]
    policy: PolicyArgs,

    /// Secret of this namespace with credentials for the registry, which Coral's agents are then allowed to read; may be repeated
    #[arg(long = "pull-secret", value_name = "NAME", value_parser = naming::parse_name)]
    pull_secrets: Vec<String>,

    /// Wait until every image is on every node
    #[arg(long)]
    wait: bool,

    /// How long to wait, such as 90s, 10m or 1h30m; 0 is without end
    #[arg(long, requires = "wait", value_name = "DURATION", default_value = "10m", value_parser = human::parse_duration)]
    timeout: Duration,

    /// Format of the output; with --wait, json and yaml show the Prefetch as it is at the end
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<ObjectFormat>,

    /// client: send nothing; server: let the API server check it, and keep nothing
    #[arg(long, value_enum, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,
}

impl PrefetchArgs {
    /// Makes the Prefetch, and waits for it.
    pub(crate) async fn run(self, cluster: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let Self {
            sources,
            name,
            nodes,
            policy,
            pull_secrets,
            wait,
            timeout,
            output,
            dry_run,
        } = self;
        // What is wrong with the images of the command line itself is told before a cluster is asked.
        let mut found = sources.read()?;
        images::parse(&found.images)?;
        let is_offline = dry_run == DryRun::Client && !sources.need_cluster();
        let connected = if is_offline {
            None
        } else {
            let cluster = Cluster::connect(cluster).await?;
            sources.ask(&cluster, &mut found, printer).await?;
            Some(cluster)
        };
        let Images { references, duplicates } = images::parse(&found.images)?;
        for (left_out, stays) in duplicates.iter().filter(|_| !sources.are_many()) {
            printer.warning(format_args!("{left_out} is the same image as {stays}, and counts once"));
        }
        let node_selector = match &connected {
            Some(cluster) => nodes.selector_in(cluster).await?,
            None => nodes.selector(),
        };
        let request = Request {
            name: name.unwrap_or_else(|| naming::default_name(&references, node_selector.as_ref())),
            images: references,
            node_selector,
            pull_secrets,
            policy: policy.fields(),
            resource: ApiResource::erase::<Prefetch>(&()),
        };
        let unused = found.pull_secrets.iter();
        for secret in unused.filter(|secret| !request.pull_secrets.contains(secret)) {
            printer.hint(format_args!(
                "these pods are pulled with the Secret {secret}; --pull-secret {secret} lets Coral use it, too"
            ));
        }
        let cluster = match connected {
            Some(cluster) if dry_run != DryRun::Client => cluster,
            connected => {
                let namespace = match connected {
                    Some(cluster) => cluster.namespace().to_owned(),
                    None => client::offline_namespace(cluster).await?,
                };
                let object = request.object(&namespace);
                output::print(printer, output, &request.full_name(), "created (dry run)", &object)?;
                return Ok(exit::SUCCESS);
            }
        };
        for secret in &request.pull_secrets {
            warn_if_missing(&cluster, secret, printer).await?;
            let is_dry_run = dry_run == DryRun::Server;
            for outcome in grant::allow(&cluster, secret, keys::AGENT_SERVICE_ACCOUNT, is_dry_run).await? {
                // Beside the Prefetch, so that standard output stays what --output says.
                printer.note(format_args!("{} {}", outcome.object, outcome.change));
            }
        }
        let applied = request.apply(&cluster, dry_run == DryRun::Server).await?;
        for warning in request.differences(&applied.prefetch) {
            printer.warning(warning);
        }
        let is_dry = dry_run == DryRun::Server;
        let verb = format!("{}{}", applied.change.as_str(), dry_run.suffix());
        let shown_at_the_end = wait && !is_dry && matches!(output, Some(ObjectFormat::Json | ObjectFormat::Yaml));
        if !shown_at_the_end {
            let object = output::object(&applied.object, &request.resource)?;
            output::print(printer, output, &request.full_name(), &verb, &object)?;
        }
        if !wait || is_dry {
            return Ok(exit::SUCCESS);
        }
        let timeout = (!timeout.is_zero()).then_some(timeout);
        let mut progress = progress::choose(printer);
        let waited = wait::until_ready(&cluster, &applied.prefetch, timeout, progress.as_mut()).await;
        if shown_at_the_end {
            let object = request.get(&cluster).await?;
            let object = output::object(&object, &request.resource)?;
            output::print(printer, output, &request.full_name(), &verb, &object)?;
        }
        waited?;
        Ok(exit::SUCCESS)
    }
}
