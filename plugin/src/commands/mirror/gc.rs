//! `kubectl coral mirror gc`: removes copies that nobody needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal as _},
};

use clap::{Args, ValueEnum};
use coral_api::{ImageReference, Mirror, MirroredImage, mirror::Destination};
use coral_mirror::{
    Credentials as _, destination, mark,
    retention::{self, Marks, Plan, Removal, Situation},
    user::{Kind, Sketch, User},
};
use coral_registry::Repository;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::registries::{Reached, RegistryArgs};
use crate::{
    client::Cluster,
    commands::uninstall::consent,
    error::Error,
    exit,
    mirror::{self, collection, failure::chain},
    output,
    printer::Printer,
};

/// The namespace whose UID is the name of a cluster among those that share a registry.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// Remove copies that nobody needs any more
#[derive(Args, Debug)]
#[command(
    long_about = "\
Remove copies that nobody needs any more.

Coral's mirror controller does the same by itself every few minutes. This shows first what would go, and what stays although nobody \
has used it for long enough, and why; then it asks. A copy goes by its tag, when nothing in this cluster and no mark of another \
cluster needs it, and every Mirror that has it has a retention that is over.

The registries are asked from here, by the names that Mirrors have for them, with the credentials of `docker login`. What cannot be \
reached from here keeps everything.",
    after_help = "\
Examples:
  # only see what would go
  kubectl coral mirror gc --dry-run

  # remove it without being asked
  kubectl coral mirror gc --yes"
)]
pub(super) struct GcArgs {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,

    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    registries: RegistryArgs,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Yaml,
    Name,
}

/// What is in the cluster.
struct Seen {
    mirrors: Vec<Mirror>,
    images: Vec<MirroredImage>,
    /// Identities of the images that something uses.
    in_use: BTreeSet<String>,
    cluster: String,
}

impl GcArgs {
    /// Plans, asks, and carries out.
    pub(super) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self {
            dry_run,
            yes,
            output,
            registries,
        } = self;
        let seen = Seen::look(cluster).await?;
        let Reached { client, logins } = registries.reach(&seen.registries(), seen.plain())?;
        let repository = |reference: &ImageReference| {
            let credentials = logins.lookup(&format!("{}/{}", reference.registry(), reference.repository()));
            client.repository(reference, credentials.first())
        };
        let plan = seen.plan(repository).await;
        printer.data(match output {
            Format::Table => collection::text(&plan, printer.colour()),
            Format::Json => output::json(&collection::json(&plan))?,
            Format::Yaml => output::yaml(&collection::json(&plan))?,
            Format::Name => collection::names(&plan),
        })?;
        if dry_run || plan.removals.is_empty() {
            return Ok(exit::SUCCESS);
        }
        if !yes {
            if !io::stdin().is_terminal() {
                return Err(mirror::Error::NotConfirmed.into());
            }
            if !consent::agrees("Remove these copies?", printer)? {
                return Ok(exit::SUCCESS);
            }
        }
        // While somebody thought about it, somebody else may have begun to use an image.
        let seen = Seen::look(cluster).await?;
        let mut removals = seen.plan(repository).await.removals;
        removals.retain(|removal| plan.removals.contains(removal));
        let ended = retention::carry_out(removals, |removal| Some(repository(&removal.reference))).await;
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        for (removal, result) in &ended {
            match result {
                Ok(()) => {
                    printer.note(format_args!("{} removed", removal.reference));
                    removed.push(removal);
                }
                Err(error) => {
                    printer.note(format_args!("error: {}: {}", removal.reference, chain(error)));
                    failed.push(removal);
                }
            }
        }
        seen.forget(cluster, &removed, &failed).await?;
        if failed.is_empty() {
            Ok(exit::SUCCESS)
        } else {
            Err(mirror::Error::NotRemoved {
                failed: failed.len(),
                all: ended.len(),
            }
            .into())
        }
    }
}

