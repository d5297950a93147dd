//! Who a server is to the Kubernetes API, and how it knows the API.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{Config, config::AuthInfo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use secrecy::ExposeSecret as _;

/// How long a token of a file is used before the file is read again. The kubelet writes a new one when a fifth of the old one's life is
/// left, which is some minutes at least.
const TOKEN_AGE: Duration = Duration::from_mins(1);

/// The token of a service account.
pub(super) struct Token {
    file: Option<PathBuf>,
    age: Duration,
    current: Mutex<(HeaderValue, Instant)>,
}

impl Token {
    /// The token that a configuration has, if any.
    pub(super) fn new(auth: &AuthInfo) -> anyhow::Result<Option<Self>> {
        Self::with_age(auth, TOKEN_AGE)
    }

    pub(super) fn with_age(auth: &AuthInfo, age: Duration) -> anyhow::Result<Option<Self>> {
        let file = auth.token_file.as_ref().map(PathBuf::from);
        let header = match (&file, &auth.token) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("failed to read the token {}", file.display()))?;
                header(&text)?
            }
            (None, Some(token)) => header(token.expose_secret())?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            file,
            age,
            current: Mutex::new((header, Instant::now())),
        }))
    }

    /// The value of `Authorization`. Where the file cannot be read, the last token stays.
    pub(super) fn header(&self) -> HeaderValue {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file
            && current.1.elapsed() >= self.age
        {
            match std::fs::read_to_string(file)
                .map_err(Into::into)
                .and_then(|text| header(&text))
            {
                Ok(header) => current.0 = header,
                Err(error) => tracing::warn!(error = %error, "The token of the service account cannot be read"),
            }
            current.1 = Instant::now();
        }
        current.0.clone()
    }
}

fn header(token: &str) -> anyhow::Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", token.trim())).context("the token has odd characters")?;
    value.set_sensitive(true);
    Ok(value)
}

/// How the API server is known, and the certificate that is shown to it.
pub(super) fn tls(config: &Config) -> anyhow::Result<ClientConfig> {
    refuse_unknown(config)?;
    let mut roots = RootCertStore::empty();
    for certificate in config.root_cert.iter().flatten() {
        roots
            .add(CertificateDer::from(certificate.clone()))
            .context("failed to use the certificate authority of the cluster")?;
    }
    ensure!(
        !roots.is_empty() || config.cluster_url.scheme_str() == Some("http"),
        "the kubeconfig has no certificate authority"
    );
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let auth = &config.auth_info;
    let certificate = loaded(
        auth.client_certificate_data.as_deref(),
        auth.client_certificate.as_ref(),
    )?;
    let key = auth.client_key_data.as_ref().map(secrecy::ExposeSecret::expose_secret);
    match (certificate, loaded(key, auth.client_key.as_ref())?) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate)
                .collect::<Result<_, _>>()
                .context("failed to read the client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&key).context("failed to read the client key")?;
            builder
                .with_client_auth_cert(chain, key)
                .context("failed to use the client certificate")
        }
        _ => bail!("a client certificate and its key go together"),
    }
}

/// Says no to what would otherwise be passed over in silence.
fn refuse_unknown(config: &Config) -> anyhow::Result<()> {
    let auth = &config.auth_info;
    for (is_there, what) in [
        (auth.exec.is_some(), "exec"),
        (auth.auth_provider.is_some(), "auth-provider"),
        (
            auth.username.is_some() || auth.password.is_some(),
            "username and password",
        ),
        (
            auth.impersonate.is_some()
                || auth.impersonate_uid.is_some()
                || auth.impersonate_groups.is_some()
                || auth.impersonate_user_extra.is_some(),
            "impersonation",
        ),
        (config.accept_invalid_certs, "insecure-skip-tls-verify"),
        (config.tls_server_name.is_some(), "tls-server-name"),
        (config.proxy_url.is_some(), "proxy-url"),
    ] {
        ensure!(
            !is_there,
            "the kubeconfig has {what}; Coral's servers take a token or a client certificate, directly"
        );
    }
    Ok(())
}

/// What a kubeconfig has in base64, or in a file.
fn loaded(data: Option<&str>, file: Option<&String>) -> anyhow::Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => Ok(Some(
            STANDARD
                .decode(data)
                .context("the kubeconfig has data that are not base64")?,
        )),
        (None, Some(file)) => Ok(Some(
            std::fs::read(file).with_context(|| format!("failed to read {file}"))?,
        )),
        (None, None) => Ok(None),
    }
}
