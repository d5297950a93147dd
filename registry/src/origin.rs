//! Where a registry is, and where it may point to.

use http::{Uri, uri::Scheme};

use crate::{
    address::{Reach, reach_of_host},
    error::RedirectRefusal,
};

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";
/// The host that has Docker Hub's registry.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Where a registry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    /// Host, with the port if it is not the usual one.
    pub(crate) authority: String,
    pub(crate) is_plain: bool,
}

/// How to go to a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// The registry itself: whatever its name resolves to.
    Open,
    /// Elsewhere: only to addresses beyond this link.
    Guarded,
}

impl Origin {
    /// The registry of a normalised reference. On this machine it is spoken to in plain HTTP, except at port 443, as containerd
    /// does.
    pub(crate) fn new(registry: &str, is_plain: bool) -> Self {
        let authority = if registry == DOCKER_HUB {
            DOCKER_HUB_HOST
        } else {
            registry
        };
        let (host, port) = split_port(authority);
        let is_here = reach_of_host(host) == Some(Reach::Machine) && port != Some("443");
        Self {
            authority: authority.to_owned(),
            is_plain: is_plain || is_here,
        }
    }

    /// The address of a path at the registry. Paths are made of checked references, so that they need no escaping.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, RedirectRefusal> {
        let scheme = if self.is_plain { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.authority)
            .parse()
            .map_err(|_| RedirectRefusal::Malformed)
    }

    /// Whether a place is at the registry itself, which alone is given what it takes for a password.
    pub(crate) fn is_at(&self, target: &Uri) -> bool {
        self.uri("/").is_ok_and(|own| is_same_place(&own, target))
    }

    /// How to go to a place that the registry points to, if at all.
    pub(crate) fn way_to(&self, target: &Uri) -> Result<Way, RedirectRefusal> {
        let (host, _) = split_port(&self.authority);
        let is_plain = match target.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP => true,
            _ => return Err(RedirectRefusal::Malformed),
        };
        let authority = target.authority().ok_or(RedirectRefusal::Malformed)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(RedirectRefusal::Malformed);
        }
        if is_plain && !self.is_plain {
            return Err(RedirectRefusal::Downgrade);
        }
        if authority.host().eq_ignore_ascii_case(host) {
            return Ok(Way::Open);
        }
        match reach_of_host(authority.host()) {
            None => Ok(Way::Guarded),
            Some(Reach::Beyond) => Ok(Way::Open),
            local if local == reach_of_host(host) => Ok(Way::Open),
            Some(_) => Err(RedirectRefusal::Local),
        }
    }
}