impl Seen {
    /// Looks. Whoever may not see everything cannot tell what is in use, and removes nothing.
    async fn look(cluster: &Cluster) -> Result<Self, Error> {
        let (mut mirrors, mut images, mut in_use) = (Vec::new(), Vec::new(), BTreeSet::new());
        // Images before their users: what is used meanwhile is seen.
        cluster.list(Api::all, |mirror: Mirror| mirrors.push(mirror)).await?;
        cluster
            .list(Api::all, |image: MirroredImage| images.push(image))
            .await?;
        for kind in Kind::ALL {
            let resource = kind.resource();
            let api = |client| Api::<Sketch>::all_with(client, &resource);
            let each = |object: Sketch| {
                let images = User::new(kind, &object).images;
                let parsed = images.iter().filter_map(|image| image.parse::<ImageReference>().ok());
                in_use.extend(parsed.map(|image| image.identity()));
            };
            cluster.list(api, each).await?;
        }
        let api = |client| Api::<Namespace>::all(client);
        let namespace = cluster
            .request(async |client| api(client).get_metadata(CLUSTER_NAMESPACE).await)
            .await?;
        Ok(Self {
            mirrors,
            images,
            in_use,
            cluster: namespace.uid().unwrap_or_default(),
        })
    }

    fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.mirrors.iter().flat_map(|mirror| &mirror.spec.destinations)
    }

    fn registries(&self) -> BTreeSet<&str> {
        self.destinations()
            .map(|destination| destination.registry.as_str())
            .collect()
    }

    /// Registries that are spoken to without TLS.
    fn plain(&self) -> BTreeSet<String> {
        let plain = self.destinations().filter(|destination| destination.plain_http);
        plain.map(|destination| destination.registry.clone()).collect()
    }

    async fn plan(&self, repository: impl Fn(&ImageReference) -> Repository) -> Plan {
        let (mirrors, images): (Vec<&Mirror>, Vec<&MirroredImage>) =
            (self.mirrors.iter().collect(), self.images.iter().collect());
        let nothing = BTreeMap::new();
        let situation = Situation {
            mirrors: &mirrors,
            images: &images,
            in_use: &self.in_use,
            marks: &nothing,
            cluster: &self.cluster,
            now: Timestamp::now(),
        };
        let mut marks = BTreeMap::new();
        for place in retention::places(&situation) {
            let read = self.marks(&place, &repository).await;
            marks.insert(place, read.map_or_else(Marks::Unreadable, Marks::Read));
        }
        retention::plan(&Situation {
            marks: &marks,
            ..situation
        })
    }

    /// What the clusters that share a place have said there.
    async fn marks(
        &self,
        place: &str,
        repository: impl Fn(&ImageReference) -> Repository,
    ) -> Result<Vec<mark::Mark>, String> {
        let destination = self
            .destinations()
            .find(|destination| destination::place(destination) == place)
            .ok_or("no Mirror has this destination any more")?;
        let reference = mark::reference(destination, &self.cluster).map_err(|error| chain(&error))?;
        mark::read_all(&repository(&reference))
            .await
            .map_err(|error| chain(&error))
    }

    /// Lets the Mirrors whose copies are gone no longer want them.
    async fn forget(&self, cluster: &Cluster, removed: &[&Removal], failed: &[&Removal]) -> Result<(), Error> {
        let api = |client| Api::<MirroredImage>::all(client);
        for image in &self.images {
            let name = image.name_any();
            match retention::left(image, removed, failed) {
                Some(left) if left == image.spec.requested_by => {}
                Some(left) => {
                    let patch = Patch::Merge(json!({"spec": {"requestedBy": left}}));
                    cluster
                        .request(async |client| api(client).patch(&name, &PatchParams::default(), &patch).await)
                        .await?;
                }
                None => {
                    let parameters = DeleteParams {
                        preconditions: Some(Preconditions {
                            uid: image.uid(),
                            resource_version: None,
                        }),
                        ..DeleteParams::default()
                    };
                    cluster
                        .request(async |client| api(client).delete(&name, &parameters).await)
                        .await?;
                }
            }
        }
        Ok(())
    }
}
