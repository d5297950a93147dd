//! What the registry answers: a pure function of the request.

use serde_json::json;

use super::{
    Misbehaviour, SECRET,
    content::{Content, digest},
};

/// What was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    /// Whether it came with credentials of any kind.
    pub(super) is_authorized: bool,
}

/// What comes back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// A response of HTTP.
    Response(Response),
    /// A response whose body ends the connection after this many bytes.
    Truncated(Response, usize),
    /// A response whose body stops after this many bytes, while the connection stays.
    Stopped(Response, usize),
    /// A body of zeros without an end.
    Endless,
    /// Nothing, while the connection stays.
    Silence,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// The part of an image that a request is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Manifest,
    Config,
    Layer,
}

#[derive(Debug)]
pub(super) struct Answerer {
    host: String,
    content: Content,
}

impl Answerer {
    pub(super) const fn new(host: String, content: Content) -> Self {
        Self { host, content }
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        if let Some(repository) = request.path.strip_prefix("/token/") {
            return Misbehaviour::of(repository).map_or_else(unknown_name, token);
        }
        if request.path.starts_with("/storage/") {
            return page("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
        }
        if request.path.trim_end_matches('/') == "/v2" {
            return Answer::Response(Response::new("200 OK", "application/json", b"{}".to_vec()));
        }
        let mut segments = request.path.trim_start_matches("/v2/").split('/');
        let (Some(repository), Some(kind), Some(name)) = (segments.next(), segments.next(), segments.next()) else {
            return page("404 Not Found", "404 page not found\n");
        };
        let Some(misbehaviour) = Misbehaviour::of(repository) else {
            return unknown_name();
        };
        self.always(misbehaviour, request)
            .unwrap_or_else(|| self.part(misbehaviour, request, kind, name))
    }

    /// What some repositories answer to everything.
    fn always(&self, misbehaviour: Misbehaviour, request: &Request) -> Option<Answer> {
        use Misbehaviour as M;
        Some(match misbehaviour {
            M::UnauthorizedWithoutChallenge => unauthorized(None),
            M::UnauthorizedBasic => unauthorized(Some("Basic realm=\"coral\"".to_owned())),
            M::TokenUnauthorized
            | M::TokenForbidden
            | M::TokenRateLimited
            | M::TokenUnavailable
            | M::TokenGarbage
            | M::TokenClosed
            | M::TokenUseless => unauthorized(Some(self.challenge(misbehaviour, request))),
            M::Forbidden => error("403 Forbidden", "DENIED", "requested access to the resource is denied"),
            M::ForbiddenByProxy => page("403 Forbidden", "<html>Blocked by the firewall</html>"),
            M::ManifestUnknown => error("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown"),
            M::NameUnknown => unknown_name(),
            M::NotFoundPage => page("404 Not Found", "<html>Nothing here</html>"),
            M::RateLimited => rate_limited(),
            M::InternalServerError => page("500 Internal Server Error", "oops"),
            M::BadGateway => page("502 Bad Gateway", "<html>502 Bad Gateway</html>"),
            M::ServiceUnavailable => page("503 Service Unavailable", "down for maintenance"),
            M::GatewayTimeout => page("504 Gateway Timeout", "<html>504 Gateway Time-out</html>"),
            M::RedirectLoop => redirect(format!("http://{}{}", self.host, request.path)),
            M::ConnectionClosed => Answer::Close,
            M::ConnectionReset => Answer::Reset,
            M::ConnectionHangs => Answer::Silence,
            _ => return None,
        })
    }

    /// The challenge of a token server, which is this server, too.
    fn challenge(&self, misbehaviour: Misbehaviour, request: &Request) -> String {
        let (host, repository) = (&self.host, misbehaviour.repository());
        let mut challenge = format!(
            "Bearer realm=\"http://{host}/token/{repository}\",service=\"coral\",scope=\"repository:{repository}:pull\""
        );
        if request.is_authorized {
            challenge.push_str(",error=\"insufficient_scope\"");
        }
        challenge
    }

    fn part(&self, misbehaviour: Misbehaviour, request: &Request, kind: &str, name: &str) -> Answer {
        let image = self.content.image(misbehaviour);
        let part = match kind {
            "manifests" if name == "v1" || name == digest(&image.manifest) => Part::Manifest,
            "manifests" if misbehaviour == Misbehaviour::ManifestWrongDigest => Part::Manifest,
            "blobs" if name == digest(&image.config) => Part::Config,
            "blobs" if name == digest(&image.layer) => Part::Layer,
            "manifests" => return error("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown"),
            _ => return unknown_blob(),
        };
        let is_head = request.method == "HEAD";
        match part {
            Part::Manifest if misbehaviour == Misbehaviour::RateLimitedManifest && !is_head => rate_limited(),
            Part::Manifest => {
                let digest = match misbehaviour {
                    Misbehaviour::ManifestWrongDigest => digest(b"another manifest"),
                    _ => digest(&image.manifest),
                };
                let response = Response::new("200 OK", image.media_type, image.manifest);
                Answer::Response(response.with("Docker-Content-Digest", digest))
            }
            Part::Config if misbehaviour == Misbehaviour::ConfigUnknown => unknown_blob(),
            Part::Config => Answer::Response(Response::blob(image.config)),
            Part::Layer => self.layer(misbehaviour, image.layer),
        }
    }

    fn layer(&self, misbehaviour: Misbehaviour, layer: Vec<u8>) -> Answer {
        use Misbehaviour as M;
        let half = layer.len() / 2;
        match misbehaviour {
            M::BlobUnknown => unknown_blob(),
            M::RateLimitedBlob => rate_limited(),
            M::BlobServerError => page("500 Internal Server Error", "oops"),
            M::BlobRedirectForbidden => redirect(format!(
                "http://{}/storage/layer?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
                self.host
            )),
            // Port 1 is nobody's.
            M::BlobRedirectRefused => redirect(format!("http://user:{SECRET}@127.0.0.1:1/layer?sig={SECRET}")),
            M::BlobWrongContent => Answer::Response(Response::blob(layer.iter().map(|byte| byte ^ 1).collect())),
            M::BlobTruncated => Answer::Truncated(Response::blob(layer), half),
            M::BlobHangs => Answer::Stopped(Response::blob(layer), half),
            M::HugeLayer => Answer::Endless,
            _ => Answer::Response(Response::blob(layer)),
        }
    }
}

impl Response {
    fn new(status: &'static str, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", content_type.to_owned())],
            body,
        }
    }

