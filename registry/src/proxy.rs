//! Which proxy a server is reached through: the rules of Go's `httpproxy`, which kubectl, containerd and crane follow.
//!
//! `HTTPS_PROXY` is for servers with TLS, `HTTP_PROXY` for those without, and `NO_PROXY` lists those that are reached directly.

use std::{env, fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri, uri::Scheme};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// The proxies that registries are reached through. None, unless they are taken from the environment.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For servers with TLS.
    https: Option<Proxy>,
    /// For servers without.
    http: Option<Proxy>,
    no_proxy: String,
}

/// A proxy that speaks plain HTTP.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) uri: Uri,
    pub(crate) authorization: Option<HeaderValue>,
}

/// Why a variable names no proxy that can be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{variable} is not the address of an HTTP proxy, such as http://proxy.example:3128")]
pub struct InvalidProxy {
    /// Name of the variable. Its value may have a password.
    pub variable: &'static str,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proxies").finish_non_exhaustive()
    }
}

impl Proxies {
    /// Proxies for servers with TLS and for those without, and a list of those that are reached directly, as in `NO_PROXY`.
    pub fn new(https: Option<&str>, http: Option<&str>, no_proxy: &str) -> Result<Self, InvalidProxy> {
        Ok(Self {
            https: https.map(|address| proxy("HTTPS_PROXY", address)).transpose()?,
            http: http.map(|address| proxy("HTTP_PROXY", address)).transpose()?,
            no_proxy: no_proxy.to_owned(),
        })
    }

    /// The proxies of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or of the same in lower case.
    pub fn from_environment() -> Result<Self, InvalidProxy> {
        let https = variable(["HTTPS_PROXY", "https_proxy"]).map(Zeroizing::new);
        // A web server gives its scripts the header `Proxy` of a stranger in this variable.
        let is_script = env::var_os("REQUEST_METHOD").is_some();
        let http = variable(["HTTP_PROXY", "http_proxy"])
            .map(Zeroizing::new)
            .filter(|_| !is_script);
        Self::new(
            https.as_ref().map(|address| address.as_str()),
            http.as_ref().map(|address| address.as_str()),
            &no_proxy(),
        )
    }

    /// The proxy for a server, if it is reached through one.
    pub(crate) fn of(&self, target: &Uri) -> Option<&Proxy> {
        let is_encrypted = target.scheme() == Some(&Scheme::HTTPS);
        let proxy = if is_encrypted { &self.https } else { &self.http };
        let port = target.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        proxy
            .as_ref()
            .filter(|_| !is_exempt(target.host().unwrap_or_default(), port, &self.no_proxy))
    }
}

/// Whether `HTTPS_PROXY` and its like apply to a server, by the environment's `NO_PROXY`.
#[must_use]
pub fn is_proxied(host: &str, port: u16) -> bool {
    !is_exempt(host, port, &no_proxy())
}

fn no_proxy() -> String {
    variable(["NO_PROXY", "no_proxy"]).unwrap_or_default()
}

fn variable(names: [&str; 2]) -> Option<String> {
    names
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The proxy at an address, which may lack its scheme and have a password.
fn proxy(variable: &'static str, address: &str) -> Result<Proxy, InvalidProxy> {
    let invalid = || InvalidProxy { variable };
    let rest = match address.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(invalid()),
        None => address,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, server) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(login, server)| (Some(login), server));
    let has_port = server.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let port = if has_port { "" } else { ":80" };
    let uri: Uri = format!("http://{server}{port}/").parse().map_err(|_| invalid())?;
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(invalid());
    }
    let authorization = login.map(basic).transpose().map_err(|()| invalid())?;
    Ok(Proxy { uri, authorization })
}

fn basic(login: &str) -> Result<HeaderValue, ()> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut pair = Zeroizing::new(percent_decode_str(user).collect::<Vec<u8>>());
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let header = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
    let mut value = HeaderValue::from_str(&header).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a server is reached directly: this machine always is, and what `NO_PROXY` lists.
