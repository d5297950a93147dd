//! Kubeconfig files. They are written as JSON, which every reader of YAML reads.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::certificates::Certificate;

/// How a user proves who it is.
pub enum Credential<'a> {
    /// With a client certificate.
    Certificate(&'a Certificate),
    /// With a token.
    Token(&'a str),
}

/// Writes a kubeconfig that holds all it needs, readable by its owner only.
pub fn write(path: &Path, server: &str, authority: &str, credential: &Credential<'_>) -> Result<()> {
    let text =
        serde_json::to_string_pretty(&render(server, authority, credential)).context("serialise a kubeconfig")?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(|| format!("protect {}", path.display()))
}

fn render(server: &str, authority: &str, credential: &Credential<'_>) -> Value {
    let user = match credential {
        Credential::Certificate(signed) => json!({
            "client-certificate-data": STANDARD.encode(&signed.certificate),
            "client-key-data": STANDARD.encode(&signed.key),
        }),
        Credential::Token(token) => json!({"token": token}),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "coral",
            "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(authority)},
        }],
        "users": [{"name": "coral", "user": user}],
        "contexts": [{"name": "coral", "context": {"cluster": "coral", "user": "coral"}}],
        "current-context": "coral",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_is_one_that_clients_read() {
        let value = render("https://198.18.0.1:6443", "CA", &Credential::Token("secret"));
        let parsed = kube::config::Kubeconfig::from_yaml(&value.to_string()).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("coral"));
        assert_eq!(
            parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(),
            Some("https://198.18.0.1:6443")
        );
    }
}
