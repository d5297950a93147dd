//! The certificates as the Secret has them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    authority::{Pair, issue, make_authority},
    plan::{Dated, Next, Previous, Serving, Settings, Step, Stored, certificate_end},
    validity,
};

/// Entries of the Secret; the first four have the names that other tools use, too.
pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const NEXT: &str = "next-ca.crt";
const NEXT_KEY: &str = "next-ca.key";
const NEXT_PUBLISHED: &str = "next-ca-published";
const PREVIOUS: &str = "previous-ca.crt";
const PREVIOUS_SINCE: &str = "previous-ca-since";

/// The data of a Secret.
pub(crate) type Data = BTreeMap<String, ByteString>;

impl Stored {
    /// Reads the data of the Secret. What cannot be read is taken for not there.
    pub(crate) fn read(data: &Data, settings: &Settings) -> Self {
        let text = |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        let dated = |certificate: &str, key: &str| {
            let pair = Pair {
                certificate: text(certificate)?,
                key: text(key)?,
            };
            rcgen::KeyPair::from_pem(&pair.key).ok()?;
            let validity = validity(&CertificateDer::from_pem_slice(pair.certificate.as_bytes()).ok()?).ok()?;
            Some(Dated { pair, validity })
        };
        let time = |key: &str| text(key)?.parse::<Timestamp>().ok();
        let authority = dated(AUTHORITY, AUTHORITY_KEY);
        let serving = dated(CERTIFICATE, KEY).map(|dated| Serving {
            is_right: authority.as_ref().is_some_and(|authority| {
                is_right(&dated.pair.certificate, &authority.pair.certificate, &settings.hosts)
            }),
            dated,
        });
        Self {
            serving,
            authority,
            next: dated(NEXT, NEXT_KEY).map(|dated| Next {
                dated,
                published: time(NEXT_PUBLISHED),
            }),
            previous: text(PREVIOUS)
                .filter(|text| is_certificate(text))
                .map(|certificate| Previous {
                    certificate,
                    // One without a time is kept for one overlap at least: it counts from when it is first written.
                    since: time(PREVIOUS_SINCE).unwrap_or(Timestamp::UNIX_EPOCH),
                }),
        }
    }

    /// The data of the Secret.
    pub(crate) fn write(&self) -> Data {
        let mut data = Data::new();
        let mut insert = |key: &str, text: String| {
            data.insert(key.to_owned(), ByteString(text.into_bytes()));
        };
        if let Some(Dated { pair, .. }) = &self.authority {
            insert(AUTHORITY, pair.certificate.clone());
            insert(AUTHORITY_KEY, pair.key.clone());
        }
        if let Some(Dated { pair, .. }) = self.serving.as_ref().map(|serving| &serving.dated) {
            insert(CERTIFICATE, pair.certificate.clone());
            insert(KEY, pair.key.clone());
        }
        if let Some(Next { dated, published }) = &self.next {
            insert(NEXT, dated.pair.certificate.clone());
            insert(NEXT_KEY, dated.pair.key.clone());
            if let Some(published) = published {
                insert(NEXT_PUBLISHED, published.to_string());
            }
        }
        if let Some(Previous { certificate, since }) = &self.previous {
            insert(PREVIOUS, certificate.clone());
            insert(PREVIOUS_SINCE, since.to_string());
        }
        data
    }

    /// Every authority that the API server is to know, in PEM. Empty when there is none.
    pub(crate) fn bundle(&self) -> String {
        let certificates = [
            self.authority.as_ref().map(|dated| &dated.pair.certificate),
            self.next.as_ref().map(|next| &next.dated.pair.certificate),
            self.previous.as_ref().map(|previous| &previous.certificate),
        ];
        let mut bundle = String::new();
        for certificate in certificates.into_iter().flatten() {
            bundle.push_str(certificate.trim());
            bundle.push('\n');
        }
        bundle
    }

    /// What is stored after a step.
    pub(crate) fn after(mut self, step: Step, settings: &Settings, now: Timestamp) -> Result<Self, rcgen::Error> {
        match step {
            Step::Wait(_) => {}
            Step::MakeAll => {
                self.authority = Some(new_authority(settings, now)?);
                self.next = None;
                self.issue(settings, now)?;
            }
            Step::Issue => self.issue(settings, now)?,
            Step::PrepareNext => {
                self.next = Some(Next {
                    dated: new_authority(settings, now)?,
                    published: None,
                });
            }
            Step::NotePublished => {
                if let Some(next) = &mut self.next {
                    next.published = Some(now);
                }
            }
            Step::Promote => {
                if let Some(next) = self.next.take() {
                    let before = self.authority.replace(next.dated);
                    self.previous = before.map(|dated| Previous {
                        certificate: dated.pair.certificate,
                        since: now,
                    });
                    self.issue(settings, now)?;
                }
            }
            Step::DropPrevious => self.previous = None,
        }
        Ok(self)
    }

    fn issue(&mut self, settings: &Settings, now: Timestamp) -> Result<(), rcgen::Error> {
        if let Some(authority) = &self.authority {
            let end = certificate_end(&authority.validity, settings, now);
            let pair = issue(&authority.pair, &settings.hosts, now, end)?;
            self.serving = Some(Serving {
                dated: with_validity(pair)?,
                is_right: true,
            });
        }
        Ok(())
    }
}

fn new_authority(settings: &Settings, now: Timestamp) -> Result<Dated, rcgen::Error> {
    with_validity(make_authority(now, settings.authority_validity)?)
}

