//! Credentials, from where `docker login` and its like put them: the file, and the programs that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use coral_mirror::Credentials;
use coral_registry::{Credential, Keyring};
use serde::Deserialize;

use super::Error;

/// Docker Hub, as references name it, and as programs for credentials know it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");
/// What programs for credentials give as user name where the secret is a token that stands for both.
const TOKEN_USER: &str = "<token>";

/// What the configuration says of registries.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    keyring: Keyring,
    /// By registry, what a program gave.
    given: BTreeMap<String, Credential>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Programs {
    /// By registry.
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    /// For all others.
    creds_store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    username: String,
    secret: String,
}

impl Logins {
    /// Reads the configuration, and asks the programs that it names for the credentials of these registries.
    pub(crate) fn read(file: Option<&Path>, registries: &BTreeSet<&str>) -> Result<Self, Error> {
        let Some((path, text)) = configuration(file)? else {
            return Ok(Self::default());
        };
        let refused = |reason: String| Error::File {
            path: path.clone(),
            reason,
        };
        let keyring = Keyring::from_config_json(&text).map_err(|error| refused(error.to_string()))?;
        let programs: Programs = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        let mut given = BTreeMap::new();
        for registry in registries {
            if let Some(credential) = programs
                .of(registry)
                .map(|name| ask(name, registry))
                .transpose()?
                .flatten()
            {
                given.insert((*registry).to_owned(), credential);
            }
        }
        Ok(Self { keyring, given })
    }
}

impl Credentials for Logins {
    fn lookup(&self, repository: &str) -> Vec<Credential> {
        let registry = repository.split('/').next().unwrap_or_default();
        let written = self.keyring.lookup(repository).into_iter();
        self.given
            .get(registry)
            .into_iter()
            .chain(written.filter(|credential| !credential.is_empty()))
            .cloned()
            .collect()
    }
}

impl Programs {
    /// The program that knows a registry.
    fn of(&self, registry: &str) -> Option<&str> {
        let name = self
            .cred_helpers
            .get(registry)
            .or_else(|| self.cred_helpers.get(server(registry)));
        name.or(self.creds_store.as_ref())
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }
}

fn server(registry: &str) -> &str {
    if registry == DOCKER_HUB.0 {
        DOCKER_HUB.1
    } else {
        registry
    }
}

/// The file that was named, or the first that is there: Docker's, then Podman's.
fn configuration(file: Option<&Path>) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
    if let Some(path) = file {
        let text = fs::read(path).map_err(|error| Error::File {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        return Ok(Some((path.to_owned(), text)));
    }
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(folder("HOME")?.join(".docker")));
    let candidates = [
        docker.map(|folder| folder.join("config.json")),
        folder("REGISTRY_AUTH_FILE"),
        folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
    ];
    for path in candidates.into_iter().flatten() {
        match fs::read(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::File {
                    path,
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(None)
}

/// Asks a program for the credentials of a registry. That it has none is no error.
fn ask(name: &str, registry: &str) -> Result<Option<Credential>, Error> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: String| Error::Helper {
        program: program.clone(),
        reason,
    };
    if name.contains(['/', '\\']) {
        return Err(failed("its name has a slash".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read says why on its output.
        let _ = stdin.write_all(server(registry).as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let is_unknown = said.contains("credentials not found");
        return if is_unknown { Ok(None) } else { Err(failed(said)) };
    }
    let Given { username, secret } =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("it gave something else".to_owned()))?;
    let (password, token) = if username == TOKEN_USER {
        (String::new(), secret)
    } else {
        (secret, String::new())
    };
    Ok(Some(Credential {
        username: username.into(),
        password: password.into(),
        identity_token: token.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_chosen_by_registry() {
        let programs: Programs = serde_json::from_value(serde_json::json!({
            "auths": {},
            "credHelpers": {"ghcr.io": "one", "https://index.docker.io/v1/": "hub"},
            "credsStore": "rest",
        }))
        .unwrap();
        for (registry, expected) in [("ghcr.io", "one"), ("docker.io", "hub"), ("r.lan:5000", "rest")] {
            assert_eq!(programs.of(registry), Some(expected));
        }
        assert_eq!(Programs::default().of("ghcr.io"), None);
    }

    #[test]
    fn programs_are_not_paths() {
        assert!(ask("../x", "ghcr.io").is_err());
    }
}