    fn blob(body: Vec<u8>) -> Self {
        Self::new("200 OK", "application/octet-stream", body)
    }

    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What the token server answers.
fn token(misbehaviour: Misbehaviour) -> Answer {
    use Misbehaviour as M;
    match misbehaviour {
        M::TokenUnauthorized => unauthorized(None),
        M::TokenForbidden => error("403 Forbidden", "DENIED", "requested access to the resource is denied"),
        M::TokenRateLimited => rate_limited(),
        M::TokenUnavailable => page("503 Service Unavailable", "down for maintenance"),
        M::TokenGarbage => page("200 OK", "<html>Please log in</html>"),
        M::TokenClosed => Answer::Close,
        _ => Answer::Response(Response::new(
            "200 OK",
            "application/json",
            json!({"token": SECRET, "expires_in": 300}).to_string().into_bytes(),
        )),
    }
}

fn unauthorized(challenge: Option<String>) -> Answer {
    let response = Response::error("401 Unauthorized", "UNAUTHORIZED", "authentication required");
    Answer::Response(match challenge {
        Some(challenge) => response.with("WWW-Authenticate", challenge),
        None => response,
    })
}

/// As Docker Hub says it, but for the shorter pause.
fn rate_limited() -> Answer {
    let response = Response::error(
        "429 Too Many Requests",
        "TOOMANYREQUESTS",
        "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
    );
    Answer::Response(response.with("Retry-After", "7".to_owned()))
}

fn unknown_name() -> Answer {
    error("404 Not Found", "NAME_UNKNOWN", "repository name not known to registry")
}

fn unknown_blob() -> Answer {
    error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry")
}

fn error(status: &'static str, code: &str, message: &str) -> Answer {
    Answer::Response(Response::error(status, code, message))
}

impl Response {
    fn error(status: &'static str, code: &str, message: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": message}]});
        Self::new(status, "application/json", body.to_string().into_bytes())
    }
}

fn page(status: &'static str, body: &str) -> Answer {
    Answer::Response(Response::new(status, "text/html", body.as_bytes().to_vec()))
}

fn redirect(location: String) -> Answer {
    let response = Response::new("307 Temporary Redirect", "text/html", Vec::new());
    Answer::Response(response.with("Location", location))
}
