//! A registry that goes wrong and comes right again: a proxy in front of a real one.
//!
//! [`bad_registry`](crate::bad_registry) has one image for everything that a registry can say; here it is one registry that behaves
//! for a while, then does not, and then does again, as registries do.
//!
//! ```text
//!   containerd ──one request per connection──► FaultyRegistry { conduct } ──► open registry
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::cluster::Cluster;

/// How the registry conducts itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Conduct {
    /// As it should.
    #[default]
    Well,
    /// Nobody listens.
    Down,
    /// 1 KB/s on each connection.
    Slow,
    /// The connection is closed in the middle of a layer.
    Cuts,
    /// 429 for every request, with `Retry-After`.
    Limits,
    /// 500 for every request.
    Fails,
    /// Layers have other bytes than their digest says.
    Corrupts,
    /// Every token is taken for expired, also one that was just given.
    Expires,
}

/// A running registry; it ends, and breaks its connections, when it is dropped.
#[derive(Debug)]
pub struct FaultyRegistry {
    address: SocketAddr,
    conduct: watch::Sender<Conduct>,
    task: JoinHandle<()>,
}

impl Cluster {
    /// A registry that can be made to fail, in front of the open one. The nodes know that it speaks plain HTTP.
    pub async fn faulty_registry(&self) -> Result<FaultyRegistry> {
        let registry = FaultyRegistry::start(self.host_address(), &self.registry()).await?;
        self.trust_plain_http(&registry.host())?;
        Ok(registry)
    }
}

impl FaultyRegistry {
    /// Listens on a free port of `address`, in front of `upstream`.
    pub async fn start(address: Ipv4Addr, upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))
            .await
            .with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context("find the port of the registry")?;
        let (conduct, seen) = watch::channel(Conduct::Well);
        let proxy = Proxy {
            host: address.to_string(),
            upstream: upstream.to_owned(),
            conduct: seen,
        };
        let task = tokio::spawn(serve(listener, address, Arc::new(proxy)));
        Ok(Self { address, conduct, task })
    }

    /// `host:port`, for image names.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Changes how it conducts itself. [`Conduct::Down`] breaks the connections that there are.
    pub fn conduct(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How much passes at once when the registry is slow.
const SLOW_CHUNK: usize = 128;
/// How often that much passes: 1 KB/s.
const SLOW_PAUSE: Duration = Duration::from_millis(125);
/// After how many bytes of an answer the connection is cut: in the middle of any layer that a test has.
const CUT_AFTER: usize = 20_000;
/// No client of a registry sends more before its body.
const LONGEST_HEAD: usize = 64 * 1024;

struct Proxy {
    host: String,
    upstream: String,
    conduct: watch::Receiver<Conduct>,
}

async fn serve(mut listener: TcpListener, address: SocketAddr, proxy: Arc<Proxy>) {
    let mut conduct = proxy.conduct.clone();
    loop {
        // The connections end with this set.
        let mut connections = JoinSet::new();
        let goes_on = loop {
            tokio::select! {
                seen = conduct.wait_for(|it| *it == Conduct::Down) => break seen.is_ok(),
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let proxy = Arc::clone(&proxy);
                        connections.spawn(async move {
                            // Whatever goes wrong here is what the runtime has to cope with.
                            let _ = proxy.answer(stream).await;
                        });
                    }
                    while connections.try_join_next().is_some() {}
                }
            }
        };
        drop(connections);
        drop(listener);
        if !goes_on || conduct.wait_for(|it| *it != Conduct::Down).await.is_err() {
            return;
        }
        listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(SLOW_PAUSE).await,
            }
        };
    }
}

impl Proxy {
    async fn answer(&self, mut client: TcpStream) -> Result<()> {
        let head = read_head(&mut client).await?;
        let conduct = *self.conduct.borrow();
        if let Some(answer) = instead(conduct, &head, &self.host) {
            client.write_all(answer.as_bytes()).await.context("answer")?;
            return client.shutdown().await.context("close");
        }
        let mut server = TcpStream::connect(&self.upstream).await.context("connect")?;
        let request = one_request(&head);
        server
            .write_all(request.as_bytes())
            .await
            .context("pass a request on")?;
        self.pass_answer(&mut server, &mut client, head.contains("/blobs/"))
            .await
    }

    /// The conduct may change while an answer is on its way.
    async fn pass_answer(&self, server: &mut TcpStream, client: &mut TcpStream, is_blob: bool) -> Result<()> {
        let head = read_head(server).await?;
        client.write_all(head.as_bytes()).await.context("pass an answer on")?;
        let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
        loop {
            let conduct = *self.conduct.borrow();
            let most = if conduct == Conduct::Slow {
                SLOW_CHUNK
            } else {
                buffer.len()
            };
            let count = server.read(&mut buffer[..most]).await.context("read an answer")?;
            if count == 0 {
                return client.shutdown().await.context("close");
            }
            passed += count;
            match conduct {
                Conduct::Slow => sleep(SLOW_PAUSE).await,
                Conduct::Corrupts if is_blob => buffer[count - 1] ^= 1,
                Conduct::Cuts if is_blob && passed > CUT_AFTER => return Ok(()),
                _ => {}
            }
            client.write_all(&buffer[..count]).await.context("pass an answer on")?;
        }
    }
}

