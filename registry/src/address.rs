//! Which addresses a registry may point a client to.
//!
//! A registry says where its tokens and its blobs are. One that means harm says `169.254.169.254`, where clouds answer with the
//! keys of the machine, or `127.0.0.1`, where things listen that trust whoever reaches them. Such places are gone to only from a
//! registry that is itself there. A name is judged by what it resolves to, at the moment of the connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// The IPv6 address of the metadata service of AWS.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
/// Metadata services that are not at a link-local address: Alibaba Cloud's and Azure's.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];

/// How far away an address is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// This machine.
    Machine,
    /// This link, and the metadata services of clouds, wherever they are.
    Link,
    /// Anywhere else.
    Beyond,
}

/// How far away an address is.
pub(crate) fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => {
            if address.is_loopback() || address.is_unspecified() {
                Reach::Machine
            } else if address.is_unicast_link_local() || address.is_multicast() || address == METADATA_V6 {
                Reach::Link
            } else {
                behind_nat64(address).map_or(Reach::Beyond, reach_v4)
            }
        }
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    // Linux takes 0.0.0.0 for this machine.
    if address.is_loopback() || address.octets()[0] == 0 {
        Reach::Machine
    } else if address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
    {
        Reach::Link
    } else {
        Reach::Beyond
    }
}

/// The IPv4 address in an address of `64:ff9b::/96`.
fn behind_nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() else {
        return None;
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

/// How far away a host is, as far as its name says so: `None` for a name that has to be resolved first.
pub(crate) fn reach_of_host(host: &str) -> Option<Reach> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(address) => Some(reach(address)),
        Err(_) if host.eq_ignore_ascii_case("localhost") => Some(Reach::Machine),
        Err(_) => None,
    }
}

/// Resolves names with the system's resolver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver {
    /// Whether only addresses beyond this link count.
    pub(crate) only_beyond: bool,
}

/// A name that stands for nothing but addresses that are not gone to.
#[derive(Debug, thiserror::Error)]
#[error("the name stands for an address of this machine or of this link")]
pub(crate) struct LocalName;

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { only_beyond } = *self;
        Box::pin(async move {
            // The port is the connector's to set.
            let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if only_beyond {
                addresses.retain(|address| reach(address.ip()) == Reach::Beyond);
                if addresses.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, LocalName));
                }
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_as_far_away_as_their_addresses() {
        let cases = [
            ("localhost", Some(Reach::Machine)),
            ("LocalHost", Some(Reach::Machine)),
            ("127.0.0.1", Some(Reach::Machine)),
            ("127.255.0.9", Some(Reach::Machine)),
            ("0.0.0.0", Some(Reach::Machine)),
            ("[::1]", Some(Reach::Machine)),
            ("[::]", Some(Reach::Machine)),
            ("[::ffff:127.0.0.1]", Some(Reach::Machine)),
            ("[64:ff9b::7f00:1]", Some(Reach::Machine)),
            ("169.254.169.254", Some(Reach::Link)),
            ("[::ffff:169.254.169.254]", Some(Reach::Link)),
            ("[64:ff9b::a9fe:a9fe]", Some(Reach::Link)),
            ("[fe80::1]", Some(Reach::Link)),
            ("[fd00:ec2::254]", Some(Reach::Link)),
            ("100.100.100.200", Some(Reach::Link)),
            ("168.63.129.16", Some(Reach::Link)),
            ("255.255.255.255", Some(Reach::Link)),
            ("224.0.0.1", Some(Reach::Link)),
            ("10.0.0.1", Some(Reach::Beyond)),
            ("192.168.0.1", Some(Reach::Beyond)),
            ("203.0.113.7", Some(Reach::Beyond)),
            ("[2001:db8::1]", Some(Reach::Beyond)),
            ("[fd00::1]", Some(Reach::Beyond)),
            ("ghcr.io", None),
            // These the system's resolver takes for addresses, and what it makes of them is looked at.
            ("2130706433", None),
            ("127.1", None),
            ("localhost.", None),
        ];
        for (host, expected) in cases {
            assert_eq!(reach_of_host(host), expected, "{host}");
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        for name in ["localhost", "2130706433", "127.1", "0x7f000001"] {
            let name: Name = name.parse().unwrap();
            let refused = Resolver { only_beyond: true }.call(name.clone()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{name}: {refused}");
            let mut found = Resolver { only_beyond: false }.call(name.clone()).await.unwrap();
            assert!(found.all(|address| address.ip().is_loopback()), "{name}");
        }
    }
}
