//! Certificates as far as one can tell from them whether they will do.

use std::time::Duration;

use jiff::Timestamp;
use x509_parser::{extensions::GeneralName, pem::Pem, prelude::X509Certificate, time::ASN1Time};

/// A certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Certificate {
    /// The certificate itself, by which it is recognised.
    der: Vec<u8>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// The names of the servers that it is for.
    pub(crate) hosts: Vec<String>,
}

/// Where a certificate stands in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Age {
    /// It is not valid yet, for so long.
    Early(Duration),
    /// It is valid for so long, and new enough.
    Good(Duration),
    /// It is valid for so long, and should have been replaced.
    Old(Duration),
    /// It has not been valid for so long.
    Over(Duration),
}

/// Reads every certificate of a PEM text; `None` where something in it is no certificate.
pub(crate) fn read_all(text: &[u8]) -> Option<Vec<Certificate>> {
    Pem::iter_from_buffer(text)
        .map(|pem| {
            let pem = pem.ok()?;
            let certificate = pem.parse_x509().ok()?;
            Certificate::of(&certificate, &pem.contents)
        })
        .collect()
}

impl Certificate {
    fn of(certificate: &X509Certificate<'_>, der: &[u8]) -> Option<Self> {
        let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        Some(Self {
            der: der.to_owned(),
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
            hosts: names
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
        })
    }

    /// Where it stands. The webhook replaces a certificate with a third of its time left, so one with less than a fifth is late.
    pub(crate) fn age(&self, now: Timestamp) -> Age {
        let between =
            |one: Timestamp, other: Timestamp| Duration::try_from(other.duration_since(one)).unwrap_or_default();
        let left = between(now, self.not_after);
        if now < self.not_before {
            Age::Early(between(now, self.not_before))
        } else if now >= self.not_after {
            Age::Over(between(self.not_after, now))
        } else if left < between(self.not_before, self.not_after) / 5 {
            Age::Old(left)
        } else {
            Age::Good(left)
        }
    }
}

#[cfg(test)]
pub(crate) fn sample(not_before: &str, not_after: &str, hosts: &[&str]) -> (Certificate, String) {
    let time = |text: &str| {
        let mut parts = text.split('-').map(|part| part.parse::<i32>().unwrap());
        let mut next = || parts.next().unwrap();
        let (year, month, day) = (next(), next(), next());
        rcgen::date_time_ymd(year, u8::try_from(month).unwrap(), u8::try_from(day).unwrap())
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters =
        rcgen::CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    parameters.not_before = time(not_before);
    parameters.not_after = time(not_after);
    let text = parameters.self_signed(&key).unwrap().pem();
    (read_all(text.as_bytes()).unwrap().remove(0), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_of_a_text_is_read() {
        let (first, one) = sample("2026-01-01", "2027-01-01", &["coral-webhook.coral-system.svc"]);
        let (second, other) = sample("2026-01-01", "2027-01-01", &[]);
        assert_eq!(first.hosts, ["coral-webhook.coral-system.svc"]);
        assert_ne!(first, second);
        assert_eq!(read_all(format!("{one}{other}").as_bytes()), Some(vec![first, second]));
        assert_eq!(read_all(b""), Some(Vec::new()));
        let broken = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert_eq!(read_all(broken.as_bytes()), None);
        assert_eq!(read_all(format!("{one}{broken}").as_bytes()), None);
    }

    #[test]
    fn a_certificate_is_old_with_less_than_a_fifth_left() {
        let (certificate, _) = sample("2026-01-01", "2026-01-11", &[]);
        let age = |text: &str| certificate.age(text.parse().unwrap());
        let days = |number: u64| Duration::from_hours(24 * number);
        for (now, expected) in [
            ("2025-12-31T00:00:00Z", Age::Early(days(1))),
            ("2026-01-01T00:00:00Z", Age::Good(days(10))),
            ("2026-01-09T00:00:00Z", Age::Good(days(2))),
            ("2026-01-10T00:00:00Z", Age::Old(days(1))),
            ("2026-01-11T00:00:00Z", Age::Over(days(0))),
            ("2026-01-13T00:00:00Z", Age::Over(days(2))),
        ] {
            assert_eq!(age(now), expected, "{now}");
        }
    }
}
