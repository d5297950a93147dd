//! Two registries, one open and one behind TLS and a password, and what the nodes know about registries.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    layout::Layout,
    probe,
    site::{Part, Site},
};

/// The user of the registry with authentication.
pub(super) const USER: &str = "coral";
/// The user's password. The registry is reached from this machine only, for as long as a test runs.
pub(super) const PASSWORD: &str = "coral-test-password";
/// The password, as bcrypt writes it.
const PASSWORD_HASH: &str = "$2b$05$CoralTestRegistrySalt.r5PhTNGw6ohwO5cAbVkmAcxRpe.npbi";

const TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach the registry with authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// `host:port`.
    pub host: String,
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
    /// The certificate authority that its certificate is from.
    pub authority: PathBuf,
}

struct Registry {
    name: &'static str,
    port: u16,
    authenticated: bool,
}

const OPEN: Registry = Registry {
    name: "registry",
    port: 5000,
    authenticated: false,
};
const AUTHENTICATED: Registry = Registry {
    name: "registry-auth",
    port: 5001,
    authenticated: true,
};

/// Starts both registries and waits until they serve; says whether something had to be started.
pub(super) async fn ensure(site: &Site) -> Result<bool> {
    let started = Instant::now();
    write_host(
        &site.layout,
        &site.addresses.registry(),
        &plain_http(&site.addresses.registry()),
    )?;
    let authority = site.layout.certificates().join("ca.crt");
    let trusted = format!(
        "[host.\"https://{0}\"]\n  ca = {1:?}\n",
        site.addresses.registry_auth(),
        NODE_AUTHORITY
    );
    write_host(&site.layout, &site.addresses.registry_auth(), &trusted)?;
    // Nodes see this folder, but not the folder that the authority's certificate lies in.
    let copy = site.layout.registry_hosts().join("ca.crt");
    fs::copy(&authority, &copy).with_context(|| format!("copy {} to {}", authority.display(), copy.display()))?;

    let mut any = false;
    for registry in [OPEN, AUTHENTICATED] {
        any |= registry.ensure(site).await?;
    }
    if any {
        site.step("registries", started);
    }
    Ok(any)
}

/// What the nodes know about registries, as they see it.
pub(super) const NODE_HOSTS: &str = "/var/lib/coral/certs.d";
/// The authority's certificate, as nodes see it.
const NODE_AUTHORITY: &str = "/var/lib/coral/certs.d/ca.crt";

impl Registry {
    async fn ensure(&self, site: &Site) -> Result<bool> {
        let folder = site.layout.dir.join(self.name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let config = folder.join("config.json");
        let text = serde_json::to_string_pretty(&self.config(site)).context("serialise a registry's configuration")?;
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        if self.authenticated {
            let users = folder.join("htpasswd");
            fs::write(&users, format!("{USER}:{PASSWORD_HASH}\n"))
                .with_context(|| format!("write {}", users.display()))?;
        }
        let mut part = Part::new(self.name, site.tools.node("registry"))
            .args(["serve"])
            .args([config]);
        part.environment = vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned())];
        if !site.ensure(&part)? {
            return Ok(false);
        }
        let address = site.addresses.cluster();
        site.ready(self.name, &[self.name], TIMEOUT, async || {
            probe::accepts(address, self.port).await
        })
        .await?;
        Ok(true)
    }

    fn config(&self, site: &Site) -> Value {
        let folder = site.layout.dir.join(self.name);
        let mut http = json!({"addr": format!("{}:{}", site.addresses.cluster(), self.port)});
        let mut config = json!({
            "version": "0.1",
            "log": {"accesslog": {"disabled": false}, "level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": folder.join("data")},
                "delete": {"enabled": true},
            },
        });
        if self.authenticated {
            let certificates = site.layout.certificates();
            http["tls"] = json!({
                "certificate": certificates.join("registry.crt"),
                "key": certificates.join("registry.key"),
            });
            config["auth"] = json!({"htpasswd": {"realm": "coral", "path": folder.join("htpasswd")}});
        }
        config["http"] = http;
        config
    }
}

/// Tells the nodes that this registry speaks plain HTTP. containerd looks at each pull, so that it holds at once.
pub(super) fn trust_plain_http(layout: &Layout, host: &str) -> Result<()> {
    write_host(layout, host, &plain_http(host))
}

fn plain_http(host: &str) -> String {
    format!("server = \"http://{host}\"\n\n[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

fn write_host(layout: &Layout, host: &str, text: &str) -> Result<()> {
    let folder = layout.registry_hosts().join(host);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join("hosts.toml");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_registry_is_reached_without_tls() {
        assert!(plain_http("198.18.0.1:5000").starts_with("server = \"http://198.18.0.1:5000\""));
    }
}
