//! `kubectl coral mirror check`: why new pods use a copy of an image, or the image itself.

use clap::{Args, ValueEnum};
use coral_api::{ImageReference, Mirror, MirroredImage, keys, mirrored_image};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, ResourceExt as _};

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    exit, images,
    mirror::verdict::{self, Facts, Registration},
    output,
    printer::Printer,
};

/// Say whether new pods use a copy of an image, and why
#[derive(Args, Debug)]
#[command(
    long_about = "\
Say whether new pods use a copy of an image, and why.

The conditions stand in the order in which they matter. All of them have to hold. They are about new pods: those that are there \
keep what they have. Pods with the label image.stvz.io/mirror=false, static pods, and pods of the namespaces that the webhook \
leaves alone (kube-*, *-system) keep their images whatever is said here.",
    after_help = "\
Examples:
  kubectl coral mirror check nginx:1.29
  kubectl coral mirror check ghcr.io/acme/app:v7 -o json"
)]
pub(super) struct CheckArgs {
    /// The image, as a pod names it
    #[arg(id = "mirrored", value_name = "IMAGE")]
    image: String,

    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Yaml,
}

impl CheckArgs {
    /// Looks, and says it.
    pub(super) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self { image, output } = self;
        let mut references = images::parse(&[image])?.references;
        let Some(image) = references.pop() else {
            return Ok(exit::SUCCESS);
        };
        let facts = Facts {
            registration: registration(cluster).await?,
            mirrors: mirrors(cluster).await?,
            mirrored: mirrored(cluster, &image).await?,
            image,
        };
        let verdict = verdict::judge(&facts, Timestamp::now());
        printer.data(match output {
            Format::Table => format!(
                "{}\n\n{}",
                verdict.table().render(true, printer.colour()),
                verdict.sentence()
            ),
            Format::Json => output::json(&verdict.json())?,
            Format::Yaml => output::yaml(&verdict.json())?,
        })?;
        Ok(exit::SUCCESS)
    }
}

/// The configuration by which the API server asks the webhook about new pods.
async fn registration(cluster: &Cluster) -> Result<Option<Registration>, Error> {
    let mut found = Registration::Missing;
    let each = |configuration: MutatingWebhookConfiguration| {
        let mut webhooks = configuration.webhooks.iter().flatten();
        if webhooks.any(|webhook| webhook.name == keys::REWRITE_WEBHOOK) {
            found = Registration::There(configuration.name_any());
        }
    };
    unless_forbidden(cluster.list(Api::all, each).await).map(|read| read.map(|()| found))
}

/// The Mirrors of the cluster, or `None` where one may not see them.
pub(super) async fn mirrors(cluster: &Cluster) -> Result<Option<Vec<Mirror>>, Error> {
    let mut mirrors = Vec::new();
    let read = cluster.list(Api::all, |mirror| mirrors.push(mirror)).await;
    unless_forbidden(read).map(|read| read.map(|()| mirrors))
}

async fn mirrored(cluster: &Cluster, image: &ImageReference) -> Result<Option<MirroredImage>, Error> {
    let name = mirrored_image::name(image);
    let api = |client| Api::<MirroredImage>::all(client);
    let found = cluster.request(async |client| api(client).get_opt(&name).await).await;
    Ok(found?)
}

/// What was read, or `None` where that is not allowed.
fn unless_forbidden<T>(read: Result<T, RequestError>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(RequestError::Forbidden { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
