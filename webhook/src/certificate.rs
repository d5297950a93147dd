//! The certificate that the webhook shows, and where it comes from.
//!
//! ```text
//!   Secret ──watch──► keeper ──┐                     ┌──► every new connection
//!   --cert-dir ──look──► files ┴──► ServedCertificate ┘
//! ```

pub(crate) mod authority;
pub(crate) mod files;
pub(crate) mod keeper;
pub(crate) mod plan;
pub(crate) mod stored;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::metrics::Metrics;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to read the certificate")]
    Certificate(#[source] rustls::pki_types::pem::Error),
    #[error("failed to read the certificate: there is none")]
    NoCertificate,
    #[error("failed to read the key of the certificate")]
    Key(#[source] rustls::pki_types::pem::Error),
    #[error("failed to use the key with its certificate")]
    Pair(#[source] rustls::Error),
    #[error("failed to understand the certificate")]
    Der(#[source] x509_parser::asn1_rs::Err<x509_parser::error::X509Error>),
    #[error("failed to understand the certificate: its validity is out of any range")]
    Validity,
}

/// What new connections are shown. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ServedCertificate {
    current: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
    provider: Arc<CryptoProvider>,
    metrics: Metrics,
}

impl ServedCertificate {
    pub(crate) fn new(provider: Arc<CryptoProvider>, metrics: Metrics) -> Self {
        Self {
            current: Arc::default(),
            provider,
            metrics,
        }
    }

    /// Serves this certificate from now on. Connections that are open keep theirs.
    pub(crate) fn set(&self, certificate: &[u8], key: &[u8]) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(Error::Certificate)?;
        let not_after = validity(chain.first().ok_or(Error::NoCertificate)?)?.not_after;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &self.provider).map_err(Error::Pair)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        self.metrics.certificate_is(not_after);
        tracing::info!(expires = %not_after, "A certificate is served");
        Ok(())
    }
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(Error::Der)?;
    let time =
        |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| Error::Validity);
    Ok(Validity {
        not_before: time(parsed.validity().not_before)?,
        not_after: time(parsed.validity().not_after)?,
    })
}
