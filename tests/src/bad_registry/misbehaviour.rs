//! The ways to go wrong.

/// What goes wrong with an image.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Misbehaviour {
    /// Nothing: the image can be pulled.
    None,

    /// 401 that does not say how to authenticate.
    UnauthorizedWithoutChallenge,
    /// 401 that wants a password.
    UnauthorizedBasic,
    /// The token server answers 401.
    TokenUnauthorized,
    /// The token server answers 403.
    TokenForbidden,
    /// The token server answers 429.
    TokenRateLimited,
    /// The token server answers 503.
    TokenUnavailable,
    /// The token server's answer is not JSON.
    TokenGarbage,
    /// The token server closes the connection.
    TokenClosed,
    /// The token server gives a token with which the registry still answers 401.
    TokenUseless,
    /// 403 with the body of a registry.
    Forbidden,
    /// 403 with the body of a firewall.
    ForbiddenByProxy,

    /// 404 with `MANIFEST_UNKNOWN`.
    ManifestUnknown,
    /// 404 with `NAME_UNKNOWN`.
    NameUnknown,
    /// 404 with the page of some other web server.
    NotFoundPage,
    /// The manifest is there; its layer is not.
    BlobUnknown,

    /// 429 for every request, with Docker Hub's body and `Retry-After`.
    RateLimited,
    /// 429 for the manifest's content: Docker Hub does not count HEAD.
    RateLimitedManifest,
    /// 429 for the layer.
    RateLimitedBlob,

    /// 500 for every request.
    InternalServerError,
    /// 502 for every request.
    BadGateway,
    /// 503 for every request.
    ServiceUnavailable,
    /// 504 for every request.
    GatewayTimeout,
    /// 500 for the layer.
    BlobServerError,
    /// Every request is sent to itself.
    RedirectLoop,
    /// The layer is elsewhere, behind a signed URL that has expired.
    BlobRedirectForbidden,
    /// The layer is elsewhere, where nobody listens.
    BlobRedirectRefused,
    /// The connection is closed instead of an answer.
    ConnectionClosed,
    /// The connection is reset instead of an answer.
    ConnectionReset,
    /// The answer does not come.
    ConnectionHangs,

    /// The manifest is no JSON.
    ManifestGarbage,
    /// The manifest is a page of HTML, with status 200.
    ManifestPage,
    /// The manifest is not what its digest says.
    ManifestWrongDigest,
    /// The manifest is of Docker's first schema.
    ManifestSchema1,
    /// The index has variants for other platforms only.
    OtherPlatform,
    /// The index names a manifest that is not there.
    VariantUnknown,
    /// An artifact that is no image: its configuration and its layer have types of their own.
    Artifact,
    /// An image without layers.
    NoLayers,
    /// The configuration is not there.
    ConfigUnknown,
    /// The layer has other bytes than its digest says.
    BlobWrongContent,
    /// The layer ends before its length.
    BlobTruncated,
    /// The layer stops in the middle.
    BlobHangs,
    /// The layer is no archive.
    LayerNotTar,
    /// The configuration names another layer than the manifest has.
    WrongDiffId,
    /// The layer is larger than any disk of a test.
    HugeLayer,
}

impl Misbehaviour {
    /// Every one of them.
    pub const ALL: &[Self] = &[
        Self::None,
        Self::UnauthorizedWithoutChallenge,
        Self::UnauthorizedBasic,
        Self::TokenUnauthorized,
        Self::TokenForbidden,
        Self::TokenRateLimited,
        Self::TokenUnavailable,
        Self::TokenGarbage,
        Self::TokenClosed,
        Self::TokenUseless,
        Self::Forbidden,
        Self::ForbiddenByProxy,
        Self::ManifestUnknown,
        Self::NameUnknown,
        Self::NotFoundPage,
        Self::BlobUnknown,
        Self::RateLimited,
        Self::RateLimitedManifest,
        Self::RateLimitedBlob,
        Self::InternalServerError,
        Self::BadGateway,
        Self::ServiceUnavailable,
        Self::GatewayTimeout,
        Self::BlobServerError,
        Self::RedirectLoop,
        Self::BlobRedirectForbidden,
        Self::BlobRedirectRefused,
        Self::ConnectionClosed,
        Self::ConnectionReset,
        Self::ConnectionHangs,
        Self::ManifestGarbage,
        Self::ManifestPage,
        Self::ManifestWrongDigest,
        Self::ManifestSchema1,
        Self::OtherPlatform,
        Self::VariantUnknown,
        Self::Artifact,
        Self::NoLayers,
        Self::ConfigUnknown,
        Self::BlobWrongContent,
        Self::BlobTruncated,
        Self::BlobHangs,
        Self::LayerNotTar,
        Self::WrongDiffId,
        Self::HugeLayer,
    ];

    /// The repository that goes wrong in this way: the name with dashes.
    #[must_use]
    pub fn repository(self) -> String {
        let mut repository = String::new();
        for character in format!("{self:?}").chars() {
            if character.is_ascii_uppercase() && !repository.is_empty() {
                repository.push('-');
            }
            repository.push(character.to_ascii_lowercase());
        }
        repository
    }

    /// What goes wrong with this repository.
    pub(super) fn of(repository: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.repository() == repository)
    }
}
