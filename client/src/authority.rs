//! Who may issue certificates, of those that are trusted.
//!
//! webpki takes any certificate it is given as an anchor, whatever is in it: a server's own certificate, which is given to
//! trust that server, could issue others. What an authority's certificate says of itself is looked at here.

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};

/// Trusted certificates that may issue others.
#[derive(Debug, Default)]
pub(crate) struct Authorities(Vec<Authority>);

#[derive(Debug)]
struct Authority {
    anchor: TrustAnchor<'static>,
    /// In seconds since 1970.
    valid: std::ops::RangeInclusive<i64>,
}

impl Authorities {
    /// Adds a certificate if it may issue others. `false` if it is malformed.
    pub fn add(&mut self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(anchor) = webpki::anchor_from_trusted_cert(certificate) else { return false };
        let Some(said) = Said::parse(certificate) else { return false };
        if said.may_issue() {
            self.0.push(Authority { anchor: anchor.to_owned(), valid: said.from..=said.until });
        }
        true
    }

    /// Those that hold at a time.
    pub fn at(&self, time: UnixTime) -> RootCertStore {
        let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.0.iter().filter(|a| a.valid.contains(&time)).map(|a| a.anchor.clone()).collect()
    }

    /// All, whenever they hold.
    pub fn ever(&self) -> RootCertStore {
        self.0.iter().map(|a| a.anchor.clone()).collect()
    }
}

/// Those of a chain that may be between a server's certificate and an authority's.
pub(crate) fn issuers<'a>(chain: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let may_issue = |c: &&CertificateDer<'_>| Said::parse(c).is_some_and(|said| said.may_issue());
    chain.iter().filter(may_issue).cloned().collect()
}

/// What a certificate says of itself.
struct Said {
    issued_itself: bool,
    /// False in version 1.
    has_extensions: bool,
    authority: bool,
    signs_certificates: bool,
    from: i64,
    until: i64,
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 19];
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 15];
const KEY_CERT_SIGN: u8 = 0x04;

impl Said {
    fn may_issue(&self) -> bool {
        if self.has_extensions { self.authority && self.signs_certificates } else { self.issued_itself }
    }

    fn parse(certificate: &[u8]) -> Option<Said> {
        let mut fields = Der(Der(Der(certificate).of(SEQUENCE)?).of(SEQUENCE)?);
        let (first, _) = fields.any()?;
        let has_extensions = first == VERSION;
        if has_extensions {
            fields.of(INTEGER)?;
        }
        let (_algorithm, issuer) = (fields.of(SEQUENCE)?, fields.of(SEQUENCE)?);
        let (mut validity, subject) = (Der(fields.of(SEQUENCE)?), fields.of(SEQUENCE)?);
        let mut said = Said {
            issued_itself: issuer == subject,
            has_extensions,
            authority: false,
            signs_certificates: true,
            from: time(validity.any()?)?,
            until: time(validity.any()?)?,
        };
        while !fields.0.is_empty() {
            if let (EXTENSIONS, extensions) = fields.any()? {
                said.read(Der(extensions).of(SEQUENCE)?)?;
            }
        }
        Some(said)
    }

    fn read(&mut self, extensions: &[u8]) -> Option<()> {
        let mut extensions = Der(extensions);
        while !extensions.0.is_empty() {
            let mut extension = Der(extensions.of(SEQUENCE)?);
            let id = extension.of(OBJECT_ID)?;
            let value = match extension.any()? {
                (OCTET_STRING, value) => value,
                // Whether it is critical.
                _ => extension.of(OCTET_STRING)?,
            };
            if id == BASIC_CONSTRAINTS {
                self.authority = Der(Der(value).of(SEQUENCE)?).any() == Some((BOOLEAN, &[0xFF]));
            } else if id == KEY_USAGE {
                // The first byte counts the bits at the end that are not used.
                let bits = Der(value).of(BIT_STRING)?.get(1);
                self.signs_certificates = bits.is_some_and(|bits| bits & KEY_CERT_SIGN != 0);
            }
        }
        Some(())
    }
}

/// What is left to read of a run of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value's tag and content.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x83 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (length.iter().fold(0, |n, &b| n << 8 | usize::from(b)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn of(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.any().filter(|&(tag, _)| tag == wanted).map(|(_, content)| content)
    }
}

/// Seconds since 1970.
fn time((tag, value): (u8, &[u8])) -> Option<i64> {
    let digits = value.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, &d| n * 10 + i64::from(d - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 0..50 => (2000 + year, &digits[2..]),
            year => (1900 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |i: usize| number(&rest[2 * i..2 * i + 2]);
    let (month, day) = (part(0), part(1));
    // Years begin in March here, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + part(2)) * 60 + part(3)) * 60 + part(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};
    use std::time::Duration;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["name".into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2051, 1, 1);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn counts(certificate: &CertificateDer<'_>, second: u64) -> usize {
        let mut authorities = Authorities::default();
        assert!(authorities.add(certificate));
        authorities.at(UnixTime::since_unix_epoch(Duration::from_secs(second))).len()
    }

    #[test]
    fn authorities_count_in_their_time() {
        let authority = made(|_| {});
        for (second, count) in
            [(1_709_164_799, 0), (1_709_164_800, 1), (2_556_144_000, 1), (2_556_144_001, 0)]
        {
            assert_eq!(counts(&authority, second), count, "{second}");
        }
    }

    #[test]
    fn others_issue_nothing() {
        use KeyUsagePurpose::{DigitalSignature, KeyCertSign};
        let now = 2_000_000_000;
        assert_eq!(counts(&made(|p| p.key_usages = vec![KeyCertSign]), now), 1);
        let no_signer = made(|p| p.key_usages = vec![DigitalSignature]);
        let others = [no_signer, made(|p| p.is_ca = IsCa::NoCa), made(|p| p.is_ca = IsCa::ExplicitNoCa)];
        for other in &others {
            assert_eq!(counts(other, now), 0);
        }
        assert!(issuers(&others).is_empty());
        for end in 0..others[0].len() {
            assert!(!Authorities::default().add(&others[0][..end].into()));
        }
    }
}