fn with_validity(pair: Pair) -> Result<Dated, rcgen::Error> {
    let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    let der = der.map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    let validity = validity(&der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok(Dated { pair, validity })
}

fn is_certificate(text: &str) -> bool {
    CertificateDer::from_pem_slice(text.as_bytes()).is_ok()
}

/// Whether `authority` signed `certificate`, for all of `hosts`.
fn is_right(certificate: &str, authority: &str, hosts: &[String]) -> bool {
    let (Ok(certificate), Ok(authority)) = (
        CertificateDer::from_pem_slice(certificate.as_bytes()),
        CertificateDer::from_pem_slice(authority.as_bytes()),
    ) else {
        return false;
    };
    let (Ok((_, certificate)), Ok((_, authority))) = (
        x509_parser::parse_x509_certificate(&certificate),
        x509_parser::parse_x509_certificate(&authority),
    ) else {
        return false;
    };
    let names: Vec<&str> = match certificate.subject_alternative_name() {
        Ok(Some(names)) => {
            let names = names.value.general_names.iter();
            names
                .filter_map(|name| match name {
                    x509_parser::extensions::GeneralName::DNSName(name) => Some(*name),
                    _ => None,
                })
                .collect()
        }
        _ => Vec::new(),
    };
    hosts.iter().all(|host| names.contains(&host.as_str()))
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::certificate::plan::next_step;

    fn settings() -> Settings {
        Settings {
            hosts: vec!["coral-webhook.coral-system.svc".to_owned()],
            authority_validity: SignedDuration::from_hours(900),
            certificate_validity: SignedDuration::from_hours(90),
            overlap: SignedDuration::from_hours(2),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (settings, now) = (settings(), Timestamp::from_second(1_800_000_000).unwrap());
        let mut stored = Stored::default();
        for step in [
            Step::MakeAll,
            Step::PrepareNext,
            Step::NotePublished,
            Step::Promote,
            Step::PrepareNext,
        ] {
            stored = stored.after(step, &settings, now).unwrap();
            let data = stored.write();
            let read = Stored::read(&data, &settings);
            assert_eq!(read.write(), data, "after {step:?}");
            assert!(read.serving.unwrap().is_right, "after {step:?}");
        }
        assert_eq!(stored.bundle().matches("BEGIN CERTIFICATE").count(), 3);
    }

    #[test]
    fn certificates_of_others_and_for_others_are_not_right() {
        let (settings, now) = (settings(), Timestamp::from_second(1_800_000_000).unwrap());
        let stored = Stored::default().after(Step::MakeAll, &settings, now).unwrap();
        let mut data = stored.write();
        let elsewhere = Settings {
            hosts: vec!["coral-webhook.other.svc".to_owned()],
            ..settings.clone()
        };
        assert!(!Stored::read(&data, &elsewhere).serving.unwrap().is_right);
        let other = Stored::default().after(Step::MakeAll, &settings, now).unwrap().write();
        data.insert(AUTHORITY.to_owned(), other[AUTHORITY].clone());
        assert!(!Stored::read(&data, &settings).serving.unwrap().is_right);
        for garbage in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            for key in [CERTIFICATE, KEY, AUTHORITY, AUTHORITY_KEY] {
                let mut data = other.clone();
                data.insert(key.to_owned(), ByteString(garbage.as_bytes().to_vec()));
                let stored = Stored::read(&data, &settings);
                assert!(
                    !matches!(next_step(&stored, &settings, true, now), Step::Wait(_)),
                    "{key}: {garbage}"
                );
            }
        }
    }

    /// Plays a year. API servers know the `caBundle` of one overlap ago, replicas show the certificate of one overlap ago.
    #[test]
    fn at_any_time_every_certificate_that_is_shown_is_known() {
        let settings = settings();
        let mut now = Timestamp::from_second(1_800_000_000).unwrap();
        let end = now + SignedDuration::from_hours(24 * 365);
        let mut stored = Stored::default();
        let mut bundles: Vec<(Timestamp, String)> = Vec::new();
        let mut shown: Vec<(Timestamp, String)> = Vec::new();
        let (mut steps, mut promotions) = (0, 0);
        while now < end {
            let step = next_step(
                &stored,
                &settings,
                bundles.last().is_some_and(|(_, last)| *last == stored.bundle()),
                now,
            );
            steps += 1;
            assert!(steps < 2_000, "it does not come to rest");
            promotions += u32::from(step == Step::Promote);
            stored = stored.after(step, &settings, now).unwrap();
            if bundles.last().is_none_or(|(_, last)| *last != stored.bundle()) {
                bundles.push((now, stored.bundle()));
            }
            let serving = stored.serving.as_ref().unwrap().dated.clone();
            if shown.last().is_none_or(|(_, last)| *last != serving.pair.certificate) {
                shown.push((now, serving.pair.certificate));
            }
            assert!(serving.validity.not_after > now);
            // What may be in use within the last overlap.
            let recent = |list: &[(Timestamp, String)]| -> Vec<String> {
                let current = list
                    .iter()
                    .rposition(|(since, _)| *since + settings.overlap <= now)
                    .unwrap_or(0);
                list[current..].iter().map(|(_, text)| text.clone()).collect()
            };
            let first = bundles[0].0;
            for bundle in recent(&bundles).iter().filter(|_| now > first) {
                for certificate in recent(&shown) {
                    let is_known = bundle
                        .split_inclusive("-----END CERTIFICATE-----\n")
                        .any(|authority| is_right(&certificate, authority, &settings.hosts));
                    assert!(
                        is_known,
                        "at {now} a certificate is shown that some API server does not know"
                    );
                }
            }
            now = match step {
                Step::Wait(until) => until.max(now + SignedDuration::from_secs(1)),
                _ => now + SignedDuration::from_millis(500),
            };
        }
        assert!(promotions > 12, "only {promotions} roll-overs");
    }
}
