//! `kubectl coral mirror copy`: images from one registry to another, without a cluster.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use coral_mirror::{Copier, Observer, Outcome, Prepared};
use coral_registry::Platform;
use tokio::time::interval;

use super::{
    NamingChoice,
    registries::{Reached, RegistryArgs},
};
use crate::{
    error::Error,
    exit, images,
    mirror::{
        self,
        display::{Display, Progress},
        failure,
        jobs::jobs,
        report,
        tally::Tally,
    },
    output,
    printer::Printer,
};

/// How often is looked at how far the copies are.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Copy images from one registry to another, now and without a cluster
#[derive(Args, Debug)]
#[command(
    long_about = "\
Copy images from one registry to another, now and without a cluster.

A copy has the digest of its original: images of all platforms, signatures and lists of contents come along, byte for \
byte. What the destination has is not sent again, so that the same command goes on where it was interrupted. The tag \
is written last: nobody sees half an image.

Credentials are those of `docker login` and `podman login`: DOCKER_CONFIG or ~/.docker/config.json, with the programs \
that it names (credHelpers, credsStore), else Podman's file. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are followed.",
    after_help = "\
Examples:
  # one image, under a name of its own
  kubectl coral mirror copy nginx:1.29 registry.example/web:1.29

  # several images, each below registry.example/mirror/ under the whole name of its original
  kubectl coral mirror copy nginx:1.29 ghcr.io/acme/app:v7 registry.example/mirror/

  # see first what would be sent
  kubectl coral mirror copy nginx:1.29 registry.example/mirror/ --dry-run"
)]
pub(crate) struct CopyArgs {
    /// Images to copy
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,

    /// Name of the copy, or, with a slash at its end, the place for the copies
    #[arg(value_name = "DESTINATION")]
    destination: String,

    /// How copies are named in a place
    #[arg(long, value_enum, value_name = "HOW", default_value = "path")]
    naming: NamingChoice,

    /// Only images for these platforms, e.g. linux/amd64; may be repeated. Some registries take an index only as a whole
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// Without what refers to the images: signatures, lists of contents
    #[arg(long)]
    no_referrers: bool,

    /// Look at every part, even where the destination has the image under its name
    #[arg(long)]
    verify: bool,

    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<CopyFormat>,

    #[command(flatten)]
    registries: RegistryArgs,
}

/// How the copies are listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum CopyFormat {
    Json,
    Name,
}

impl CopyArgs {
    /// Copies.
    pub(crate) async fn run(self, printer: &Printer) -> Result<u8, Error> {
        let Self {
            sources,
            destination,
            naming,
            platforms,
            no_referrers,
            verify,
            dry_run,
            output,
            registries,
        } = self;
        let images = images::parse(&sources)?;
        for (left_out, stays) in &images.duplicates {
            printer.note(format_args!("{left_out} is the same image as {stays}"));
        }
        let jobs = jobs(&images.references, &destination, naming.into())?;
        let options = coral_mirror::Options {
            platforms,
            referrers: !no_referrers,
            verify,
            parallel: usize::from(registries.parallel),
        };
        let ends = jobs
            .iter()
            .flat_map(|job| [job.source.registry(), job.destination.registry()]);
        let Reached { client, logins } = registries.reach(&ends.collect(), BTreeSet::new())?;
        let copier = Copier::new(client, Arc::new(logins), options);
        let mut display = Display::new(printer);
        let began = Instant::now();
        let prepared = copier.prepare(jobs).await;
        if dry_run {
            display.finish();
            return show_plan(printer, output, &prepared);
        }
        let tally = Arc::new(Tally::default());
        let outcomes = watch(&copier, prepared, &tally, &mut display, printer, output).await?;
        display.finish();
        let counts = tally.counts();
        if output == Some(CopyFormat::Json) {
            printer.data(output::json(&report::json(&outcomes, counts, began.elapsed()))?)?;
        } else {
            printer.note(report::summary(counts, began.elapsed()));
        }
        verdict(
            outcomes.len(),
            outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()),
        )
    }
}

/// Lets the copier do its work, and shows how far it is.
async fn watch(
    copier: &Copier,
    prepared: Prepared,
    tally: &Arc<Tally>,
    display: &mut Display<'_>,
    printer: &Printer,
    output: Option<CopyFormat>,
) -> Result<Vec<Outcome>, Error> {
    let (images, total) = (prepared.images().count(), prepared.bytes_to_send());
    let observer: Arc<dyn Observer> = Arc::clone(tally) as _;
    let since = Instant::now();
    let mut ended = 0;
    let mut copying = Box::pin(copier.carry_out(prepared, observer));
    let mut ticks = interval(LOOK_AGAIN);
    loop {
        let outcomes = tokio::select! {
            outcomes = &mut copying => Some(outcomes),
            _ = ticks.tick() => None,
        };
        for outcome in tally.news() {
            ended += 1;
            display.aside(|| tell(printer, output, &outcome))?;
        }
        if let Some(outcomes) = outcomes {
            return Ok(outcomes);
        }
        let moved = tally.counts().moved;
        display.update(
            Progress {
                moved,
                total,
                ended,
                images,
            },
            since,
        );
    }
}

/// Tells of an image that is through.
fn tell(printer: &Printer, output: Option<CopyFormat>, outcome: &Outcome) -> Result<(), Error> {
    match (&outcome.result, output) {
        (Err(error), _) => printer.note(format_args!("error: {}", failure::chain(error))),
        (Ok(_), Some(CopyFormat::Json)) => {}
        (Ok(_), Some(CopyFormat::Name)) => printer.data(report::name(&outcome.job))?,
        (Ok(copied), None) => printer.data(report::line(&outcome.job, copied))?,
    }
    Ok(())
}

fn show_plan(printer: &Printer, output: Option<CopyFormat>, prepared: &Prepared) -> Result<u8, Error> {
    let failures: Vec<&coral_mirror::Error> = prepared.images().filter_map(|(_, known)| known.err()).collect();
    for error in &failures {
        printer.note(format_args!("error: {}", failure::chain(*error)));
    }
    if output == Some(CopyFormat::Json) {
        printer.data(output::json(&report::planned_json(prepared))?)?;
    } else {
        let names = || {
            prepared
                .images()
                .filter(|(_, known)| known.is_ok())
                .map(|(job, _)| report::name(job))
        };
        let lines: Vec<String> = match output {
            Some(CopyFormat::Name) => names().collect(),
            _ => report::planned_lines(prepared),
        };
        for line in lines {
            printer.data(line)?;
        }
        printer.note(report::planned_summary(prepared));
    }
    verdict(prepared.images().count(), failures.into_iter())
}

/// How the command ends.
fn verdict<'error>(all: usize, failures: impl Iterator<Item = &'error coral_mirror::Error>) -> Result<u8, Error> {
    let failures: Vec<_> = failures.collect();
    match failures.first() {
        None => Ok(exit::SUCCESS),
        Some(first) => Err(Error::Mirror(mirror::Error::Images {
            failed: failures.len(),
            all,
            hint: failure::hint(first),
        })),
    }
}
