//! The cluster's own certificate authority, and what it signs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::layout::Layout;

/// Who a certificate is for: the user name and the group that the API server sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The common name; the user.
    pub user: String,
    /// The organization; the group.
    pub group: Option<String>,
    /// Host names and IP addresses, for servers.
    pub hosts: Vec<String>,
}

impl Subject {
    /// A user who is in a group, or in none.
    #[must_use]
    pub fn user(user: &str, group: Option<&str>) -> Self {
        Self {
            user: user.to_owned(),
            group: group.map(str::to_owned),
            hosts: Vec::new(),
        }
    }

    /// A server that is called by these names.
    #[must_use]
    pub fn server(user: &str, hosts: impl IntoIterator<Item = impl ToString>) -> Self {
        let hosts = hosts.into_iter().map(|host| host.to_string()).collect();
        Self {
            user: user.to_owned(),
            group: None,
            hosts,
        }
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// The authority. Its files lie in the cluster's directory, so that nodes can join later.
pub struct Authority {
    dir: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the cluster's authority, or makes it.
    pub fn open(layout: &Layout) -> Result<Self> {
        let dir = layout.certificates();
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let key_file = dir.join("ca.key");
        let key = if key_file.exists() {
            let text = fs::read_to_string(&key_file).with_context(|| format!("read {}", key_file.display()))?;
            KeyPair::from_pem(&text).with_context(|| format!("understand {}", key_file.display()))?
        } else {
            let key = KeyPair::generate().context("make a key")?;
            let certificate = authority_params()
                .self_signed(&key)
                .context("make a certificate authority")?;
            write(&dir.join("ca.crt"), &certificate.pem())?;
            write(&key_file, &key.serialize_pem())?;
            key
        };
        let certificate_file = dir.join("ca.crt");
        let certificate =
            fs::read_to_string(&certificate_file).with_context(|| format!("read {}", certificate_file.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .with_context(|| format!("understand {}", certificate_file.display()))?;
        Ok(Self {
            dir,
            certificate,
            issuer,
        })
    }

    /// The authority's own certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The path of `name` among the certificates.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Signs a certificate.
    pub fn sign(&self, subject: &Subject) -> Result<Certificate> {
        let mut params = CertificateParams::new(subject.hosts.clone()).context("name a server")?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, subject.user.as_str());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if let Some(group) = &subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign the certificate of {}", subject.user))?;
        Ok(Certificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Signs a certificate once, as `NAME.crt` and `NAME.key`.
    pub fn sign_to_files(&self, name: &str, subject: &Subject) -> Result<()> {
        if self.path(&format!("{name}.key")).exists() {
            return Ok(());
        }
        let signed = self.sign(subject)?;
        write(&self.path(&format!("{name}.crt")), &signed.certificate)?;
        write(&self.path(&format!("{name}.key")), &signed.key)
    }

    /// Makes a key that signs ServiceAccount tokens, as `NAME.key` and `NAME.pub`.
    pub fn make_key_pair(&self, name: &str) -> Result<()> {
        if self.path(&format!("{name}.key")).exists() {
            return Ok(());
        }
        let key = KeyPair::generate().context("make a key")?;
        write(&self.path(&format!("{name}.pub")), &key.public_key_pem())?;
        write(&self.path(&format!("{name}.key")), &key.serialize_pem())
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "coral test cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_is_made_once_and_signs() {
        let dir = std::env::temp_dir().join(format!("coral-certificates-{}", std::process::id()));
        let layout = Layout::new(&dir).unwrap();
        let first = Authority::open(&layout).unwrap();
        let second = Authority::open(&layout).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        let server = Subject::server("registry", ["198.18.0.1", "localhost"]);
        assert!(
            second
                .sign(&server)
                .unwrap()
                .certificate
                .starts_with("-----BEGIN CERTIFICATE-----")
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