/// Everything up to the empty line, and that line.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(head.len() < LONGEST_HEAD, "the head has no end");
        head.push(stream.read_u8().await.context("read a head")?);
    }
    String::from_utf8(head).context("the head is not in UTF-8")
}

/// The request with the wish that the connection ends with it: an answer then ends where the connection does.
fn one_request(head: &str) -> String {
    let lines = head.trim_end().split("\r\n");
    let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    kept.chain(["Connection: close", "", ""])
        .collect::<Vec<_>>()
        .join("\r\n")
}

/// What is said instead of the real registry's answer.
fn instead(conduct: Conduct, head: &str, host: &str) -> Option<String> {
    let body = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"on purpose"}}]}}"#);
    let (status, header, body) = match conduct {
        Conduct::Limits => (
            "429 Too Many Requests",
            "Retry-After: 3\r\n".to_owned(),
            body("TOOMANYREQUESTS"),
        ),
        Conduct::Fails => ("500 Internal Server Error", String::new(), body("UNKNOWN")),
        Conduct::Expires if head.starts_with("GET /token") => {
            let token = r#"{"token":"expired","expires_in":300}"#;
            (
                "200 OK",
                "Content-Type: application/json\r\n".to_owned(),
                token.to_owned(),
            )
        }
        Conduct::Expires => {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"coral\",error=\"invalid_token\"\r\n"
            );
            ("401 Unauthorized", challenge, body("UNAUTHORIZED"))
        }
        Conduct::Well | Conduct::Down | Conduct::Slow | Conduct::Cuts | Conduct::Corrupts => return None,
    };
    // The answer to a HEAD tells the length and has no body.
    let sent = if head.starts_with("HEAD ") { "" } else { &body };
    Some(format!(
        "HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\nConnection: close\r\n\r\n{sent}",
        body.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: usize = 50_000;

    /// A server that gives every request the same layer.
    async fn upstream() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = read_head(&mut stream).await.unwrap();
                assert!(head.ends_with("Connection: close\r\n\r\n"), "{head}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LAYER}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&vec![7; LAYER]).await;
            }
        });
        address
    }

    /// The first line of an answer and its body.
    async fn get(host: &str) -> Result<(String, Vec<u8>)> {
        let mut stream = TcpStream::connect(host).await?;
        stream
            .write_all(b"GET /v2/a/blobs/x HTTP/1.1\r\nConnection: keep-alive\r\n\r\n")
            .await?;
        let head = read_head(&mut stream).await?;
        let mut body = Vec::new();
        stream.read_to_end(&mut body).await?;
        Ok((head.lines().next().unwrap_or_default().to_owned(), body))
    }

    #[tokio::test]
    async fn it_goes_wrong_as_told_and_comes_right_again() {
        let registry = FaultyRegistry::start(Ipv4Addr::LOCALHOST, &upstream().await)
            .await
            .unwrap();
        let is_well = async || {
            let (_, body) = get(&registry.host()).await.unwrap();
            assert_eq!(body, vec![7; LAYER]);
        };
        is_well().await;
        for (conduct, status) in [
            (Conduct::Limits, "429"),
            (Conduct::Fails, "500"),
            (Conduct::Expires, "401"),
        ] {
            registry.conduct(conduct);
            let (line, _) = get(&registry.host()).await.unwrap();
            assert!(line.contains(status), "{conduct:?}: {line}");
        }
        registry.conduct(Conduct::Cuts);
        let (_, body) = get(&registry.host()).await.unwrap();
        assert!(!body.is_empty() && body.len() < LAYER, "{}", body.len());
        registry.conduct(Conduct::Corrupts);
        let (_, body) = get(&registry.host()).await.unwrap();
        assert!(body.len() == LAYER && body.contains(&6));
        registry.conduct(Conduct::Down);
        crate::wait::eventually("nobody to listen", Duration::from_secs(10), async || {
            Ok(if get(&registry.host()).await.is_err() {
                crate::wait::Look::Done(())
            } else {
                crate::wait::Look::NotYet(())
            })
        })
        .await
        .unwrap();
        registry.conduct(Conduct::Well);
        crate::wait::eventually("somebody to listen", Duration::from_secs(10), async || {
            get(&registry.host()).await?;
            Ok(crate::wait::Look::<(), ()>::Done(()))
        })
        .await
        .unwrap();
        is_well().await;
    }
}
