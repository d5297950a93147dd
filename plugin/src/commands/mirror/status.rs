//! `kubectl coral mirror status`: where the copies are.

use clap::{Args, ValueEnum};
use coral_api::{ImageReference, MirroredImage, mirrored_image};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde_json::Value;

use super::check;
use crate::{
    client::Cluster,
    error::Error,
    exit,
    images::{self, Images},
    mirror::{self, overview},
    naming, near, output,
    printer::Printer,
};

/// Show images with their copies, where they are, and who uses them
#[derive(Args, Debug)]
#[command(
    long_about = "\
Show images with their copies, where they are, and who uses them.

  IMAGE          the original, as pods name it
  DIGEST         of the original, when it was last looked at
  DESTINATIONS   registries of the copies; behind those that have none: waiting, copying, retrying, failed; older is a copy \
of what the original was before
  ORIGIN         whether the original was to be had when it was last looked at
  USED BY        pods, pod templates and Prefetches that name it, or for how long nobody has

On a terminal that is too narrow for all of it, DESTINATIONS are counted, DIGEST is left out, and of long names there is the end. \
What failed stands under the table, with what to do about it.",
    after_help = "\
Examples:
  # all images
  kubectl coral mirror status

  # one of them, with the names of its copies
  kubectl coral mirror status nginx:1.29 -o wide

  # those of one Mirror of which something failed
  kubectl coral mirror status --mirror web --failed"
)]
pub(super) struct StatusArgs {
    /// Images, in any spelling; all if there is none
    #[arg(id = "mirrored", value_name = "IMAGE")]
    images: Vec<String>,

    /// Only what this Mirror wants
    #[arg(long = "mirror", id = "mirror_name", value_name = "NAME", value_parser = naming::parse_name)]
    mirror: Option<String>,

    /// Only what failed, also where it is tried again, and images whose originals are not to be had
    #[arg(long)]
    failed: bool,

    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,

    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl StatusArgs {
    /// Prints what is asked for.
    pub(super) async fn run(self, cluster: &Cluster, printer: &Printer) -> Result<u8, Error> {
        let Self {
            images,
            mirror,
            failed,
            output,
            no_headers,
        } = self;
        let Images { references, .. } = images::parse(&images)?;
        let resource = ApiResource::erase::<MirroredImage>(&());
        let mut found: Vec<(DynamicObject, MirroredImage)> = Vec::new();
        let mut malformed = None;
        let each = |object: DynamicObject| match object.clone().try_parse() {
            Ok(image) => found.push((object, image)),
            Err(error) => malformed = Some(Error::Format(error.to_string())),
        };
        cluster.list(|client| Api::all_with(client, &resource), each).await?;
        if let Some(error) = malformed {
            return Err(error);
        }
        let missing = missing(&references, &found);
        let wanted: Vec<String> = references.iter().map(mirrored_image::name).collect();
        let is_all = found.is_empty();
        found.retain(|(_, image)| {
            (wanted.is_empty() || wanted.contains(&image.name_any()))
                && mirror
                    .as_ref()
                    .is_none_or(|name| image.spec.requested_by.contains(name))
                && (!failed || overview::has_failed(image))
        });
        found.sort_by(|(_, one), (_, other)| one.spec.image.cmp(&other.spec.image));
        match output {
            Format::Table | Format::Wide if found.is_empty() => {
                if wanted.is_empty() {
                    printer.note("No resources found");
                }
                if is_all {
                    printer.hint(nothing_yet(
                        check::mirrors(cluster).await?.map_or(0, |mirrors| mirrors.len()),
                    ));
                }
            }
            Format::Table | Format::Wide => {
                let now = Timestamp::now();
                let images: Vec<MirroredImage> = found.into_iter().map(|(_, image)| image).collect();
                let table = match output {
                    Format::Wide => overview::table(&images, true, now),
                    _ => overview::fitted(&images, printer.width(), now),
                };
                let mut blocks = vec![table.render(!no_headers, printer.colour())];
                let failures = overview::failures(&images, now);
                if !failures.is_empty() {
                    blocks.push(failures.trim_end().to_owned());
                }
                printer.data(blocks.join("\n\n"))?;
            }
            Format::Name => {
                for (_, image) in &found {
                    printer.data(output::name(&image.name_any(), &resource))?;
                }
            }
            Format::Json | Format::Yaml => {
                let items = found.iter().map(|(object, _)| output::object(object, &resource));
                let mut items = items.collect::<Result<Vec<Value>, _>>()?;
                let value = match (items.pop(), wanted.len()) {
                    (Some(only), 1) => Some(only),
                    (None, 1) => None,
                    (last, _) => {
                        items.extend(last);
                        Some(output::list(&items))
                    }
                };
                if let Some(value) = value {
                    printer.data(if output == Format::Json {
                        output::json(&value)?
                    } else {
                        output::yaml(&value)?
                    })?;
                }
            }
        }
        missing.map_or(Ok(exit::SUCCESS), |error| Err(error.into()))
    }
}

/// What to do where no image is known at all.
fn nothing_yet(mirrors: usize) -> &'static str {
    match mirrors {
        0 => "`kubectl coral mirror --discover --to REGISTRY` copies what the cluster uses",
        _ => {
            "there are Mirrors, but their controller has named no image: `kubectl coral doctor` says whether it runs, and `kubectl get \
             mirrors` what it says of them"
        }
    }
}

/// An error about images of which nothing is known.
fn missing(wanted: &[ImageReference], found: &[(DynamicObject, MirroredImage)]) -> Option<mirror::Error> {
    let is_there = |image: &&ImageReference| {
        let name = mirrored_image::name(image);
        found.iter().any(|(_, object)| object.name_any() == name)
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|image| !is_there(image))
        .map(ImageReference::familiar)
        .collect();
    let known: Vec<String> = found
        .iter()
        .map(|(_, image)| overview::familiar(&image.spec.image))
        .collect();
    let near = missing
        .iter()
        .flat_map(|image| near::nearest(image, known.iter().map(String::as_str)));
    let near = near.map(str::to_owned).collect();
    (!missing.is_empty()).then_some(mirror::Error::Unknown { images: missing, near })
}
