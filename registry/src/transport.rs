//! Requests and answers: limits, redirects, errors of the connection.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT},
    uri::Scheme,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;

use crate::{
    address::LocalName,
    connector::Connector,
    error::{Error, RedirectRefusal, Result, causes, said},
    origin::{Origin, Way, is_same_place, join},
    proxy::Proxies,
};

/// How long a connection that nobody uses stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections without use that stay open to one host.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// Most bytes of the head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most bytes that are read of an answer other than success.
const MAX_SAID_BYTES: usize = 16 * 1024;
/// Longest time for that.
const SAID_TIMEOUT: Duration = Duration::from_secs(1);
/// Most redirects of one request. Registries need one, to where they keep blobs.
const MAX_REDIRECTS: usize = 5;
/// What registries see in their logs.
const AGENT: &str = concat!("coral/", env!("CARGO_PKG_VERSION"));

/// What is sent: a text, or a stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

type Connections = Client<HttpsConnector<Connector>, Body>;

/// Connections to registries and to where they point.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    open: Connections,
    guarded: Connections,
    proxies: Arc<Proxies>,
}

/// A request that can be sent again.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Sent to the registry itself only, or to the server of its tokens.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Call {
    /// A question without a body.
    pub(crate) fn get(uri: Uri) -> Self {
        Self::new(Method::GET, uri)
    }

    /// A request without a body.
    pub(crate) fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            headers: HeaderMap::new(),
            authorization: None,
            body: Bytes::new(),
        }
    }
}

/// An answer, of which the head is there.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) host: String,
    response: Response<Incoming>,
}

impl Transport {
    pub(crate) fn new(tls: &ClientConfig, proxies: Proxies) -> Self {
        let proxies = Arc::new(proxies);
        let connections = |only_beyond| connections(tls.clone(), Connector::new(only_beyond, Arc::clone(&proxies)));
        Self {
            open: connections(false),
            guarded: connections(true),
            proxies,
        }
    }

    /// Sends a request to the registry at `origin`, or to where it pointed, and follows the redirects of a question.
    ///
    /// The authorization goes to where the request goes first; behind a redirect, only back to the same place.
    pub(crate) async fn send(&self, origin: &Origin, call: &Call) -> Result<Answer> {
        let mut target = call.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let body = Full::new(call.body.clone())
                .map_err(|never| match never {})
                .boxed_unsync();
            let answer = self.send_once(origin, call, &target, body).await?;
            let is_question = matches!(call.method, Method::GET | Method::HEAD);
            if !(is_question && is_redirect(answer.status())) {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            target = location
                .ok_or(RedirectRefusal::Malformed)
                .and_then(|location| join(&target, location))
                .map_err(|why| refusal(&answer.host, why))?;
        }
        Err(refusal(&origin.authority, RedirectRefusal::TooMany))
    }

    /// Sends a request with a body that is there once. Its own body does not count, and redirects are not followed.
    pub(crate) async fn send_stream(&self, origin: &Origin, call: &Call, body: Body) -> Result<Answer> {
        self.send_once(origin, call, &call.uri, body).await
    }

    async fn send_once(&self, origin: &Origin, call: &Call, target: &Uri, body: Body) -> Result<Answer> {
        let connections = match origin.way_to(target) {
            Ok(Way::Open) => &self.open,
            Ok(Way::Guarded) => &self.guarded,
            Err(why) => return Err(refusal(&origin.authority, why)),
        };
        let host = target.authority().map_or_else(String::new, ToString::to_string);
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = target.clone();
        *request.headers_mut() = call.headers.clone();
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(authorization) = &call.authorization
            && is_same_place(&call.uri, target)
        {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        // With TLS it is told to the proxy when the connection is made.
        if target.scheme() == Some(&Scheme::HTTP)
            && let Some(authorization) = self.proxies.of(target).and_then(|proxy| proxy.authorization.clone())
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        match connections.request(request).await {
            Ok(response) => Ok(Answer { host, response }),
            Err(error) if is_local_name(&error) => Err(refusal(&origin.authority, RedirectRefusal::Local)),
            Err(error) => Err(Error::Unreachable {
                host,
                source: error.into(),
            }),
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body, to be read piece by piece.
    pub(crate) fn into_body(self) -> Incoming {
        self.response.into_body()
    }

    /// What the registry said in its own words, where it did not succeed. That it says nothing is no error.
    pub(crate) async fn said(self) -> Option<String> {
        let body = tokio::time::timeout(SAID_TIMEOUT, self.bytes(MAX_SAID_BYTES)).await;
        said(&body.ok()?.ok()?)
    }

    /// The whole body, of at most `limit` bytes.
    pub(crate) async fn bytes(self, limit: usize) -> Result<Bytes> {
        let Self { host, response } = self;
        match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge { host, limit }),
            Err(source) => Err(Error::Unreachable { host, source }),
        }
    }
}

fn connections(tls: ClientConfig, connector: Connector) -> Connections {
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .http1_max_buf_size(MAX_HEAD_BYTES)
        .build(https)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn refusal(host: &str, why: RedirectRefusal) -> Error {
    Error::Redirect {
        host: host.to_owned(),
        why,
    }
}

/// Whether a connection failed because its name stands for a place that is not gone to.
fn is_local_name(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(<dyn StdError>::is::<LocalName>)
}
