//! `kubectl coral mirror`: copies of images in a registry of one's own.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};
use coral_mirror::{Copier, Job, Naming, Observer, Outcome, Prepared};
use coral_registry::{Client, Options, Patience, Platform, Proxies};
use tokio::{runtime, time::interval};

use crate::{
    error::Error,
    exit, images,
    mirror::{
        self,
        display::{Display, Progress},
        failure,
        jobs::jobs,
        logins::Logins,
        report,
        tally::Tally,
    },
    output,
    printer::Printer,
};

/// Longest silence of a registry. Some take their time to put a large blob where it stays.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How often is looked at how far the copies are.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How a registry is asked again that fails for the moment.
const PATIENCE: Patience = Patience {
    attempts: 6,
    first_pause: Duration::from_millis(500),
    longest_pause: Duration::from_mins(1),
};

/// Copy images into a registry of one's own
#[derive(Args, Debug)]
pub(crate) struct MirrorArgs {
    #[command(subcommand)]
    command: MirrorCommand,
}

#[derive(Debug, Subcommand)]
enum MirrorCommand {
    Copy(CopyArgs),
}

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
struct CopyArgs {
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

/// How registries are reached.
#[derive(Args, Debug)]
#[command(next_help_heading = "Registry options")]
struct RegistryArgs {
    /// Requests at the same time at each registry
    #[arg(long, value_name = "NUMBER", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,

    /// Registry that is spoken to without TLS, e.g. registry.lan:5000; may be repeated. Those on this machine always are
    #[arg(long, value_name = "REGISTRY")]
    plain_http: Vec<String>,

    /// File with certificates of authorities to trust beside the system's, in PEM form
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// File with credentials, as `docker login` writes it
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
}

/// How copies are named.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NamingChoice {
    /// Host and path of the original
    Path,
    /// One level, with a hash
    Flat,
}

/// How the copies are listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum CopyFormat {
    Json,
    Name,
}

impl MirrorArgs {
    /// Copies.
    pub(crate) fn run(self, printer: &Printer) -> Result<u8, Error> {
        let Self { command } = self;
        let MirrorCommand::Copy(arguments) = command;
        // What comes is held against its digest, which is work for more than one processor.
        let runtime = runtime::Builder::new_multi_thread().enable_all().build();
        runtime
            .map_err(Error::Runtime)?
            .block_on(Box::pin(arguments.run(printer)))
    }
}

impl CopyArgs {
    async fn run(self, printer: &Printer) -> Result<u8, Error> {
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
        let naming = match naming {
            NamingChoice::Path => Naming::Path,
            NamingChoice::Flat => Naming::Flat,
        };
        let jobs = jobs(&images.references, &destination, naming)?;
        let options = coral_mirror::Options {
            platforms,
            referrers: !no_referrers,
            verify,
            parallel: usize::from(registries.parallel),
        };
        let copier = registries.copier(&jobs, options)?;
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

impl RegistryArgs {
    fn copier(self, jobs: &[Job], options: coral_mirror::Options) -> Result<Copier, mirror::Error> {
        let Self {
            parallel: _,
            plain_http,
            ca_file,
            auth_file,
        } = self;
        let mut registry_options = Options {
            plain_http: plain_http.into_iter().collect(),
            timeout: TIMEOUT,
            patience: PATIENCE,
            proxies: Proxies::from_environment()?,
            ..Options::default()
        };
        if let Some(path) = &ca_file {
            registry_options.authorities = fs::read(path).map_err(|error| mirror::Error::File {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        }
        let client = Client::new(registry_options).map_err(|error| match ca_file {
            Some(path) => mirror::Error::Authorities { path, error },
            None => mirror::Error::Client(error),
        })?;
        let ends = jobs
            .iter()
            .flat_map(|job| [job.source.registry(), job.destination.registry()]);
        let registries: BTreeSet<&str> = ends.collect();
        let logins = Logins::read(auth_file.as_deref(), &registries)?;
        Ok(Copier::new(client, Arc::new(logins), options))
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
