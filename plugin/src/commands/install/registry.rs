//! What a registry in the cluster is known by: its certificate, and the passwords of those who push and of those who pull.
//!
//! They are made here, with the rights of the person who installs, so that nothing in the cluster needs a right on Secrets for it. The
//! authority signs one certificate and its key is forgotten: nobody can steal it, and a renewal makes another. Both are valid for ten
//! years; `install` and `upgrade` renew them when less than a third of that is left, and keep the old authority beside the new one, so
//! that relays know the registry before and after it begins with the new certificate. Passwords stay until somebody deletes their
//! Secret.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coral_api::keys;
use jiff::{Timestamp, tz::TimeZone};
use kube::{Client, api::DynamicObject};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::pem::Pem;

use crate::{apply, client::Cluster, error::Error, installation::PART_OF, manifests};

/// Name of the component.
pub(super) const COMPONENT: &str = "registry";

const TLS: &str = "coral-registry-tls";
const USERS: &str = "coral-registry-users";
const PULL: &str = "coral-registry-pull";
/// Annotation of the registry's pods that changes with the certificate, so that they begin anew with it.
const CERTIFICATE_ANNOTATION: &str = "image.stvz.io/registry-certificate";

/// Years for which a certificate is valid.
const YEARS: i16 = 10;
/// Bytes of a password: more than anybody can guess, so that its hash need not be slow.
const PASSWORD_BYTES: usize = 24;
/// Rounds of the hash, as a power of two: the least that bcrypt has, for the registry works them off at every request.
const HASH_COST: u32 = 4;

/// What there is already.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Data of the Secrets, as the API writes them, by name.
    secrets: Map<String, Value>,
    /// Size of the volume, which cannot be changed once there is a `StatefulSet`.
    storage: Option<Value>,
}

/// Where a `StatefulSet` says how large a volume is to be.
const STORAGE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";

/// The certificate or a password could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("failed to make the certificate of the registry")]
    Certificate(#[from] rcgen::Error),
    #[error("failed to make a password")]
    Random(#[source] getrandom::Error),
    #[error("failed to make the hash of a password")]
    Hash(#[from] bcrypt::BcryptError),
}

impl Known {
    /// Looks at what is in the cluster.
    pub(super) async fn read(cluster: &Cluster, namespace: &str) -> Result<Self, Error> {
        let (resource, _) = manifests::resource(&json!({"apiVersion": "v1", "kind": "Secret"}));
        let mut known = Self::default();
        for name in [TLS, keys::REGISTRY_CA_SECRET, USERS, keys::REGISTRY_PUSH_SECRET, PULL] {
            let secret: Option<DynamicObject> = cluster
                .request(async |client: Client| apply::api(client, &resource, Some(namespace)).get_opt(name).await)
                .await?;
            if let Some(secret) = secret {
                known.secrets.insert(name.to_owned(), secret.data["data"].clone());
            }
        }
        let (resource, _) = manifests::resource(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet"}));
        let name = keys::REGISTRY_SERVICE;
        let set: Option<DynamicObject> = cluster
            .request(async |client: Client| apply::api(client, &resource, Some(namespace)).get_opt(name).await)
            .await?;
        known.storage = set.and_then(|set| set.data.pointer(STORAGE).cloned());
        Ok(known)
    }

    fn data(&self, secret: &str, key: &str) -> Option<String> {
        let data = STANDARD.decode(self.secrets.get(secret)?[key].as_str()?).ok()?;
        String::from_utf8(data).ok()
    }
}

/// Adds the Secrets to the objects of an installation, and says in the registry's pods which certificate they have.
pub(super) fn complete(
    objects: &mut Vec<Value>,
    known: &Known,
    namespace: &str,
    now: Timestamp,
) -> Result<(), RegistryError> {
    let certificate = Certificate::keep_or_make(known, namespace, now)?;
    let users = Users::keep_or_make(known, namespace)?;
    let secret = |name: &str, kind: &str, data: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {PART_OF.0: PART_OF.1}},
            "type": kind,
            "data": data,
        })
    };
    let text = |text: &str| Value::from(STANDARD.encode(text));
    let secrets = [
        secret(
            TLS,
            "kubernetes.io/tls",
            json!({"tls.crt": text(&certificate.pem), "tls.key": text(&certificate.key)}),
        ),
        secret(
            keys::REGISTRY_CA_SECRET,
            "Opaque",
            json!({"ca.crt": text(&certificate.authorities)}),
        ),
        secret(
            USERS,
            "Opaque",
            json!({"push": text(&users.push_hash), "pull": text(&users.pull_hash)}),
        ),
        secret(
            keys::REGISTRY_PUSH_SECRET,
            "kubernetes.io/dockerconfigjson",
            json!({".dockerconfigjson": text(&users.push_config)}),
        ),
        secret(
            PULL,
            "Opaque",
            json!({"username": text(PULL_USER), "password": text(&users.pull_password)}),
        ),
    ];
    for object in objects.iter_mut() {
        if object["kind"] == "StatefulSet" && object["metadata"]["name"] == keys::REGISTRY_SERVICE {
            let digest = hex(&Sha256::digest(&certificate.pem)[..8]);
            object["spec"]["template"]["metadata"]["annotations"][CERTIFICATE_ANNOTATION] = digest.into();
            if let (Some(known), Some(storage)) = (&known.storage, object.pointer_mut(STORAGE)) {
                *storage = known.clone();
            }
        }
    }
    // Before what mounts them, and after their namespace.
    let index = objects.iter().position(|object| {
        !["Namespace", "CustomResourceDefinition"].contains(&object["kind"].as_str().unwrap_or_default())
    });
    let index = index.unwrap_or(objects.len());
    objects.splice(index..index, secrets);
    Ok(())
}

