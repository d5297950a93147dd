//! How runtimes differ in what they say.

use coral_proto::runtime_v1::VersionResponse;
use tonic::Code;

use super::catalogue::Artifact;

/// Which runtime the fake behaves as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flavour {
    /// containerd: a failed pull has code `Unknown` but for what was not found, and an image lists the digest that was asked for.
    Containerd,
    /// CRI-O: a failed pull has code `Unknown`, an ID has no algorithm, and an image lists the digests of its manifest and of its index.
    CriO,
}

/// What keeps a pull from succeeding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// The registry has no such image.
    NotFound,
    /// The registry refuses the credential, or the lack of one.
    Unauthorized,
    /// HTTP 429.
    RateLimited,
    /// The registry refuses connections.
    RegistryDown,
    /// The image filesystem is full.
    NoSpace,
    /// The index has nothing for the platform of the node.
    WrongPlatform,
    /// Words of one's own.
    Other(Code, String),
}

impl Flavour {
    pub(super) fn version(self) -> VersionResponse {
        let (name, version) = match self {
            Self::Containerd => ("containerd", "2.4.0"),
            Self::CriO => ("cri-o", "1.36.0"),
        };
        VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: name.to_owned(),
            runtime_version: version.to_owned(),
            runtime_api_version: "v1".to_owned(),
        }
    }

    /// Where it keeps images. It is nowhere, so that no agent takes the disk of this machine for that of the node.
    pub(super) const fn mountpoint(self) -> &'static str {
        match self {
            Self::Containerd => "/nonexistent/containerd/io.containerd.snapshotter.v1.overlayfs",
            Self::CriO => "/nonexistent/containers/storage/overlay-images",
        }
    }

    /// An image's ID as lists have it.
    pub(super) fn id(self, id: &str) -> String {
        match self {
            Self::Containerd => format!("sha256:{id}"),
            Self::CriO => id.to_owned(),
        }
    }

    /// The digests under which an image is listed when it was pulled with the given one, or by tag.
    pub(super) fn digests(self, artifact: &Artifact) -> Vec<&str> {
        match self {
            Self::Containerd => vec![&artifact.digest],
            Self::CriO => vec![&artifact.manifest_digest, &artifact.digest],
        }
    }

    /// Code and words of a pull that fails. `image` is the reference as it was asked for.
    pub(super) fn words(self, trouble: &Trouble, image: &str) -> (Code, String) {
        match (self, trouble) {
            (_, Trouble::Other(code, words)) => (*code, words.clone()),
            (Self::Containerd, Trouble::NotFound) => (Code::NotFound, Self::containerd(trouble, image)),
            (Self::Containerd, _) => (Code::Unknown, Self::containerd(trouble, image)),
            (Self::CriO, _) => (Code::Unknown, Self::cri_o(trouble, image)),
        }
    }

    fn containerd(trouble: &Trouble, image: &str) -> String {
        let manifests = "https://registry.example/v2/app/manifests/v1";
        let words = match trouble {
            Trouble::NotFound => format!(r#"failed to resolve reference "{image}": {image}: not found"#),
            Trouble::Unauthorized => format!(
                r#"failed to resolve reference "{image}": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"#
            ),
            Trouble::RateLimited => format!(
                r#"failed to resolve reference "{image}": unexpected status from HEAD request to {manifests}: 429 Too Many Requests"#
            ),
            Trouble::RegistryDown => format!(
                r#"failed to resolve reference "{image}": failed to do request: Head "{manifests}": dial tcp 192.0.2.1:443: connect: connection refused"#
            ),
            Trouble::NoSpace => "failed to extract layer sha256:0f: mount callback failed on /var/lib/containerd/tmpmounts/containerd-mount1: failed to write: write /var/lib/containerd/tmpmounts/containerd-mount1/usr/lib/x: no space left on device".to_owned(),
            Trouble::WrongPlatform => "no match for platform in manifest: not found".to_owned(),
            Trouble::Other(_, words) => words.clone(),
        };
        format!(r#"failed to pull and unpack image "{image}": {words}"#)
    }

    fn cri_o(trouble: &Trouble, image: &str) -> String {
        let name = image.split('@').next().unwrap_or(image);
        match trouble {
            Trouble::NotFound => {
                format!("unable to pull image or OCI artifact: pull image err: initializing source docker://{image}: reading manifest in {name}: manifest unknown")
            }
            Trouble::Unauthorized => format!(
                "unable to pull image or OCI artifact: pull image err: initializing source docker://{image}: unable to retrieve auth token: invalid username/password: unauthorized: authentication required"
            ),
            Trouble::RateLimited => format!(
                "initializing source docker://{image}: reading manifest in {name}: toomanyrequests: You have reached your unauthenticated pull rate limit."
            ),
            Trouble::RegistryDown => format!(
                r#"initializing source docker://{image}: pinging container registry registry.example: Get "https://registry.example/v2/": dial tcp 192.0.2.1:443: connect: connection refused"#
            ),
            Trouble::NoSpace => {
                r#"writing blob: storing blob to file "/var/tmp/container_images_storage1/1": write /var/tmp/container_images_storage1/1: no space left on device"#.to_owned()
            }
            Trouble::WrongPlatform => {
                r#"choosing an image from manifest list: no image found in image index for architecture "amd64", variant "", OS "linux""#.to_owned()
            }
            Trouble::Other(_, words) => words.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containerd_has_a_code_for_what_is_not_found() {
        let code = |flavour: Flavour, trouble| flavour.words(&trouble, "registry.example/app:v1").0;
        assert_eq!(code(Flavour::Containerd, Trouble::NotFound), Code::NotFound);
        assert_eq!(code(Flavour::Containerd, Trouble::NoSpace), Code::Unknown);
        assert_eq!(code(Flavour::CriO, Trouble::NotFound), Code::Unknown);
    }

    #[test]
    fn words_name_the_image() {
        for flavour in [Flavour::Containerd, Flavour::CriO] {
            for trouble in [Trouble::NotFound, Trouble::Unauthorized, Trouble::RateLimited] {
                let (_, words) = flavour.words(&trouble, "registry.example/app:v1");
                assert!(words.contains("registry.example/app:v1"), "{words}");
            }
        }
    }
}
