//! `kubectl coral install` and `kubectl coral upgrade`: the in-cluster parts, from the manifests in this binary.

pub(crate) mod registry;
mod rollout;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use coral_api::keys;
use jiff::Timestamp;
use kube::{Client, api::DynamicObject};
use serde_json::Value;

use self::{registry::Known, rollout::Part};
use crate::{
    apply::{self, Manner},
    cli::ClusterArgs,
    client::{Cluster, RequestError},
    error::Error,
    exit, human,
    installation::{self, Installation, PART_OF},
    manifests::{
        self,
        settings::{self, Quantity, RuntimeEndpoint, Settings, Toleration},
    },
    naming,
    output::{self, DryRun},
    printer::Printer,
};

/// The image of this release. A build that is no release has none.
const RELEASED_IMAGE: Option<&str> = option_env!("CORAL_IMAGE");
/// The version of this command, as the parts have it in a label.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Install Coral in the cluster
#[derive(Args, Debug)]
#[command(
    long_about = "\
Install Coral in the cluster.

Applies the manifests in this command, which are those of the folder deploy/ of its source, by server-side apply, and waits \
until everything runs. Again is no harm: what is as it should be stays. The namespace is coral-system unless -n says otherwise.",
    after_help = "\
Examples:
  kubectl coral install

  # see first, or keep it in git
  kubectl coral install --dry-run=client -o yaml > coral.yaml

  # k3s, and only on the nodes of one pool
  kubectl coral install --set-runtime-endpoint unix:///run/k3s/containerd/containerd.sock --set-node-selector pool=gpu

  # with a registry for copies of images, which nodes know as localhost:7439
  kubectl coral install --with-registry --set-registry-storage 200Gi"
)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
}

/// Bring the Coral in the cluster to the version of this command
#[derive(Args, Debug)]
#[command(
    long_about = "\
Bring the Coral in the cluster to the version of this command.

Applies the manifests in this command to the namespace that Coral is in, deletes the parts that this version does not have any \
more, and waits until everything runs. What --set-… and --component said at the installation must be said again. Prefetches and \
images on nodes stay as they are.",
    after_help = "\
Examples:
  kubectl coral upgrade"
)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
}

#[derive(Args, Debug)]
struct ManifestArgs {
    /// Image of the in-cluster parts; default: that of this release
    #[arg(long, value_name = "IMAGE", value_parser = settings::parse_image)]
    image: Option<String>,

    /// Only the nodes with this label get an agent; may be repeated
    #[arg(long = "set-node-selector", value_name = "KEY=VALUE", value_parser = settings::parse_label)]
    node_selector: Vec<(String, String)>,

    /// Taint that the controller and the webhook tolerate (agents tolerate all), `KEY[=VALUE][:EFFECT]`; may be repeated
    #[arg(long = "set-toleration", value_name = "TAINT", value_parser = settings::parse_toleration)]
    tolerations: Vec<Toleration>,

    /// Socket of the container runtime on the nodes, a URL such as `unix:///run/x/x.sock`
    #[arg(long = "set-runtime-endpoint", value_name = "ENDPOINT", value_parser = settings::parse_runtime_endpoint)]
    runtime_endpoint: Option<RuntimeEndpoint>,

    /// Secret of Coral's namespace to pull the image of the parts with; may be repeated
    #[arg(long = "set-image-pull-secret", value_name = "NAME", value_parser = naming::parse_name)]
    image_pull_secrets: Vec<String>,

    /// Memory limit of the agents
    #[arg(long = "set-agent-memory", value_name = "BYTES", value_parser = settings::parse_quantity)]
    agent_memory: Option<Quantity>,

    /// Memory limit of the controller
    #[arg(long = "set-controller-memory", value_name = "BYTES", value_parser = settings::parse_quantity)]
    controller_memory: Option<Quantity>,

    /// A registry in the cluster for copies of images, with a relay to it on every node
    #[arg(long)]
    with_registry: bool,

    /// Image of that registry; default: that of the distribution project
    #[arg(long = "set-registry-image", value_name = "IMAGE", value_parser = settings::parse_image)]
    registry_image: Option<String>,

    /// Size of that registry's volume, when it is made
    #[arg(long = "set-registry-storage", value_name = "BYTES", value_parser = settings::parse_quantity)]
    registry_storage: Option<Quantity>,

    /// Optional part to install, too; may be repeated
    #[arg(long = "component", value_name = "NAME", value_parser = parse_component)]
    components: Vec<String>,

    /// Take fields over that somebody else manages
    #[arg(long)]
    force_conflicts: bool,

    /// Return when everything is applied, without waiting until it runs
    #[arg(long)]
    no_wait: bool,

