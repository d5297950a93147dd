//! `kubectl coral mirror IMAGE… --to REGISTRY`: asks for copies, and waits for them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use coral_api::{ImageReference, mirror::Rewrite};
use coral_registry::Platform;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::NamingChoice;
use crate::{
    cli::ClusterArgs,
    client::Cluster,
    error::Error,
    exit, human,
    images::{self, Images},
    mirror::{
        request::{Place, Request, SecretName, SourceAuthority, parse_registry, sources},
        wait,
    },
    naming,
    output::{self, DryRun, ObjectFormat},
    printer::Printer,
    selector,
};

/// Copies of images, as a Mirror keeps them.
#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// Images, as in a Pod: nginx:1.29, ghcr.io/acme/app@sha256:…
    #[arg(id = "mirrored", value_name = "IMAGE", required_unless_present = "discover")]
    images: Vec<String>,

    /// Registry for the copies, with a path that they are put below, if any; may be repeated
    #[arg(long, required = true, value_name = "REGISTRY[/PREFIX]", value_parser = Place::parse)]
    to: Vec<Place>,

    /// Name of the Mirror; default: from the first image or the registry, and the same for the same images and registries
    #[arg(long = "name", id = "mirror_name", value_name = "NAME", value_parser = naming::parse_name)]
    name: Option<String>,

    /// When new pods use the copies
    #[arg(long, value_enum, value_name = "WHEN")]
    rewrite: Option<RewriteChoice>,

    #[command(flatten)]
    discover: DiscoverArgs,

    #[command(flatten)]
    destination: DestinationArgs,

    /// Secret with credentials for the originals, which Coral is allowed to read by `allow-secret`; may be repeated
    #[arg(long, value_name = "NAMESPACE/NAME")]
    source_secret: Vec<SecretName>,

    /// Secret in Coral's namespace whose ca.crt signs the certificate of a registry of originals; may be repeated
    #[arg(long, value_name = "REGISTRY=SECRET")]
    source_ca: Vec<SourceAuthority>,

    /// Registry of originals that is spoken to without TLS; may be repeated
    #[arg(long, value_name = "REGISTRY", value_parser = parse_registry)]
    source_plain_http: Vec<String>,

    /// Only images for these platforms, e.g. linux/amd64; may be repeated. Default: all
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// How often originals are looked at again, such as 15m; default: 1h
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    refresh_interval: Option<String>,

    /// Remove copies that nobody has used for so long, such as 720h; default: never
    #[arg(long, value_name = "DURATION", value_parser = retention)]
    remove_unused_after: Option<String>,

    /// Wait until every registry has every image
    #[arg(long)]
    wait: bool,

    /// How long to wait, such as 90s, 10m or 1h30m; 0 is without end
    #[arg(long, requires = "wait", value_name = "DURATION", default_value = "10m", value_parser = human::parse_duration)]
    timeout: Duration,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<ObjectFormat>,

    /// client: send nothing; server: let the API server check it, and keep nothing
    #[arg(long, value_enum, value_name = "MODE", default_value = "none")]
    dry_run: DryRun,
}

/// Which of the images that the cluster uses are meant.
#[derive(Args, Debug)]
#[command(next_help_heading = "Images that the cluster uses")]
struct DiscoverArgs {
    /// Copy all that pods, workloads and Prefetches of the cluster use
    #[arg(long)]
    discover: bool,

    /// Only in namespaces with these labels
    #[arg(long, requires = "discover", value_name = "SELECTOR", value_parser = selector::parse)]
    namespace_selector: Option<LabelSelector>,

    /// Only what pods with these labels use
    #[arg(long, requires = "discover", value_name = "SELECTOR", value_parser = selector::parse)]
    pod_selector: Option<LabelSelector>,

    /// Leave out images with such names, e.g. *.internal/**; may be repeated
    #[arg(long, requires = "discover", value_name = "PATTERN")]
    exclude: Vec<String>,
}

/// How the registries for the copies are reached, each of them in the same way.
#[derive(Args, Debug)]
#[command(next_help_heading = "Registry of the copies")]
struct DestinationArgs {
    /// Host and port by which nodes reach the registry, e.g. localhost:7439; default: as in --to
    #[arg(long, value_name = "HOST:PORT")]
    node_address: Option<String>,

    /// Secret in Coral's namespace with credentials to push
    #[arg(long, value_name = "NAME", value_parser = naming::parse_name)]
    push_secret: Option<String>,

    /// Secret in Coral's namespace whose ca.crt signs the registry's certificate
    #[arg(long, value_name = "NAME", value_parser = naming::parse_name)]
    ca_secret: Option<String>,

    /// Secret in the namespace of each pod that the pod needs to pull a copy
    #[arg(long = "pod-pull-secret", value_name = "NAME", value_parser = naming::parse_name)]
    pod_pull_secret: Option<String>,

    /// Speak HTTP without TLS: credentials and images are then open to whoever listens
    #[arg(long)]
    plain_http: bool,

    /// How copies are named
    #[arg(long, value_enum, value_name = "HOW")]
    naming: Option<NamingChoice>,
}

