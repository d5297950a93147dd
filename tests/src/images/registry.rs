//! A registry, as `crane` sees it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::cluster::process;

/// A registry to push to, with what it takes to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    host: String,
    crane: PathBuf,
    plain_http: bool,
    authority: Option<PathBuf>,
    docker_config: Option<PathBuf>,
}

impl Registry {
    /// An open registry that speaks plain HTTP.
    #[must_use]
    pub fn plain_http(host: String, crane: PathBuf) -> Self {
        Self {
            host,
            crane,
            plain_http: true,
            authority: None,
            docker_config: None,
        }
    }

    /// A registry with a certificate from `authority` and a password, which is written below `folder`.
    pub fn with_password(
        host: String,
        crane: PathBuf,
        authority: PathBuf,
        (user, password): (&str, &str),
        folder: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let secret = STANDARD.encode(format!("{user}:{password}"));
        let config = json!({"auths": {&host: {"auth": secret}}}).to_string();
        let file = folder.join("config.json");
        fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        Ok(Self {
            host,
            crane,
            plain_http: false,
            authority: Some(authority),
            docker_config: Some(folder.to_owned()),
        })
    }

    /// `host:port`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The whole name of an image in this registry, `host:port/name`. A whole name stays as it is, so that all
    /// functions here take both.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        if name.strip_prefix(&self.host).is_some_and(|rest| rest.starts_with('/')) {
            return name.to_owned();
        }
        format!("{}/{name}", self.host)
    }

    /// Pushes an image from an OCI layout.
    pub fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let reference = self.reference(name);
        self.crane([OsStr::new("push"), layout.as_os_str(), OsStr::new(&reference)])
            .map(drop)
    }

    /// The digest of an image's manifest.
    pub fn digest(&self, name: &str) -> Result<String> {
        Ok(self.crane(["digest", &self.reference(name)])?.trim().to_owned())
    }

    /// Gives an image one more tag in the same repository, or moves that tag to it.
    pub fn tag(&self, name: &str, tag: &str) -> Result<()> {
        self.crane(["tag", &self.reference(name), tag]).map(drop)
    }

    /// Deletes a manifest: the image is then no longer to be had, under any tag.
    pub fn delete(&self, name: &str) -> Result<()> {
        let digest = self.digest(name)?;
        let reference = self.reference(name);
        self.crane(["delete", &format!("{}@{digest}", repository_of(&reference))])
            .map(drop)
    }

    /// The tags of a repository.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let listed = self.crane(["ls", &self.reference(repository)])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Runs `crane` with what this registry wants of a client.
    pub fn crane(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        let mut command = Command::new(&self.crane);
        if self.plain_http {
            command.arg("--insecure");
        }
        if let Some(authority) = &self.authority {
            command.env("SSL_CERT_FILE", authority);
        }
        if let Some(folder) = &self.docker_config {
            command.env("DOCKER_CONFIG", folder);
        }
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(proxy);
        }
        process::run_command(command.args(arguments))
    }
}

/// The reference without its tag. The colon of a port comes before the last slash.
fn repository_of(reference: &str) -> &str {
    let name_starts = reference.rfind('/').map_or(0, |slash| slash + 1);
    reference[name_starts..]
        .find(':')
        .map_or(reference, |colon| &reference[..name_starts + colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_whole_or_within_the_registry() {
        let registry = Registry::plain_http("198.18.0.1:5000".to_owned(), "crane".into());
        assert_eq!(registry.reference("a/b:1"), "198.18.0.1:5000/a/b:1");
        assert_eq!(registry.reference("198.18.0.1:5000/a/b:1"), "198.18.0.1:5000/a/b:1");
    }

    #[test]
    fn port_is_no_tag() {
        assert_eq!(repository_of("198.18.0.1:5000/a/b:1"), "198.18.0.1:5000/a/b");
        assert_eq!(repository_of("198.18.0.1:5000/a/b"), "198.18.0.1:5000/a/b");
    }
}