    /// How long to wait until everything runs; 0 is without end
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = human::parse_duration)]
    timeout: Duration,

    /// client: send nothing; server: let the API server check it, and keep nothing
    #[arg(long, value_enum, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,

    /// With --dry-run=client: the manifests themselves
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<ManifestFormat>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum ManifestFormat {
    Json,
    Yaml,
    Name,
}

fn parse_component(text: &str) -> Result<String, String> {
    let known = manifests::components();
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(match known.as_slice() {
        [] => "this version has no optional parts".to_owned(),
        known => format!("the optional parts are {}", known.join(", ")),
    })
}

impl InstallArgs {
    /// Installs.
    pub(crate) async fn run(self, cluster: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let Self { manifests } = self;
        let namespace = cluster.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| keys::SYSTEM_NAMESPACE.to_owned());
        let mut objects = manifests.objects(&namespace)?;
        if manifests.dry_run == DryRun::Client {
            manifests.complete(&mut objects, &Known::default(), &namespace)?;
            return manifests.print(&objects, printer);
        }
        let cluster = Cluster::connect(cluster).await?;
        if let Some(other) = installation::namespace(&cluster)
            .await?
            .filter(|other| *other != namespace)
        {
            return Err(Error::InstalledElsewhere {
                namespace: other,
                wanted: namespace,
            });
        }
        manifests.look(&cluster, &mut objects, &namespace).await?;
        manifests.apply(&cluster, objects, &namespace, printer).await
    }
}

impl UpgradeArgs {
    /// Upgrades.
    pub(crate) async fn run(self, cluster_arguments: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let Self { manifests } = self;
        // Before anything is asked of the cluster.
        manifests.image()?;
        let cluster = Cluster::connect(cluster_arguments).await?;
        let Some(Installation {
            namespace, versions, ..
        }) = installation::find(&cluster).await?
        else {
            return Err(Error::NothingToUpgrade);
        };
        let mut objects = manifests.objects(&namespace)?;
        manifests.look(&cluster, &mut objects, &namespace).await?;
        if manifests.dry_run == DryRun::Client {
            return manifests.print(&objects, printer);
        }
        let before = if versions.is_empty() {
            "unknown".to_owned()
        } else {
            versions.join(", ")
        };
        printer.note(format_args!("upgrading Coral in {namespace}: {before} to {VERSION}"));
        prune(&cluster, &objects, &namespace, &manifests, printer).await?;
        manifests.apply(&cluster, objects, &namespace, printer).await
    }
}

impl ManifestArgs {
    fn image(&self) -> Result<String, Error> {
        let released = RELEASED_IMAGE.filter(|image| !image.is_empty()).map(str::to_owned);
        self.image.clone().or(released).ok_or(Error::NoImage)
    }

    /// The objects to apply, in their order.
    fn objects(&self, namespace: &str) -> Result<Vec<Value>, Error> {
        let settings = Settings {
            namespace: namespace.to_owned(),
            image: self.image()?,
            version: Some(VERSION.to_owned()),
            node_selector: self.node_selector.clone(),
            tolerations: self.tolerations.clone(),
            runtime_endpoint: self.runtime_endpoint.clone(),
            image_pull_secrets: self.image_pull_secrets.clone(),
            agent_memory: self.agent_memory.clone(),
            controller_memory: self.controller_memory.clone(),
            registry_image: self.registry_image.clone(),
            registry_storage: self.registry_storage.clone(),
        };
        let mut components = self.components.clone();
        if self.has_registry() && !components.iter().any(|name| name == registry::COMPONENT) {
            components.push(registry::COMPONENT.to_owned());
        }
        let mut objects = manifests::compose(&components)?;
        for object in &mut objects {
            settings.change(object);
        }
        Ok(objects)
    }

    fn has_registry(&self) -> bool {
        self.with_registry || self.components.iter().any(|name| name == registry::COMPONENT)
    }

    /// Adds what no manifest has, if it is wanted.
    fn complete(&self, objects: &mut Vec<Value>, known: &Known, namespace: &str) -> Result<(), Error> {
        if self.has_registry() {
            registry::complete(objects, known, namespace, Timestamp::now())?;
        }
        Ok(())
    }

    /// As [`Self::complete`], with what is in the cluster already.
    async fn look(&self, cluster: &Cluster, objects: &mut Vec<Value>, namespace: &str) -> Result<(), Error> {
        let known = if self.has_registry() {
            Known::read(cluster, namespace).await?
        } else {
            Known::default()
        };
        self.complete(objects, &known, namespace)
    }

    /// What would be applied.
    fn print(&self, objects: &[Value], printer: &Printer) -> Result<u8, Error> {
        match self.output {
            Some(ManifestFormat::Json) => printer.data(output::json(&output::list(objects))?)?,
            Some(ManifestFormat::Yaml) => {
                let documents: Vec<String> = objects.iter().map(output::yaml).collect::<Result<_, _>>()?;
                printer.data(documents.join("---\n"))?;
            }
            Some(ManifestFormat::Name) | None => {
                let suffix = if self.output.is_none() {
                    " created (dry run)"
                } else {
                    ""
                };
                for object in objects {
                    printer.data(format!("{}{suffix}", name(object)))?;
                }
            }
        }
        Ok(exit::SUCCESS)
    }

