//! Tokens: who asks, in the form that a registry wants.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    challenge::Challenge,
    credential::Credential,
    error::{Error, RedirectRefusal, Result, of_status},
    origin::Origin,
    transport::{Call, Transport},
};

/// Most bytes of the answer of a token server.
const MAX_TOKEN_ANSWER_BYTES: usize = 1024 * 1024;
/// How long a token holds that does not say so.
const USUAL_LIFETIME: Duration = Duration::from_mins(1);
/// Longer lifetimes are taken for mistakes.
const LONGEST_LIFETIME: Duration = Duration::from_hours(24);
/// What this program is called where tokens are given.
const CLIENT_ID: &str = "coral";

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: Zeroizing<String>,
    #[serde(default)]
    access_token: Zeroizing<String>,
    /// Seconds that it holds.
    expires_in: Option<u64>,
}

/// What to say in `Authorization`, and for how long.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// When to get another one. Passwords do not grow old.
    renewed_at: Option<Instant>,
}

impl Authorization {
    pub(crate) fn is_fresh(&self) -> bool {
        self.renewed_at.is_none_or(|moment| Instant::now() < moment)
    }
}

/// What to say in `Authorization` to the registry at `origin`, which asked with `challenge`. `scopes` is what is needed.
pub(crate) async fn authorization(
    transport: &Transport,
    origin: &Origin,
    challenge: &Challenge,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<Authorization> {
    let unauthorized = || Error::Unauthorized {
        host: origin.authority.clone(),
        said: None,
    };
    let credential = credential.filter(|credential| !credential.is_empty());
    match challenge {
        Challenge::Basic => Ok(Authorization {
            header: credential.and_then(basic).ok_or_else(unauthorized)?,
            renewed_at: None,
        }),
        Challenge::Bearer { realm, service, scope } => {
            let mut scopes = scopes.to_vec();
            scopes.extend(scope.clone().filter(|scope| !scopes.contains(scope)));
            let call = token_call(realm, service.as_deref(), &scopes, credential).ok_or_else(|| Error::Redirect {
                host: origin.authority.clone(),
                why: RedirectRefusal::Malformed,
            })?;
            let asked_at = Instant::now();
            let (token, lifetime) = fetch(transport, origin, &call).await?;
            Ok(Authorization {
                header: secret_header("Bearer", &token).ok_or_else(unauthorized)?,
                renewed_at: Some(asked_at + lifetime * 3 / 4),
            })
        }
    }
}

/// The question for a token. `None` where the address of the server is none.
fn token_call(realm: &str, service: Option<&str>, scopes: &[String], credential: Option<&Credential>) -> Option<Call> {
    let mut form = Serializer::new(String::new());
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    let refresh = credential.filter(|credential| !credential.identity_token.is_empty());
    if let Some(credential) = refresh {
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", &credential.identity_token);
        let mut call = Call::get(realm.parse().ok()?);
        call.method = Method::POST;
        call.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        call.body = Bytes::from(form.finish());
        return Some(call);
    }
    for scope in scopes {
        form.append_pair("scope", scope);
    }
    let separator = if realm.contains('?') { '&' } else { '?' };
    let uri: Uri = format!("{realm}{separator}{}", form.finish()).parse().ok()?;
    let mut call = Call::get(uri);
    call.authorization = credential.and_then(basic);
    Some(call)
}

/// A token, and how long it holds.
async fn fetch(transport: &Transport, origin: &Origin, call: &Call) -> Result<(Zeroizing<String>, Duration)> {
    let answer = transport.send(origin, call).await?;
    let host = answer.host.clone();
    match answer.status() {
        StatusCode::OK => {}
        // What OAuth says to a refresh token that is none.
        StatusCode::BAD_REQUEST if call.method == Method::POST => return Err(Error::Unauthorized { host, said: None }),
        status => {
            let headers = answer.headers().clone();
            return Err(of_status(&host, status, &headers, answer.said().await, "tokens"));
        }
    }
    let bytes = answer.bytes(MAX_TOKEN_ANSWER_BYTES).await?;
    let granted: Granted = serde_json::from_slice(&bytes).map_err(|_| malformed(&host))?;
    let lifetime = granted.expires_in.map_or(USUAL_LIFETIME, Duration::from_secs);
    let token = [granted.token, granted.access_token]
        .into_iter()
        .find(|token| !token.is_empty());
    Ok((token.ok_or_else(|| malformed(&host))?, lifetime.min(LONGEST_LIFETIME)))
}

fn malformed(host: &str) -> Error {
    Error::Malformed {
        host: host.to_owned(),
        what: "no token",
    }
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential { username, password, .. } = credential;
    let pair = Zeroizing::new(format!("{}:{}", **username, **password));
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    secret_header("Basic", &encoded)
}

/// A header that says in no `Debug` what it holds.
fn secret_header(scheme: &str, secret: &str) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("{scheme} {secret}"));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(username: &str, password: &str, identity_token: &str) -> Credential {
        Credential {
            username: Zeroizing::new(username.to_owned()),
            password: Zeroizing::new(password.to_owned()),
            identity_token: Zeroizing::new(identity_token.to_owned()),
        }
    }

    #[test]
    fn tokens_are_asked_for_with_a_password_or_without() {
        let scopes = ["repository:a/b:pull".to_owned(), "repository:c:pull".to_owned()];
        let call = token_call("https://auth/token?x=1", Some("the registry"), &scopes, None).unwrap();
        assert_eq!(
            call.uri.to_string(),
            "https://auth/token?x=1&service=the+registry&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull"
        );
        assert_eq!(call.authorization, None);
        let call = token_call("https://auth/token", None, &[], Some(&credential("u", "p", ""))).unwrap();
        assert_eq!(call.authorization.unwrap(), "Basic dTpw");
    }

    #[test]
    fn an_identity_token_is_sent_in_the_body() {
        let call = token_call(
            "https://auth/token",
            Some("s"),
            &["repository:a:pull".to_owned()],
            Some(&credential("u", "", "id&1")),
        )
        .unwrap();
        assert_eq!((call.method, call.authorization), (Method::POST, None));
        assert_eq!(call.uri, "https://auth/token");
        assert_eq!(
            call.body,
            "service=s&grant_type=refresh_token&client_id=coral&scope=repository%3Aa%3Apull&refresh_token=id%261"
        );
    }

    #[test]
    fn headers_show_no_secret() {
        let header = basic(&credential("u", "hidden", "")).unwrap();
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert_eq!(basic(&credential("u", "new\nline", "")).map(|_| ()), Some(()));
    }
}
