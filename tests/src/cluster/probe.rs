//! Small looks at servers, without a client library.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::wait::Look;

/// Whether a server answers `GET path` with 200.
pub(super) async fn http_ok(address: Ipv4Addr, port: u16, path: &str) -> Result<Look<(), String>> {
    let mut stream = TcpStream::connect((address, port)).await.context("connect")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("send a request")?;
    let mut answer = Vec::new();
    stream
        .take(4096)
        .read_to_end(&mut answer)
        .await
        .context("read the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    Ok(if status.split(' ').nth(1) == Some("200") {
        Look::Done(())
    } else {
        Look::NotYet(status.to_owned())
    })
}

/// What a server answers to `GET path`.
///
/// # Errors
/// Also where the answer is not 200.
pub(super) async fn http_get(address: Ipv4Addr, port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((address, port)).await.context("connect")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("send a request")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("find the answer's body")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "GET {path} gives {status:?}");
    Ok(body.to_owned())
}

/// Sends JSON to a server that speaks plain HTTP, and gives the JSON of its answer, whatever its status.
pub(super) async fn post_json(address: Ipv4Addr, port: u16, path: &str, body: &Value) -> Result<Value> {
    let mut stream = TcpStream::connect((address, port)).await.context("connect")?;
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.context("send a request")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the answer")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("find the answer's body")?;
    serde_json::from_str(body).with_context(|| format!("understand the answer {answer:?}"))
}

/// Whether a server takes connections.
pub(super) async fn accepts(address: Ipv4Addr, port: u16) -> Result<Look<(), String>> {
    TcpStream::connect((address, port)).await.context("connect")?;
    Ok(Look::Done(()))
}

/// Whether a server takes connections on a Unix socket.
pub(super) async fn accepts_unix(path: &Path) -> Result<Look<(), String>> {
    UnixStream::connect(path)
        .await
        .with_context(|| format!("connect to {}", path.display()))?;
    Ok(Look::Done(()))
}
