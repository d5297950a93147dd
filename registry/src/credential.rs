//! Credentials for registries, from Docker's configuration files, as the kubelet reads and matches them.
//!
//! The rules are those of the kubelet's `credentialprovider` package, so that what Coral may pull a pod may pull:
//!
//! - a key of the configuration is a host with an optional port and path; scheme and a `/v1/` or `/v2/` path do not count;
//! - each part of the host may be a glob, and a glob does not reach over a dot; ports must be equal; the path must be a prefix;
//! - keys of one Secret are tried in reverse alphabetical order, so that a longer path comes before its prefix;
//! - `index.docker.io` stands for Docker Hub.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Docker Hub's key in configurations.
const DOCKER_HUB_KEY: &str = "index.docker.io";
/// Docker Hub's host in normalised references.
const DOCKER_HUB_HOST: &str = "docker.io";

/// One set of credentials. Its memory is wiped when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    /// Name of the user.
    pub username: Zeroizing<String>,
    /// Password, or a token that is used as one.
    pub password: Zeroizing<String>,
    /// A token that stands for both, where a login gave one.
    pub identity_token: Zeroizing<String>,
}

impl Credential {
    /// Whether it says nothing. A configuration may name a registry without more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.password.is_empty() && self.identity_token.is_empty()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").finish_non_exhaustive()
    }
}

/// Why the data of a Secret are no credentials. The text never has a part of the data.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or not of the form that Docker writes.
    #[error("its data are not a Docker configuration")]
    Json,
    /// An `auth` that is not `user:password` in base64.
    #[error("an \"auth\" in its data is not user:password in base64")]
    Auth,
}

/// The credentials of one Secret.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// By key without scheme.
    entries: BTreeMap<String, Credential>,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: Zeroizing<String>,
    #[serde(default)]
    password: Zeroizing<String>,
    #[serde(default)]
    auth: Zeroizing<String>,
    #[serde(default, alias = "identityToken")]
    identitytoken: Zeroizing<String>,
}

impl Keyring {
    /// Reads `.dockerconfigjson`, the data of a Secret of type `kubernetes.io/dockerconfigjson`.
    pub fn from_config_json(data: &[u8]) -> Result<Self, Malformed> {
        let config: ConfigJson = serde_json::from_slice(data).map_err(|_| Malformed::Json)?;
        Self::new(config.auths)
    }

    /// Reads `.dockercfg`, the data of a Secret of type `kubernetes.io/dockercfg`.
    pub fn from_legacy_config(data: &[u8]) -> Result<Self, Malformed> {
        Self::new(serde_json::from_slice(data).map_err(|_| Malformed::Json)?)
    }

    fn new(entries: BTreeMap<String, Entry>) -> Result<Self, Malformed> {
        let mut keyring = Self::default();
        for (location, entry) in entries {
            keyring.entries.insert(key(&location), credential(entry)?);
        }
        Ok(keyring)
    }

    /// The credentials for a repository, e.g. `docker.io/library/nginx`, in the order in which to try them.
    #[must_use]
    pub fn lookup(&self, repository: &str) -> Vec<&Credential> {
        let matching: Vec<&Credential> = self
            .entries
            .iter()
            .rev()
            .filter(|(key, _)| matches(key, repository))
            .map(|(_, credential)| credential)
            .collect();
        let is_docker_hub = repository.split('/').next() == Some(DOCKER_HUB_HOST);
        if matching.is_empty() && is_docker_hub {
            return self.entries.get(DOCKER_HUB_KEY).into_iter().collect();
        }
        matching
    }
}

/// A location as the configuration has it, without scheme, and without the path that Docker's API versions add.
fn key(location: &str) -> String {
    let location = location
        .strip_prefix("https://")
        .or_else(|| location.strip_prefix("http://"))
        .unwrap_or(location);
    let (host, path) = split_path(location);
    let path = match path {
        "/v1" | "/v2" => path,
        _ if path.starts_with("/v1/") || path.starts_with("/v2/") => &path["/v1".len()..],
        _ => path,
    };
    if path == "/" {
        host.to_owned()
    } else {
        format!("{host}{path}")
    }
}

fn credential(entry: Entry) -> Result<Credential, Malformed> {
    let Entry {
        username,
        password,
        auth,
        identitytoken,
    } = entry;
    if auth.is_empty() {
        return Ok(Credential {
            username,
            password,
            identity_token: identitytoken,
        });
    }
    let decoded = STANDARD_NO_PAD
        .decode(auth.trim_end_matches('='))
        .map_err(|_| Malformed::Auth)?;
    let decoded = Zeroizing::new(decoded);
    let text = std::str::from_utf8(&decoded).map_err(|_| Malformed::Auth)?;
    let (username, password) = text.split_once(':').ok_or(Malformed::Auth)?;
    Ok(Credential {
        username: Zeroizing::new(username.to_owned()),
        password: Zeroizing::new(password.to_owned()),
        identity_token: identitytoken,
    })
}

/// Whether a key of a configuration is about the repository.
fn matches(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = split_path(key);
    let (host, path) = split_path(repository);
    let (key_name, key_port) = split_port(key_host);
    let (name, port) = split_port(host);
    if key_port != port || !path.starts_with(key_path) {
        return false;
    }
    let (key_parts, parts): (Vec<&str>, Vec<&str>) = (key_name.split('.').collect(), name.split('.').collect());
    key_parts.len() == parts.len()
        && key_parts
            .iter()
            .zip(parts)
            .all(|(glob, part)| matches_glob(glob.as_bytes(), part.as_bytes()))
}

