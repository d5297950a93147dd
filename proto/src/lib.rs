//! The protocols that Coral speaks with container runtimes, as Rust code made by prost and tonic.
//!
//! ```text
//!   agent ──gRPC over a unix socket──► containerd, CRI-O
//! ```
//!
//! # Compatibility
//!
//! The `.proto` files are written for Coral from the published interfaces, and hold only what Coral needs:
//!
//! - Names of packages, services, methods and fields, field numbers and types are those of the interface and never change.
//! - A field may be left out: protobuf passes over fields that it does not know.
//! - A message that carries credentials has no derived `Debug`.

use std::fmt;

/// Kubernetes Container Runtime Interface, `runtime.v1`.
pub mod runtime_v1 {
    #![allow(
        clippy::pedantic,
        clippy::use_self,
        unreachable_pub,
        missing_docs,
        reason = "generated from runtime/v1/api.proto"
    )]
    tonic::include_proto!("runtime.v1");
}

/// containerd's own API, `containerd.services`.
pub mod containerd {
    /// Blobs, and the downloads that are under way.
    pub mod content_v1 {
        #![allow(
            clippy::pedantic,
            clippy::use_self,
            unreachable_pub,
            missing_docs,
            reason = "generated from containerd/services/content/v1/content.proto"
        )]
        tonic::include_proto!("containerd.services.content.v1");
    }

    /// Image records and their labels.
    pub mod images_v1 {
        #![allow(
            clippy::pedantic,
            clippy::use_self,
            unreachable_pub,
            missing_docs,
            reason = "generated from containerd/services/images/v1/images.proto"
        )]
        tonic::include_proto!("containerd.services.images.v1");
    }
}

impl fmt::Debug for runtime_v1::AuthConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthConfig")
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::runtime_v1::{AuthConfig, ImageSpec, PullImageRequest};

    #[test]
    fn debug_holds_no_credential() {
        let request = PullImageRequest {
            image: Some(ImageSpec {
                image: "registry.example/app".into(),
                ..Default::default()
            }),
            auth: Some(AuthConfig {
                username: "hidden-user".into(),
                password: "hidden-password".into(),
                auth: "hidden-auth".into(),
                server_address: "registry.example".into(),
                identity_token: "hidden-identity".into(),
                registry_token: "hidden-token".into(),
            }),
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("registry.example"));
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
