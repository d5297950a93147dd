//! `kubectl coral version`

use std::env::consts;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    cli::ClusterArgs,
    client::Cluster,
    error::Error,
    exit,
    installation::{self, Installation},
    output,
    printer::Printer,
};

/// The version of this command, as the parts in the cluster have it in a label.
pub(crate) const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Print the versions of this command and of the Coral in the cluster
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Only the version of this command, without asking the cluster
    #[arg(long)]
    client: bool,

    /// Format of the output
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<VersionFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VersionFormat {
    Json,
    Yaml,
}

impl VersionArgs {
    /// Whether the cluster is not to be asked.
    pub(crate) const fn is_offline(&self) -> bool {
        self.client
    }

    /// Prints the version of this command.
    pub(crate) fn run(self, printer: &Printer) -> Result<u8, Error> {
        self.print(None, printer)?;
        Ok(exit::SUCCESS)
    }

    /// Prints both versions. That of this command is printed also where the cluster does not answer.
    pub(crate) async fn run_in(self, arguments: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let found = find(arguments).await;
        self.print(found.as_ref().ok().and_then(Option::as_ref), printer)?;
        match found? {
            None => printer.note("Coral is not installed in this cluster"),
            Some(Installation { versions, .. }) => {
                for version in versions.iter().filter(|version| *version != VERSION) {
                    printer.warning(format_args!(
                        "the cluster has Coral {version}, and this command is {VERSION}: `kubectl coral upgrade`, or the command of that version"
                    ));
                }
            }
        }
        Ok(exit::SUCCESS)
    }

    fn print(&self, installation: Option<&Installation>, printer: &Printer) -> Result<(), Error> {
        let platform = format!("{}/{}", consts::OS, architecture());
        let mut value = json!({"clientVersion": {"gitVersion": VERSION, "platform": platform}});
        let mut text = format!("Client Version: {VERSION}");
        if let Some(Installation {
            namespace,
            versions,
            images,
        }) = installation
        {
            let shown = if versions.is_empty() {
                "unknown".to_owned()
            } else {
                versions.join(", ")
            };
            value["serverVersion"] = json!({"gitVersion": shown, "namespace": namespace, "images": images});
            text = format!("{text}\nServer Version: {shown}");
        }
        printer.data(match self.output {
            None => text,
            Some(VersionFormat::Json) => output::json(&value)?,
            Some(VersionFormat::Yaml) => output::yaml(&value)?,
        })?;
        Ok(())
    }
}

async fn find(arguments: &ClusterArgs) -> Result<Option<Installation>, Error> {
    let cluster = Cluster::connect(arguments).await?;
    Ok(installation::find(&cluster).await?)
}

/// The architecture by the name that Kubernetes uses.
fn architecture() -> &'static str {
    match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
