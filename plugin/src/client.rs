//! The way to the API server: which cluster, as whom, and for how long.
//!
//! ```text
//!   flags, KUBECONFIG ──► kubeconfig ──► Cluster ──request──► API server
//!                                           └── errors sorted by what a person can do ──► RequestError
//! ```

mod error;
mod kubeconfig;

use std::{fmt::Debug, time::Duration};

use kube::{Api, Client, api::ListParams, client::ClientBuilder, core::ObjectList};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

pub(crate) use error::RequestError;
pub(crate) use kubeconfig::{ConnectError, names};

use crate::cli::ClusterArgs;

/// How long a connection may take. A server that is there answers within this; one that is not must not keep people waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Objects that one request lists, so that a large cluster is never in memory, nor in one answer, as a whole.
const PAGE: u32 = 500;
/// Pauses before the attempts after the first, where the server asks for patience.
const RETRY_PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// A cluster that can be talked to.
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    server: String,
    request_timeout: Duration,
}

impl Cluster {
    /// Reads the configuration that the arguments and the environment name. Nothing is sent yet.
    pub(crate) async fn connect(arguments: &ClusterArgs) -> Result<Self, ConnectError> {
        let mut config = kubeconfig::load(arguments).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The default policy goes on for minutes. A person at a terminal wants the answer: see `request`.
        config.default_retry = false;
        // Watches are silent for minutes. Everything else is bounded in `request`.
        config.read_timeout = None;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = arguments
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = ClientBuilder::try_from(config)
            .map_err(|error| ConnectError::from_client(&error, &server))?
            .build();
        Ok(Self {
            client,
            namespace,
            server,
            request_timeout: arguments.request_timeout,
        })
    }

    /// The namespace that commands work in.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client, for streams that outlive a request.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Sorts an error of a stream, as [`Self::request`] does for requests.
    pub(crate) fn sort_error(&self, error: &kube::Error) -> RequestError {
        RequestError::sort(error, &self.server)
    }

    /// Makes a request that may be made again, within the time that requests have, and again where the server asks for patience.
    pub(crate) async fn request<T>(
        &self,
        make: impl AsyncFn(Client) -> Result<T, kube::Error>,
    ) -> Result<T, RequestError> {
        let attempts = async {
            let mut pauses = RETRY_PAUSES.into_iter();
            loop {
                match (make(self.client.clone()).await, pauses.next()) {
                    (Err(error), Some(pause)) if is_busy(&error) => sleep(pause).await,
                    (result, _) => return result.map_err(|error| RequestError::sort(&error, &self.server)),
                }
            }
        };
        match timeout(self.request_timeout, attempts).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::NoAnswer {
                server: self.server.clone(),
                after: self.request_timeout,
            }),
        }
    }

    /// Lists objects page by page.
    pub(crate) async fn list<K>(&self, api: impl Fn(Client) -> Api<K>, each: impl FnMut(K)) -> Result<(), RequestError>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        self.list_selected(api, None, each).await
    }

    /// Lists the objects with these labels page by page.
    pub(crate) async fn list_selected<K>(
        &self,
        api: impl Fn(Client) -> Api<K>,
        selector: Option<&str>,
        mut each: impl FnMut(K),
    ) -> Result<(), RequestError>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let mut token: Option<String> = None;
        loop {
            let page = self
                .request(async |client| list_page(&api(client), selector, token.as_deref()).await)
                .await?;
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            page.items.into_iter().for_each(&mut each);
            if token.is_none() {
                return Ok(());
            }
        }
    }
}

/// One page of a list. Where the list went on changing for so long that the server forgot the first page, it goes on with what is there now.
async fn list_page<K>(api: &Api<K>, selector: Option<&str>, token: Option<&str>) -> Result<ObjectList<K>, kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let page = |token: Option<&str>| ListParams {
        continue_token: token.map(str::to_owned),
        label_selector: selector.map(str::to_owned),
        ..ListParams::default().limit(PAGE)
    };
    match api.list(&page(token)).await {
        Err(kube::Error::Api(status)) if status.code == 410 => {
            let newer = status.metadata.as_ref().and_then(|metadata| metadata.continue_.clone());
            match newer {
                Some(newer) => api.list(&page(Some(&newer))).await,
                None => Err(kube::Error::Api(status)),
            }
        }
        result => result,
    }
}

/// The namespace for an object that is only printed: without a configuration it is `default`.
pub(crate) async fn offline_namespace(arguments: &ClusterArgs) -> Result<String, ConnectError> {
    if let Some(namespace) = &arguments.namespace {
        return Ok(namespace.clone());
    }
    match kubeconfig::load(arguments).await {
        Ok(config) => Ok(config.default_namespace),
        Err(ConnectError::NoKubeconfig { .. }) => Ok("default".to_owned()),
        Err(error) => Err(error),
    }
}

/// Whether the server is there but wants the request later.
fn is_busy(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 429 | 503 | 504))
}
