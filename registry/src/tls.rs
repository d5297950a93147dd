//! How registries are known: the authorities that vouch for them.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// The text is not a list of certificates in PEM form.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the certificate authorities are not certificates in PEM form")]
pub struct InvalidAuthorities;

/// A configuration that trusts the system's authorities, or Mozilla's where the system has none, and `authorities`.
pub(crate) fn config(authorities: &[&[u8]]) -> Result<ClientConfig, InvalidAuthorities> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for text in authorities {
        add(&mut roots, text)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| InvalidAuthorities)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Whether a [`crate::Client`] takes these as authorities: certificates in PEM form, or nothing.
pub fn check_authorities(authorities: &[u8]) -> Result<(), InvalidAuthorities> {
    add(&mut RootCertStore::empty(), authorities)
}

fn add(roots: &mut RootCertStore, authorities: &[u8]) -> Result<(), InvalidAuthorities> {
    let own: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(authorities)
        .collect::<Result<_, _>>()
        .map_err(|_| InvalidAuthorities)?;
    if own.is_empty() && !authorities.is_empty() {
        return Err(InvalidAuthorities);
    }
    for certificate in own {
        roots.add(certificate).map_err(|_| InvalidAuthorities)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_certificates() {
        assert!(config(&[b""]).is_ok());
        for bad in [
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n",
        ] {
            assert!(config(&[bad.as_bytes()]).is_err(), "{bad}");
            assert!(check_authorities(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