/// Host and path; the path begins with its slash, or is empty.
fn split_path(location: &str) -> (&str, &str) {
    location.split_at(location.find('/').unwrap_or(location.len()))
}

/// Host name and port; an IPv6 address keeps its brackets.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// `*` and `?` as in a shell. Character classes, which Go's matcher has too, do not occur in host names.
///
/// Only the last `*` is ever tried again, so that the time is bounded by the product of the lengths: whoever writes a Secret writes the glob.
fn matches_glob(glob: &[u8], text: &[u8]) -> bool {
    let (mut in_glob, mut in_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match glob.get(in_glob) {
            Some(b'*') => {
                star = Some((in_glob + 1, in_text));
                in_glob += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[in_text] => {
                in_glob += 1;
                in_text += 1;
            }
            _ => {
                let Some((after, taken)) = star else {
                    return false;
                };
                star = Some((after, taken + 1));
                in_glob = after;
                in_text = taken + 1;
            }
        }
    }
    glob[in_glob..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyring(locations: &[&str]) -> Keyring {
        let auths: serde_json::Map<_, _> = locations
            .iter()
            .map(|location| ((*location).to_owned(), json!({"username": location, "password": "p"})))
            .collect();
        Keyring::from_config_json(json!({ "auths": auths }).to_string().as_bytes()).unwrap()
    }

    fn users(locations: &[&str], repository: &str) -> Vec<String> {
        keyring(locations)
            .lookup(repository)
            .into_iter()
            .map(|credential| credential.username.to_string())
            .collect()
    }

    #[test]
    fn keys_match_as_the_kubelet_s_do() {
        // Key, repository, whether they match.
        let cases = [
            ("ghcr.io", "ghcr.io/acme/app", true),
            ("https://ghcr.io", "ghcr.io/acme/app", true),
            ("http://ghcr.io/v2/", "ghcr.io/acme/app", true),
            ("ghcr.io/", "ghcr.io/acme/app", true),
            ("ghcr.io/acme", "ghcr.io/acme/app", true),
            ("ghcr.io/other", "ghcr.io/acme/app", false),
            ("ghcr.io", "xghcr.io/acme/app", false),
            (
                "*.dkr.ecr.*.amazonaws.com",
                "123.dkr.ecr.us-east-1.amazonaws.com/app",
                true,
            ),
            ("*.amazonaws.com", "123.dkr.ecr.us-east-1.amazonaws.com/app", false),
            ("*.azurecr.io", "acme.azurecr.io/app", true),
            ("*.azurecr.io", "azurecr.io/app", false),
            ("acme-??.io", "acme-01.io/app", true),
            ("acme-??.io", "acme-1.io/app", false),
            ("registry:5000", "registry:5000/app", true),
            ("registry", "registry:5000/app", false),
            ("registry:5001", "registry:5000/app", false),
            ("[::1]:5000", "[::1]:5000/app", true),
            ("[::1]", "[::1]:5000/app", false),
            ("https://index.docker.io/v1/", "docker.io/library/nginx", true),
            ("index.docker.io", "docker.io/acme/app", true),
            ("docker.io", "docker.io/acme/app", true),
            ("https://index.docker.io/v1/", "ghcr.io/acme/app", false),
        ];
        for (location, repository, expected) in cases {
            assert_eq!(
                !users(&[location], repository).is_empty(),
                expected,
                "{location} for {repository}"
            );
        }
    }

    #[test]
    fn longer_paths_come_first() {
        assert_eq!(
            users(
                &["ghcr.io", "ghcr.io/acme/app", "ghcr.io/acme", "ghcr.io/other"],
                "ghcr.io/acme/app"
            ),
            ["ghcr.io/acme/app", "ghcr.io/acme", "ghcr.io"]
        );
    }

    #[test]
    fn auth_is_user_and_password_with_or_without_padding() {
        for auth in ["dXNlcjpwYTpzcw==", "dXNlcjpwYTpzcw"] {
            let data = json!({"auths": {"ghcr.io": {"auth": auth}}}).to_string();
            let keyring = Keyring::from_config_json(data.as_bytes()).unwrap();
            let credential = keyring.lookup("ghcr.io/a")[0];
            assert_eq!(
                (credential.username.as_str(), credential.password.as_str()),
                ("user", "pa:ss")
            );
        }
    }

    #[test]
    fn the_old_form_has_no_wrapper() {
        let data = json!({"ghcr.io": {"username": "u", "password": "p"}}).to_string();
        let keyring = Keyring::from_legacy_config(data.as_bytes()).unwrap();
        assert_eq!(keyring.lookup("ghcr.io/a").len(), 1);
    }

    #[test]
    fn malformed_data_are_refused_without_being_shown() {
        for (data, expected) in [
            ("hidden", Malformed::Json),
            (r#"{"auths": {"x": {"auth": "hidden!"}}}"#, Malformed::Auth),
            (r#"{"auths": {"x": {"auth": "aGlkZGVu"}}}"#, Malformed::Auth),
            (r#"{"auths": {"x": {"username": 5}}}"#, Malformed::Json),
        ] {
            let error = Keyring::from_config_json(data.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{data}");
            assert!(!error.to_string().contains("hidden"));
        }
    }

    #[test]
    fn debug_holds_no_credential() {
        let shown = format!("{:?}", keyring(&["ghcr.io"]));
        assert!(!shown.contains("\"p\"") && !shown.contains("username"), "{shown}");
    }
}