/// Whether two addresses have one scheme, host and port, in one spelling.
pub(crate) fn is_same_place(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

/// What a `Location` means at `base`.
pub(crate) fn join(base: &Uri, location: &str) -> Result<Uri, RedirectRefusal> {
    let (Some(scheme), Some(authority)) = (base.scheme(), base.authority()) else {
        return Err(RedirectRefusal::Malformed);
    };
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let absolute = if location.split_once("://").is_some_and(|(before, _)| is_scheme(before)) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    absolute.parse().map_err(|_| RedirectRefusal::Malformed)
}

/// Host and port; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_found_where_containerd_finds_them() {
        let cases = [
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("ghcr.io", "https://ghcr.io/v2/"),
            ("registry:5000", "https://registry:5000/v2/"),
            ("localhost", "http://localhost/v2/"),
            ("localhost:5000", "http://localhost:5000/v2/"),
            ("localhost:443", "https://localhost:443/v2/"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
            ("[::1]:5000", "http://[::1]:5000/v2/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2/"),
        ];
        for (registry, expected) in cases {
            let uri = Origin::new(registry, false).uri("/v2/").unwrap();
            assert_eq!(uri.to_string(), expected);
        }
        let plain = Origin::new("registry:5000", true).uri("/v2/").unwrap();
        assert_eq!(plain.to_string(), "http://registry:5000/v2/");
    }

    #[test]
    fn only_the_registry_itself_is_given_credentials() {
        let cases = [
            ("ghcr.io", "https://ghcr.io/x", true),
            ("ghcr.io", "https://GHCR.io/x", true),
            ("ghcr.io", "https://ghcr.io:8443/x", false),
            ("ghcr.io", "http://ghcr.io/x", false),
            ("ghcr.io", "https://x.ghcr.io/x", false),
            ("ghcr.io", "https://ghcr.io.example/x", false),
            ("registry:5000", "https://registry:5000/", true),
            ("registry:5000", "https://registry/", false),
            ("[::1]:5000", "http://[::1]:5000/", true),
            ("[::1]:5000", "http://[::1]:5001/", false),
        ];
        for (registry, target, expected) in cases {
            let target: Uri = target.parse().unwrap();
            let origin = Origin::new(registry, false);
            assert_eq!(origin.is_at(&target), expected, "{registry} and {target}");
        }
    }

    #[test]
    fn local_places_are_gone_to_only_from_there() {
        use RedirectRefusal::{Downgrade, Local, Malformed};
        let cases = [
            ("ghcr.io", "https://ghcr.io/x", Ok(Way::Open)),
            ("ghcr.io", "https://cdn.example/x", Ok(Way::Guarded)),
            ("ghcr.io", "https://203.0.113.7/x", Ok(Way::Open)),
            ("ghcr.io", "https://10.1.2.3/x", Ok(Way::Open)),
            ("ghcr.io", "http://cdn.example/x", Err(Downgrade)),
            ("ghcr.io", "https://127.0.0.1/x", Err(Local)),
            ("ghcr.io", "https://localhost/x", Err(Local)),
            ("ghcr.io", "https://0.0.0.0/x", Err(Local)),
            ("ghcr.io", "https://[::1]/x", Err(Local)),
            ("ghcr.io", "https://169.254.169.254/x", Err(Local)),
            ("ghcr.io", "https://[::ffff:169.254.169.254]/x", Err(Local)),
            // The system's resolver takes this for an address; it is looked at when it has.
            ("ghcr.io", "https://2130706433/x", Ok(Way::Guarded)),
            ("ghcr.io", "https://user@cdn.example/x", Err(Malformed)),
            ("ghcr.io", "ftp://cdn.example/x", Err(Malformed)),
            ("ghcr.io", "/x", Err(Malformed)),
            ("localhost:5000", "http://127.0.0.1:9000/x", Ok(Way::Open)),
            ("127.0.0.1:5000", "http://localhost:9000/x", Ok(Way::Open)),
            ("127.0.0.1:5000", "http://169.254.169.254/x", Err(Local)),
            ("127.0.0.1:5000", "http://cdn.example/x", Ok(Way::Guarded)),
            ("169.254.1.1:5000", "https://169.254.1.2/x", Ok(Way::Open)),
            ("169.254.1.1:5000", "https://127.0.0.1/x", Err(Local)),
        ];
        for (registry, target, expected) in cases {
            let target: Uri = target.parse().unwrap();
            assert_eq!(
                Origin::new(registry, false).way_to(&target),
                expected,
                "{registry} to {target}"
            );
        }
    }

    #[test]
    fn locations_are_relative_to_where_they_stand() {
        let base: Uri = "https://ghcr.io/v2/a/manifests/b?n=1".parse().unwrap();
        let cases = [
            ("https://cdn.example/x?y=1", "https://cdn.example/x?y=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x?y=http://z", "https://ghcr.io/x?y=http://z"),
            ("x", "https://ghcr.io/v2/a/manifests/x"),
            ("x?y=http://z", "https://ghcr.io/v2/a/manifests/x?y=http://z"),
            ("?m=2", "https://ghcr.io/v2/a/manifests/b?m=2"),
            ("/x#part", "https://ghcr.io/x"),
        ];
        for (location, expected) in cases {
            assert_eq!(join(&base, location).unwrap().to_string(), expected, "{location}");
        }
        for location in ["https://", "http://a b/", "javascript://\u{7f}"] {
            assert_eq!(join(&base, location), Err(RedirectRefusal::Malformed), "{location:?}");
        }
    }
}
