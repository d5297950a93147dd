//! How registries are reached from here, and as whom.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use clap::Args;
use coral_registry::{Client, Options, Patience, Proxies};

use crate::mirror::{self, logins::Logins};

/// Longest silence of a registry. Some take their time to put a large blob where it stays.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How a registry is asked again that fails for the moment.
const PATIENCE: Patience = Patience {
    attempts: 6,
    first_pause: Duration::from_millis(500),
    longest_pause: Duration::from_mins(1),
};

/// How registries are reached.
#[derive(Args, Debug)]
#[command(next_help_heading = "Registry options")]
pub(super) struct RegistryArgs {
    /// Requests at the same time at each registry
    #[arg(long, value_name = "NUMBER", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) parallel: u8,

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

/// Registries that can be asked.
pub(super) struct Reached {
    pub(super) client: Client,
    pub(super) logins: Logins,
}

impl RegistryArgs {
    /// A client, and the credentials for these registries. `plain` comes on top of what the command line says.
    pub(super) fn reach(self, registries: &BTreeSet<&str>, plain: BTreeSet<String>) -> Result<Reached, mirror::Error> {
        let Self {
            parallel: _,
            plain_http,
            ca_file,
            auth_file,
        } = self;
        let mut options = Options {
            plain_http: plain_http.into_iter().chain(plain).collect(),
            authorities: Vec::new(),
            timeout: TIMEOUT,
            patience: PATIENCE,
            proxies: Proxies::from_environment()?,
        };
        if let Some(path) = &ca_file {
            let certificates = fs::read(path).map_err(|error| mirror::Error::File {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            options.authorities.extend(certificates);
        }
        let client = Client::new(options).map_err(|error| match ca_file {
            Some(path) => mirror::Error::Authorities { path, error },
            None => mirror::Error::Client(error),
        })?;
        let logins = Logins::read(auth_file.as_deref(), registries)?;
        Ok(Reached { client, logins })
    }
}