fn is_exempt(host: &str, port: u16, no_proxy: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            let entry = entry.to_ascii_lowercase();
            let entry = match split_port(&entry) {
                (_, Some(only)) if only != port => return false,
                (entry, _) => entry,
            };
            match (entry, address) {
                ("*", _) => true,
                (network, Some(address)) => {
                    contains(network, address) || network.parse::<IpAddr>().is_ok_and(|exempt| exempt == address)
                }
                (domain, None) => {
                    let domain = domain.strip_prefix('*').unwrap_or(domain);
                    match domain.strip_prefix('.') {
                        Some(_) => host.ends_with(domain),
                        None => host == domain || host.ends_with(&format!(".{domain}")),
                    }
                }
            }
        })
}

/// An entry and the only port that it is about. An IPv6 address without brackets has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host.trim_start_matches('[').trim_end_matches(']'), Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry.trim_start_matches('[').trim_end_matches(']'), None),
    }
}

/// Whether a network such as `10.0.0.0/8` contains the address.
fn contains(network: &str, address: IpAddr) -> bool {
    let Some((base, length)) = network.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    let (base, address, bits) = match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (u128::from(base.to_bits()), u128::from(address.to_bits()), 32),
        (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    length <= bits && (base ^ address).checked_shr(bits - length).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exempt_as_in_go() {
        for (host, no_proxy, exempt) in [
            ("api.example.com", "", false),
            ("localhost", "", true),
            ("127.0.0.1", "", true),
            ("[::1]", "", true),
            ("api.example.com", "*", true),
            ("api.example.com", "example.com", true),
            ("api.example.com", ".example.com", true),
            ("api.example.com", "*.example.com", true),
            ("example.com", ".example.com", false),
            ("badexample.com", "example.com", false),
            ("API.Example.com", "other, api.example.com ,", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "10.0.0.0/99", false),
            ("fd00::5", "fd00::/16", true),
            ("10.1.2.3", "fd00::/16", false),
            ("api.example.com", "api.example.com:5000", true),
            ("api.example.com", "api.example.com:5001", false),
            ("10.1.2.3", "10.1.2.3:5000", true),
            ("10.1.2.3", "10.1.2.3:5001", false),
            ("fd00::5", "[fd00::5]:5000", true),
            ("fd00::5", "[fd00::5]:5001", false),
            ("fd00::5", "fd00::5", true),
        ] {
            assert_eq!(
                is_exempt(host, 5000, no_proxy),
                exempt,
                "{host} with NO_PROXY={no_proxy}"
            );
        }
    }

    #[test]
    fn proxies_are_addresses_with_and_without_a_scheme() {
        // Address, where it leads, and the login in base64.
        let cases = [
            ("http://proxy:3128", "http://proxy:3128/", None),
            ("proxy:3128", "http://proxy:3128/", None),
            ("http://proxy", "http://proxy:80/", None),
            ("http://[fd00::1]:3128/", "http://[fd00::1]:3128/", None),
            ("http://u:p%40ss@proxy:1", "http://proxy:1/", Some("Basic dTpwQHNz")),
            ("u@proxy:1", "http://proxy:1/", Some("Basic dTo=")),
        ];
        for (address, uri, authorization) in cases {
            let proxy = proxy("HTTP_PROXY", address).unwrap();
            assert_eq!(proxy.uri.to_string(), uri, "{address}");
            let told = proxy.authorization.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(told, authorization, "{address}");
        }
        for address in [
            "https://proxy:3128",
            "socks5://proxy",
            "http://",
            "a b",
            "http://proxy:x",
        ] {
            assert!(proxy("HTTP_PROXY", address).is_err(), "{address}");
        }
    }

    #[test]
    fn the_scheme_of_the_server_chooses_the_proxy() {
        let proxies = Proxies::new(Some("encrypted:1"), Some("plain:1"), "lan:5000").unwrap();
        let cases = [
            ("https://ghcr.io/v2/", Some("encrypted")),
            ("http://ghcr.io/v2/", Some("plain")),
            ("https://lan:5000/v2/", None),
            ("https://lan/v2/", Some("encrypted")),
            ("http://127.0.0.1:5000/v2/", None),
        ];
        for (target, expected) in cases {
            let chosen = proxies.of(&target.parse().unwrap());
            assert_eq!(chosen.and_then(|proxy| proxy.uri.host()), expected, "{target}");
        }
        assert!(Proxies::default().of(&"https://ghcr.io/".parse().unwrap()).is_none());
    }
}
