//! Just enough of HTTP/1.1: one request on each connection.

use std::{fmt::Write as _, io};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{Answer, Answerer, Request, Response},
    content::HUGE,
};

/// No request of a container runtime is longer.
const MAX_HEAD: usize = 64 * 1024;

/// How much of an endless body goes out at once.
const CHUNK: usize = 256 * 1024;

/// The first byte that a client of TLS sends.
const TLS_HANDSHAKE: u8 = 0x16;

/// What happens to the connection in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Close,
    Reset,
}

pub(super) async fn serve(mut stream: TcpStream, answerer: &Answerer) -> io::Result<()> {
    match exchange(&mut stream, answerer).await? {
        Ending::Close => stream.shutdown().await,
        Ending::Reset => stream.set_zero_linger(),
    }
}

pub(super) async fn serve_tls(stream: TcpStream, tls: &TlsAcceptor, answerer: &Answerer) -> io::Result<()> {
    let mut stream = tls.accept(stream).await?;
    exchange(&mut stream, answerer).await?;
    stream.shutdown().await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answerer: &Answerer) -> io::Result<Ending> {
    let Some(request) = parse(&read_head(stream).await?) else {
        // What servers of HTTP answer to a client that speaks TLS.
        stream
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nthis is no request")
            .await?;
        return Ok(Ending::Close);
    };
    // A response to HEAD has no body.
    let length = |length| if request.method == "HEAD" { 0 } else { length };
    match answerer.answer(&request) {
        Answer::Response(response) => {
            send(stream, &response, length(response.body.len())).await?;
            Ok(Ending::Close)
        }
        Answer::Truncated(response, sent) => {
            send(stream, &response, length(sent)).await?;
            Ok(Ending::Close)
        }
        Answer::Stopped(response, sent) => {
            send(stream, &response, length(sent)).await?;
            wait_for_end(stream).await
        }
        Answer::Endless => send_zeros(stream).await,
        Answer::Silence => wait_for_end(stream).await,
        Answer::Close => Ok(Ending::Close),
        Answer::Reset => Ok(Ending::Reset),
    }
}

/// Sends zeros until the other end has enough of them.
async fn send_zeros<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Ending> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let zeros = vec![0; CHUNK];
    loop {
        stream.write_all(&zeros).await?;
    }
}

/// Says nothing more until the other end closes the connection.
async fn wait_for_end<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Ending> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(Ending::Close)
}

/// Sends the response with only so much of its body, whose whole length it announces.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, response: &Response, length: usize) -> io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n",
        response.status,
        response.body.len()
    );
    for (name, value) in &response.headers {
        // Writing to a String cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&response.body[..length]).await?;
    stream.flush().await
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        head.push(stream.read_u8().await?);
        if head[0] == TLS_HANDSHAKE {
            break;
        }
    }
    Ok(head)
}

fn parse(head: &[u8]) -> Option<Request> {
    let head = str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let is_authorized = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        is_authorized,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_without_its_query() {
        let head = b"GET /v2/a/manifests/v1?ns=h HTTP/1.1\r\nHost: h\r\nauthorization: Bearer x\r\n\r\n";
        let expected = Request {
            method: "GET".to_owned(),
            path: "/v2/a/manifests/v1".to_owned(),
            is_authorized: true,
        };
        assert_eq!(parse(head), Some(expected));
        assert_eq!(parse(b"\r\n\r\n"), None);
    }
}
