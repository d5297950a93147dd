//! `kubectl coral version`

use std::env::consts;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{error::Error, exit, output, printer::Printer};

/// Print the version of this command
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Only the version of this command, without asking the cluster; at present there is no other
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
    /// Prints the version.
    pub(crate) fn run(self, printer: &Printer) -> Result<u8, Error> {
        let Self { client: _, output } = self;
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        let platform = format!("{}/{}", consts::OS, architecture());
        let value = json!({"clientVersion": {"gitVersion": version, "platform": platform}});
        let text = match output {
            None => format!("Client Version: {version}"),
            Some(VersionFormat::Json) => output::json(&value)?,
            Some(VersionFormat::Yaml) => output::yaml(&value)?,
        };
        printer.data(text)?;
        Ok(exit::SUCCESS)
    }
}

/// The architecture by the name that Kubernetes uses.
fn architecture() -> &'static str {
    match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
