//! How registries are reached from here, and as whom.

use std::{collections::BTreeSet, convert::Infallible, fs, path::PathBuf, time::Duration};

use clap::Args;
use coral_registry::{Client, Options, Patience, Proxies, check_authorities};

use crate::mirror::{self, logins::Logins, request::parse_registry};

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

    /// File with certificates of authorities to trust beside the system's, in PEM form, for one registry or for all; may be repeated
    #[arg(long, value_name = "[REGISTRY=]FILE", value_parser = |text: &str| Ok::<_, Infallible>(AuthorityFile::read(text)))]
    ca_file: Vec<AuthorityFile>,

    /// File with credentials, as `docker login` writes it
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
}

/// Certificates of authorities, for one registry or for all.
#[derive(Clone, Debug, Eq, PartialEq)]
struct AuthorityFile {
    registry: Option<String>,
    path: PathBuf,
}

impl AuthorityFile {
    /// Reads `ca.crt` or `registry.example:5000=ca.crt`. What stands before an equals sign and is no registry belongs to the path.
    fn read(text: &str) -> Self {
        let split = text.split_once('=');
        let named = split.and_then(|(registry, path)| Some((parse_registry(registry).ok()?, path)));
        match named {
            Some((registry, path)) => Self {
                registry: Some(registry),
                path: path.into(),
            },
            None => Self {
                registry: None,
                path: text.into(),
            },
        }
    }
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
            timeout: TIMEOUT,
            patience: PATIENCE,
            proxies: Proxies::from_environment()?,
            ..Options::default()
        };
        for AuthorityFile { registry, path } in ca_file {
            let certificates = fs::read(&path).map_err(|error| mirror::Error::File {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            check_authorities(&certificates).map_err(|error| mirror::Error::Authorities { path, error })?;
            let all = match registry {
                Some(registry) => options.authorities_of.entry(registry).or_default(),
                None => &mut options.authorities,
            };
            all.extend(certificates);
            // The next file begins a line, whatever this one ends with.
            all.push(b'\n');
        }
        let client = Client::new(options).map_err(mirror::Error::Client)?;
        let logins = Logins::read(auth_file.as_deref(), registries)?;
        Ok(Reached { client, logins })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_for_one_registry_or_for_all() {
        for (text, registry, path) in [
            ("ca.crt", None, "ca.crt"),
            ("r.lan:5000=/etc/ca.crt", Some("r.lan:5000"), "/etc/ca.crt"),
            ("localhost=a=b", Some("localhost"), "a=b"),
            ("/etc/a=b.crt", None, "/etc/a=b.crt"),
            ("a=b.crt", None, "a=b.crt"),
        ] {
            let file = AuthorityFile::read(text);
            assert_eq!((file.registry.as_deref(), file.path), (registry, path.into()), "{text}");
        }
    }
}
