//! The client of the Kubernetes API.
//!
//! A server needs little of what kube's own set-up of a client can do: a service account, or for development a kubeconfig with a token
//! or a certificate. The rest, exec plugins and YAML above all, would be a fifth of the agent's binary; so the client is put together
//! here, from kube's parts.

mod identity;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::http::{Request, header::AUTHORIZATION};
use clap::Args;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _, retry::RetryPolicy},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use self::identity::Token;

/// How long an answer may be silent. A watch ends by itself sooner; a list on a connection that has gone dead must not hang for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(305);

/// The first pause, and the longest, before a request is sent again that the API server had no room for (429, 503, 504), and how often that is
/// done. A random part of up to twice itself is added. kube's own pauses double up to 1,000 s, during which a watch hears nothing of an API
/// server that is well again; and what goes on for longer than these is for whoever sent the request, whose pauses are random, too.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const ATTEMPTS_AGAIN: u32 = 4;

/// How a server reaches the Kubernetes API.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClientArgs {
    /// Kubeconfig file in JSON form, with a token or a client certificate (`kubectl config view --raw --flatten --minify -o json`);
    /// without it the service account of the pod is used.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// A client with the credentials that `args` name.
pub async fn client(args: &ClientArgs) -> anyhow::Result<Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        None => {
            Config::incluster().context("failed to find the service account; outside a cluster, give --kubeconfig")?
        }
    };
    config.read_timeout = Some(READ_TIMEOUT);
    connect(&config).context("failed to set up the Kubernetes client")
}

async fn from_kubeconfig(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read(path).with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
    let kubeconfig: Kubeconfig = serde_json::from_slice(&text).with_context(|| {
        format!(
            "failed to read the kubeconfig {} as JSON; `kubectl config view --raw --flatten --minify -o json` writes it so",
            path.display()
        )
    })?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("failed to use the kubeconfig {}", path.display()))
}

/// What is sent again. Where the API server says when to come back (`Retry-After`), that counts.
fn retries() -> anyhow::Result<RetryPolicy> {
    Ok(RetryPolicy::new(FIRST_PAUSE, LONGEST_PAUSE, ATTEMPTS_AGAIN, true)?)
}

/// A client that connects when it is first used.
fn connect(config: &Config) -> anyhow::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(identity::tls(config)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let connections: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);

    let token = Token::new(&config.auth_info)?.map(Arc::new);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(retries()?))
        .map_request(move |mut request: Request<Body>| {
            if let Some(token) = &token {
                request.headers_mut().insert(AUTHORIZATION, token.header());
            }
            request
        })
        .map_err(BoxError::from)
        .service(connections);
    Ok(Client::new(service, config.default_namespace.clone()))
}

#[cfg(test)]
mod tests;