struct Certificate {
    pem: String,
    key: String,
    /// The authority, and after it the one before.
    authorities: String,
}

impl Certificate {
    fn keep_or_make(known: &Known, namespace: &str, now: Timestamp) -> Result<Self, RegistryError> {
        let authorities = known.data(keys::REGISTRY_CA_SECRET, "ca.crt");
        let kept = known.data(TLS, "tls.crt").zip(known.data(TLS, "tls.key"));
        match (kept, authorities) {
            (Some((pem, key)), Some(authorities)) if is_good(&pem, &host(namespace), now) => {
                Ok(Self { pem, key, authorities })
            }
            (_, authorities) => Self::make(authorities.as_deref(), namespace, now),
        }
    }

    fn make(before: Option<&str>, namespace: &str, now: Timestamp) -> Result<Self, RegistryError> {
        let named = |what: &str| {
            let mut name = DistinguishedName::new();
            name.push(DnType::CommonName, what.to_owned());
            name
        };
        let valid = |params: &mut CertificateParams| {
            let today = now.to_zoned(TimeZone::UTC).date();
            let date = |year: i16| rcgen::date_time_ymd(year.into(), today.month().cast_unsigned(), 1);
            // From the first of the month: clocks differ.
            params.not_before = date(today.year());
            params.not_after = date(today.year() + YEARS);
        };
        let mut authority = CertificateParams::default();
        // Each has a name of its own, so that a client with several of them knows which one signed.
        authority.distinguished_name = named(&format!("coral-registry authority of {now:.3}"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut authority);
        let authority_key = KeyPair::generate()?;
        let mut authorities = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut server = CertificateParams::new([host(namespace), "localhost".to_owned()])?;
        server.distinguished_name = named("coral-registry");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        valid(&mut server);
        let key = KeyPair::generate()?;
        let pem = server.signed_by(&key, &issuer)?.pem();
        if let Some(before) = before.and_then(first_certificate) {
            authorities.push_str(&before);
        }
        Ok(Self {
            pem,
            key: key.serialize_pem(),
            authorities,
        })
    }
}

/// How the registry is called in the cluster.
fn host(namespace: &str) -> String {
    format!("{}.{namespace}.svc", keys::REGISTRY_SERVICE)
}

/// Whether a certificate is for this host and has a third of its time left.
fn is_good(certificate: &str, host: &str, now: Timestamp) -> bool {
    let Some(Ok(pem)) = Pem::iter_from_buffer(certificate.as_bytes()).next() else {
        return false;
    };
    let Ok(parsed) = pem.parse_x509() else {
        return false;
    };
    let (begin, end) = (
        parsed.validity().not_before.timestamp(),
        parsed.validity().not_after.timestamp(),
    );
    let names = parsed.subject_alternative_name().ok().flatten();
    let is_host = |name: &x509_parser::extensions::GeneralName<'_>| matches!(name, x509_parser::extensions::GeneralName::DNSName(name) if *name == host);
    names.is_some_and(|names| names.value.general_names.iter().any(is_host))
        && end - now.as_second() > (end - begin) / 3
}

fn first_certificate(authorities: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let (first, _) = authorities.split_once(END)?;
    Some(format!("{first}{END}"))
}

const PUSH_USER: &str = "coral-push";
const PULL_USER: &str = "coral-pull";

struct Users {
    push_config: String,
    pull_password: String,
    push_hash: String,
    pull_hash: String,
}

impl Users {
    /// Keeps passwords whose hashes are there, too: bcrypt's are salted, so that new ones would be other ones.
    fn keep_or_make(known: &Known, namespace: &str) -> Result<Self, RegistryError> {
        let config = known.data(keys::REGISTRY_PUSH_SECRET, ".dockerconfigjson");
        let config = config.filter(|config| config.contains(&format!("{}:", host(namespace))));
        let push = config.zip(known.data(USERS, "push"));
        let pull = known.data(PULL, "password").zip(known.data(USERS, "pull"));
        let (push_config, push_hash) = if let Some(push) = push {
            push
        } else {
            let password = password()?;
            let login = STANDARD.encode(format!("{PUSH_USER}:{password}"));
            let place = format!("{}:{}", host(namespace), keys::REGISTRY_PUSH_PORT);
            let config = json!({"auths": {place: {"auth": login}}});
            (config.to_string(), hashed(PUSH_USER, &password)?)
        };
        let (pull_password, pull_hash) = if let Some(pull) = pull {
            pull
        } else {
            let password = password()?;
            let hash = hashed(PULL_USER, &password)?;
            (password, hash)
        };
        Ok(Self {
            push_config,
            pull_password,
            push_hash,
            pull_hash,
        })
    }
}

fn password() -> Result<String, RegistryError> {
    let mut bytes = [0; PASSWORD_BYTES];
    getrandom::fill(&mut bytes).map_err(RegistryError::Random)?;
    Ok(hex(&bytes))
}

/// A line of the file of users.
fn hashed(user: &str, password: &str) -> Result<String, RegistryError> {
    Ok(format!("{user}:{}\n", bcrypt::hash(password, HASH_COST)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";

    /// The objects, as `complete` leaves them.
    fn completed(known: &Known, namespace: &str, now: Timestamp) -> Vec<Value> {
        let mut objects = manifests::compose(&[COMPONENT]).unwrap();
        complete(&mut objects, known, namespace, now).unwrap();
        objects
    }

    fn secrets(objects: &[Value]) -> Known {
        let secrets = objects
            .iter()
            .filter(|object| object["kind"] == "Secret" && object["data"].is_object());
        let entry = |object: &Value| {
            (
                object["metadata"]["name"].as_str().unwrap().to_owned(),
                object["data"].clone(),
            )
        };
        Known {
            secrets: secrets.map(entry).collect(),
            storage: Some("7Gi".into()),
        }
    }

    fn annotation(objects: &[Value]) -> String {
        let set = objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
        set["spec"]["template"]["metadata"]["annotations"][CERTIFICATE_ANNOTATION].to_string()
    }

    fn authorities(known: &Known) -> usize {
        let authorities = known.data(keys::REGISTRY_CA_SECRET, "ca.crt").unwrap();
        authorities.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn every_secret_that_is_mounted_is_made_with_the_keys_that_are_read() {
        let now: Timestamp = NOW.parse().unwrap();
        let objects = completed(&Known::default(), "coral-system", now);
        let made = secrets(&objects);
        let mut mounted = 0;
        for object in &objects {
            let volumes = object["spec"]["template"]["spec"]["volumes"].as_array();
            for name in volumes
                .into_iter()
                .flatten()
                .filter_map(|volume| volume["secret"]["secretName"].as_str())
            {
                assert!(made.secrets.contains_key(name) || name.contains("webhook"), "{name}");
                mounted += 1;
            }
        }
        assert_eq!(mounted, 4);
        let config: Value =
            serde_json::from_str(&made.data(keys::REGISTRY_PUSH_SECRET, ".dockerconfigjson").unwrap()).unwrap();
        let login = config["auths"]["coral-registry.coral-system.svc:5000"]["auth"]
            .as_str()
            .unwrap();
        let login = String::from_utf8(STANDARD.decode(login).unwrap()).unwrap();
        let (user, password) = login.split_once(':').unwrap();
        for (file, user, password) in [
            ("push", user, password),
            ("pull", PULL_USER, &made.data(PULL, "password").unwrap()),
        ] {
            let line = made.data(USERS, file).unwrap();
            let hash = line.trim_end().strip_prefix(&format!("{user}:")).unwrap();
            assert!(bcrypt::verify(password, hash).unwrap());
        }
        assert_ne!(made.data(PULL, "password").unwrap(), password);
    }

    #[test]
    fn what_is_there_and_good_stays() {
        let now: Timestamp = NOW.parse().unwrap();
        let first = completed(&Known::default(), "images", now);
        let later = completed(&secrets(&first), "images", now + (4 * 365 * 24).hours());
        let size = |objects: &[Value]| {
            let set = objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
            set.pointer(STORAGE).unwrap().clone()
        };
        assert_eq!(
            (size(&first), size(&later)),
            ("50Gi".into(), "7Gi".into()),
            "a volume cannot be changed"
        );
        assert_eq!(annotation(&first), annotation(&later));
        let others = |objects: Vec<Value>| objects.into_iter().filter(|object| object["kind"] != "StatefulSet");
        assert!(others(first).eq(others(later)));
    }

    #[test]
    fn certificate_is_renewed_in_time_and_both_authorities_are_known_for_a_while() {
        let now: Timestamp = NOW.parse().unwrap();
        let first = completed(&Known::default(), "images", now);
        let known = secrets(&first);
        let later = completed(&known, "images", now + (7 * 365 * 24).hours());
        let renewed = secrets(&later);
        assert_ne!(known.data(TLS, "tls.crt"), renewed.data(TLS, "tls.crt"));
        assert_ne!(annotation(&first), annotation(&later));
        assert_eq!((authorities(&known), authorities(&renewed)), (1, 2));
        assert_eq!(known.data(USERS, "push"), renewed.data(USERS, "push"));
        let last = secrets(&completed(&renewed, "images", now + (14 * 365 * 24).hours()));
        assert_eq!(authorities(&last), 2, "the oldest has gone");
        // In another namespace it has another name.
        assert_ne!(
            secrets(&completed(&known, "other", now)).data(TLS, "tls.crt"),
            known.data(TLS, "tls.crt")
        );
    }
}