/// When new pods use the copies.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RewriteChoice {
    /// Never: the copies are a reserve
    Never,
    /// While the original was not to be had when it was last looked at
    OnFailure,
    /// Whenever there is a copy
    Always,
}

impl From<RewriteChoice> for Rewrite {
    fn from(choice: RewriteChoice) -> Self {
        match choice {
            RewriteChoice::Never => Self::Never,
            RewriteChoice::OnFailure => Self::OnFailure,
            RewriteChoice::Always => Self::Always,
        }
    }
}

impl AddArgs {
    /// Makes the Mirror, and waits for it.
    pub(super) async fn run(self, cluster: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let (wait, timeout, output, dry_run) = (self.wait, self.timeout, self.output, self.dry_run);
        let request = self.request(printer)?;
        if dry_run == DryRun::Client {
            output::print(
                printer,
                output,
                &request.full_name(),
                "created (dry run)",
                &request.object(),
            )?;
            return Ok(exit::SUCCESS);
        }
        let cluster = Cluster::connect(cluster).await?;
        let is_dry = dry_run == DryRun::Server;
        let applied = request.apply(&cluster, is_dry).await?;
        for warning in request.differences(&applied.mirror) {
            printer.warning(warning);
        }
        let verb = format!("{}{}", applied.change.as_str(), dry_run.suffix());
        let object = output::object(&applied.object, &request.resource())?;
        output::print(printer, output, &request.full_name(), &verb, &object)?;
        if wait && !is_dry {
            let timeout = (!timeout.is_zero()).then_some(timeout);
            wait::until_ready(&cluster, &applied.mirror, timeout, printer).await?;
        }
        Ok(exit::SUCCESS)
    }

    fn request(self, printer: &Printer) -> Result<Request, Error> {
        let Self {
            images,
            to,
            name,
            rewrite,
            discover,
            destination,
            source_secret,
            source_ca,
            source_plain_http,
            platforms,
            refresh_interval,
            remove_unused_after,
            ..
        } = self;
        let Images { references, duplicates } = images::parse(&images)?;
        for (left_out, stays) in duplicates {
            printer.warning(format_args!("{left_out} is the same image as {stays}, and counts once"));
        }
        let mut request = Request::new(name, &references, &to);
        let mut set = |field: &str, value: serde_json::Value| request.set(field, value);
        if !references.is_empty() {
            let images: Vec<String> = references.iter().map(ImageReference::familiar).collect();
            set("images", images.into());
        }
        if let Some(discover) = discover.field() {
            set("discover", discover);
        }
        set(
            "destinations",
            to.iter().map(|place| destination.field(place)).collect(),
        );
        if let Some(rewrite) = rewrite {
            set("rewrite", serde_json::json!(Rewrite::from(rewrite)));
        }
        if !source_secret.is_empty() {
            set("sourceSecrets", source_secret.iter().map(SecretName::field).collect());
        }
        if !source_ca.is_empty() || !source_plain_http.is_empty() {
            set("sources", sources(&source_ca, &source_plain_http)?);
        }
        if !platforms.is_empty() {
            set("platforms", platforms.iter().map(ToString::to_string).collect());
        }
        if let Some(interval) = refresh_interval {
            set("refreshInterval", interval.into());
        }
        if let Some(unused) = remove_unused_after {
            set("retention", serde_json::json!({"unusedFor": unused}));
        }
        Ok(request)
    }
}

impl DiscoverArgs {
    fn field(self) -> Option<serde_json::Value> {
        let Self {
            discover,
            namespace_selector,
            pod_selector,
            exclude,
        } = self;
        let mut field = serde_json::json!({});
        if let Some(selector) = namespace_selector {
            field["namespaceSelector"] = serde_json::json!(selector);
        }
        if let Some(selector) = pod_selector {
            field["podSelector"] = serde_json::json!(selector);
        }
        if !exclude.is_empty() {
            field["exclude"] = exclude.into();
        }
        discover.then_some(field)
    }
}

impl DestinationArgs {
    /// Only what was said: what was not said is not touched.
    fn field(&self, place: &Place) -> serde_json::Value {
        let Self {
            node_address,
            push_secret,
            ca_secret,
            pod_pull_secret,
            plain_http,
            naming,
        } = self;
        let mut field = place.field();
        let texts = [
            ("nodeAddress", node_address),
            ("secretName", push_secret),
            ("caSecretName", ca_secret),
            ("pullSecretName", pod_pull_secret),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                field[name] = text.as_str().into();
            }
        }
        if *plain_http {
            field["plainHttp"] = true.into();
        }
        if *naming == Some(NamingChoice::Flat) {
            field["naming"] = "Flat".into();
        }
        field
    }
}

/// A duration of at least ten seconds, or none, as it was written.
fn interval(text: &str) -> Result<String, String> {
    match human::parse_duration(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Ok("0s".to_owned()),
        duration if duration < Duration::from_secs(10) => Err("an interval is 10s or longer, or 0".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// A duration of at least a minute, as it was written.
fn retention(text: &str) -> Result<String, String> {
    let duration = human::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_mins(1) {
        return Err("it is 1m or longer".to_owned());
    }
    Ok(text.to_owned())
}
