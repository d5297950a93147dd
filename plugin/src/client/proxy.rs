//! Whether a proxy from the environment is used for a server: Go's rules, which kubectl follows.

use std::{env, net::IpAddr};

/// Whether `HTTPS_PROXY` and its like apply to this host, by the environment's `NO_PROXY`.
pub(super) fn applies_to(host: &str) -> bool {
    let no_proxy = ["NO_PROXY", "no_proxy"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default();
    !is_exempt(host, &no_proxy)
}

/// Whether the host is reached directly: this machine always is, and what `NO_PROXY` lists.
fn is_exempt(host: &str, no_proxy: &str) -> bool {
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
            match (entry.as_str(), address) {
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
        ] {
            assert_eq!(is_exempt(host, no_proxy), exempt, "{host} with NO_PROXY={no_proxy}");
        }
    }
}