    async fn apply(
        &self,
        cluster: &Cluster,
        mut objects: Vec<Value>,
        namespace: &str,
        printer: &Printer,
    ) -> Result<u8, Error> {
        let began = Instant::now();
        let is_dry = self.dry_run == DryRun::Server;
        leave_foreign_namespace(cluster, &mut objects, namespace, printer).await?;
        let manner = Manner {
            dry_run: is_dry,
            force: self.force_conflicts,
        };
        let end = (!self.timeout.is_zero()).then(|| began + self.timeout);
        let mut parts: Vec<Part> = Vec::new();
        let mut is_served = false;
        for object in &objects {
            let (resource, _) = manifests::resource(object);
            if resource.kind != "Namespace" && resource.kind != "CustomResourceDefinition" && !is_served {
                // What uses the resource types comes after them.
                rollout::until_ready(cluster, &parts, namespace, end, self.timeout, printer).await?;
                is_served = true;
            }
            match apply::apply(cluster, &resource, object, manner).await {
                Ok(outcome) => {
                    let suffix = self.dry_run.suffix();
                    printer.data(match self.output {
                        Some(ManifestFormat::Name) => outcome.object,
                        _ => format!("{} {}{suffix}", outcome.object, outcome.change),
                    })?;
                }
                // A dry run makes no namespace for what is in it.
                Err(RequestError::NoNamespace { .. }) if is_dry => {
                    printer.data(format!(
                        "{} created (not checked: its namespace is not there yet)",
                        name(object)
                    ))?;
                }
                Err(RequestError::Conflict { message }) => {
                    return Err(Error::ApplyConflict {
                        object: name(object),
                        message,
                    });
                }
                Err(error) => return Err(error.into()),
            }
            if !is_dry {
                parts.extend(Part::new(object));
            }
        }
        if is_dry || self.no_wait {
            return Ok(exit::SUCCESS);
        }
        let running = rollout::until_ready(cluster, &parts, namespace, end, self.timeout, printer).await?;
        printer.note(format_args!(
            "Coral {VERSION} runs in namespace {namespace}: {}, {}",
            running.join(", "),
            human::elapsed(began.elapsed())
        ));
        Ok(exit::SUCCESS)
    }
}

/// `deployment.apps/coral-controller`
fn name(object: &Value) -> String {
    let (resource, _) = manifests::resource(object);
    output::name(object["metadata"]["name"].as_str().unwrap_or_default(), &resource)
}

/// A namespace that was there before stays its owner's: `uninstall` deletes only those with the label.
async fn leave_foreign_namespace(
    cluster: &Cluster,
    objects: &mut [Value],
    namespace: &str,
    printer: &Printer,
) -> Result<(), Error> {
    let Some(object) = objects.iter_mut().find(|object| object["kind"] == "Namespace") else {
        return Ok(());
    };
    let (resource, _) = manifests::resource(object);
    let found: Option<DynamicObject> = cluster
        .request(async |client: Client| apply::api(client, &resource, None).get_opt(namespace).await)
        .await?;
    let labels = found.map(|found| found.metadata.labels.unwrap_or_default());
    if labels.is_some_and(|labels| labels.get(PART_OF.0).is_none_or(|value| value != PART_OF.1)) {
        printer.note(format_args!(
            "namespace {namespace} was there before, so `kubectl coral uninstall` will leave it"
        ));
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.remove(PART_OF.0);
        }
    }
    Ok(())
}

/// Deletes the parts of the version before that this one does not have.
async fn prune(
    cluster: &Cluster,
    objects: &[Value],
    namespace: &str,
    arguments: &ManifestArgs,
    printer: &Printer,
) -> Result<(), Error> {
    for (resource, found) in installation::objects(cluster).await? {
        let found_name = found.metadata.name.clone().unwrap_or_default();
        let is_elsewhere = found
            .metadata
            .namespace
            .as_ref()
            .is_some_and(|other| other != namespace);
        let stays = objects.iter().any(|object| {
            manifests::resource(object).0.kind == resource.kind && object["metadata"]["name"] == found_name.as_str()
        });
        if stays || is_elsewhere || resource.kind == "Namespace" {
            continue;
        }
        if arguments.dry_run == DryRun::None {
            installation::delete(cluster, &resource, &found).await?;
        }
        let name = output::name(&found_name, &resource);
        printer.data(format!("{name} deleted{}", arguments.dry_run.suffix()))?;
    }
    Ok(())
}
