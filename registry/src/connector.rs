//! Connections below TLS: straight to the server, or through a proxy.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{address::Resolver, proxy::Proxies};

/// Longest time for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Cause = Box<dyn StdError + Send + Sync>;

/// Makes connections.
///
/// # Caveats
///
/// A proxy resolves the names of servers itself. Which addresses it goes to is for its own rules to say.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    direct: HttpConnector<Resolver>,
    /// A proxy may be on this machine: people have chosen it.
    to_proxy: HttpConnector<Resolver>,
    proxies: Arc<Proxies>,
}

/// A connection.
pub(crate) struct Line {
    io: TokioIo<TcpStream>,
    /// Whether a proxy takes requests from it, and is told in each where it goes.
    is_relayed: bool,
}

impl Connector {
    /// `only_beyond`: whether names that stand for this machine or this link are not gone to.
    pub(crate) fn new(only_beyond: bool, proxies: Arc<Proxies>) -> Self {
        Self {
            direct: tcp(only_beyond),
            to_proxy: tcp(false),
            proxies,
        }
    }
}

fn tcp(only_beyond: bool) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver { only_beyond });
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

impl Service<Uri> for Connector {
    type Response = Line;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Line, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Self {
            mut direct,
            mut to_proxy,
            proxies,
        } = self.clone();
        Box::pin(async move {
            let (io, is_relayed) = match proxies.of(&target) {
                None => (direct.call(target).await?, false),
                Some(proxy) if target.scheme() == Some(&Scheme::HTTPS) => {
                    let mut tunnel = Tunnel::new(proxy.uri.clone(), to_proxy);
                    if let Some(authorization) = proxy.authorization.clone() {
                        tunnel = tunnel.with_auth(authorization);
                    }
                    (tunnel.call(target).await?, false)
                }
                Some(proxy) => (to_proxy.call(proxy.uri.clone()).await?, true),
            };
            Ok(Line { io, is_relayed })
        })
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_relayed)
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }
}

#[cfg(test)]
mod tests;
