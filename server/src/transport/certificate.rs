//! The few fields of an X.509 certificate that rustls keeps to itself: how long it holds, whose it is, who issued
//! it; and certificates of version 1.
//!
//! Nothing here decides whom to trust: a client's certificate was verified before its name is read.

use rustls::pki_types::CertificateDer;
use std::fmt::Write;

/// What of a certificate is a client's user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// The common name (CN).
    CommonName,
    /// The whole subject, as RFC 2253 writes it.
    Subject,
}

/// From when until when a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

/// The user name in `certificate` (DER), if it has one that is text.
pub(super) fn name(certificate: &[u8], naming: Naming) -> Option<String> {
    let subject = Fields::parse(certificate)?.subject;
    let name = match naming {
        Naming::CommonName => common_name(subject),
        Naming::Subject => distinguished_name(subject),
    }?;
    (!name.is_empty() && !name.contains(char::is_control)).then_some(name)
}

/// How long `certificate` (DER) holds, or `None` if it is none.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut fields = Der(Fields::parse(certificate)?.validity);
    Some(Validity { from: time(fields.any()?)?, until: time(fields.any()?)? })
}

/// Whether `issuer` (DER) may have issued `certificate` (DER), by its name; nothing is verified.
pub(super) fn is_issued_by(certificate: &[u8], issuer: &[u8]) -> bool {
    match (Fields::parse(certificate), Fields::parse(issuer)) {
        (Some(certificate), Some(issuer)) => certificate.issuer == issuer.subject,
        _ => false,
    }
}

/// Who issued `certificate` (DER), as its subject names itself.
pub(super) fn issuer(certificate: &[u8]) -> Option<&[u8]> {
    Some(Fields::parse(certificate)?.issuer)
}

/// Whose `certificate` (DER) is.
pub(super) fn subject(certificate: &[u8]) -> Option<&[u8]> {
    Some(Fields::parse(certificate)?.subject)
}

/// Until when a list of revoked certificates (DER) holds, in seconds since 1970.
pub(super) fn list_until(list: &[u8]) -> Option<i64> {
    let mut fields = Der(Der(Der(list).of(SEQUENCE)?).of(SEQUENCE)?);
    let (first, _) = fields.any()?;
    if first == INTEGER {
        fields.of(SEQUENCE)?;
    }
    let (_issuer, _this_update) = (fields.of(SEQUENCE)?, fields.any()?);
    time(fields.any()?)
}

/// A certificate of version 1, which has no extensions.
pub(super) struct Version1 {
    /// The same as version 3: all that was signed, and so the signature, is for version 1.
    pub(super) as_version_3: CertificateDer<'static>,
    /// The part of `as_version_3` that takes the place of what was signed.
    pub(super) shown: Vec<u8>,
    /// What was signed.
    pub(super) signed: Vec<u8>,
}

impl Version1 {
    /// `None` for other versions, and for what is no certificate.
    pub(super) fn parse(certificate: &[u8]) -> Option<Version1> {
        let mut outer = Der(certificate);
        let mut parts = Der(outer.of(SEQUENCE)?);
        let all = parts.0;
        let content = parts.of(SEQUENCE)?;
        let (signed, signature) = all.split_at_checked(all.len() - parts.0.len())?;
        let mut fields = Der(content);
        // The version is left out where it is 1, and the serial number comes first.
        fields.of(INTEGER)?;
        for _algorithm_issuer_validity_subject_key in 0..5 {
            fields.of(SEQUENCE)?;
        }
        if !fields.0.is_empty() || !outer.0.is_empty() {
            return None;
        }
        const VERSION_3: [u8; 5] = [VERSION, 3, INTEGER, 1, 2];
        let shown = sequence(&[&VERSION_3, content]);
        let as_version_3 = sequence(&[&shown, signature]).into();
        Some(Version1 { as_version_3, shown, signed: signed.to_vec() })
    }
}

/// The DER of a sequence of `parts`.
fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let bytes = length.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|&&b| b == 0).count()..];
    let mut der = vec![SEQUENCE];
    match *bytes {
        [] => der.push(0),
        [short @ 0..=0x7F] => der.push(short),
        _ => {
            der.push(0x80 | bytes.len() as u8);
            der.extend(bytes);
        }
    }
    der.extend(parts.concat());
    der
}

struct Fields<'a> {
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
}

pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const VERSION: u8 = 0xA0;
const INTEGER: u8 = 0x02;

impl<'a> Fields<'a> {
    fn parse(certificate: &'a [u8]) -> Option<Self> {
        let mut fields = Der(Der(Der(certificate).of(SEQUENCE)?).of(SEQUENCE)?);
        let (tag, _) = fields.any()?;
        if tag == VERSION {
            fields.of(INTEGER)?;
        }
        let (_algorithm, issuer) = (fields.of(SEQUENCE)?, fields.of(SEQUENCE)?);
        Some(Fields { issuer, validity: fields.of(SEQUENCE)?, subject: fields.of(SEQUENCE)? })
    }
}

/// What is left to read of a run of DER values.
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value's tag and content.
    pub(super) fn any(&mut self) -> Option<(u8, &'a [u8])> {
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

    pub(super) fn of(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.any().filter(|&(tag, _)| tag == wanted).map(|(_, content)| content)
    }
}

fn common_name(subject: &[u8]) -> Option<String> {
    let mut names = Der(subject);
    while let Some(set) = names.of(SET) {
        let mut set = Der(set);
        while let Some(attribute) = set.of(SEQUENCE) {
            let mut attribute = Der(attribute);
            if attribute.of(OBJECT_ID)? == COMMON_NAME {
                let (tag, value) = attribute.any()?;
                return text(tag, value);
            }
        }
    }
    None
}

/// The subject as RFC 2253 writes it, the last name first, in OpenSSL's hand.
fn distinguished_name(subject: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut names = Der(subject);
    while !names.0.is_empty() {
        let mut set = Der(names.of(SET)?);
        let mut part = String::new();
        while !set.0.is_empty() {
            let mut attribute = Der(set.of(SEQUENCE)?);
            if !part.is_empty() {
                part.push('+');
            }
            let id = attribute.of(OBJECT_ID)?;
            let raw = attribute.0;
            let (tag, value) = attribute.any()?;
            match (short_name(id), text(tag, value)) {
                (Some(name), Some(value)) => {
                    part.push_str(name);
                    part.push('=');
                    escape(&value, &mut part);
                }
                (name, _) => {
                    match name {
                        Some(name) => part.push_str(name),
                        None => dotted(id, &mut part)?,
                    }
                    part.push_str("=#");
                    hex(raw, "", &mut part);
                }
            }
        }
        parts.push(part);
    }
    parts.reverse();
    Some(parts.join(","))
}

fn text(tag: u8, value: &[u8]) -> Option<String> {
    const UTF8: u8 = 0x0C;
    const PRINTABLE: u8 = 0x13;
    const TELETEX: u8 = 0x14;
    const IA5: u8 = 0x16;
    const BMP: u8 = 0x1E;
    match tag {
        UTF8 => String::from_utf8(value.to_vec()).ok(),
        PRINTABLE | IA5 => value.is_ascii().then(|| value.iter().map(|&b| char::from(b)).collect()),
        // In practice Latin 1.
        TELETEX => Some(value.iter().map(|&b| char::from(b)).collect()),
        BMP if value.len().is_multiple_of(2) => {
            let units = value.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];

fn short_name(id: &[u8]) -> Option<&'static str> {
    const EMAIL_ADDRESS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1];
    const PILOT: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1];
    Some(match *id {
        [0x55, 4, of_x500] => match of_x500 {
            3 => "CN",
            4 => "SN",
            5 => "serialNumber",
            6 => "C",
            7 => "L",
            8 => "ST",
            9 => "street",
            10 => "O",
            11 => "OU",
            12 => "title",
            13 => "description",
            17 => "postalCode",
            41 => "name",
            42 => "GN",
            43 => "initials",
            44 => "generationQualifier",
            46 => "dnQualifier",
            65 => "pseudonym",
            97 => "organizationIdentifier",
            _ => return None,
        },
        [ref pilot @ .., 1] if pilot == PILOT => "UID",
        [ref pilot @ .., 25] if pilot == PILOT => "DC",
        _ if id == EMAIL_ADDRESS => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str, to: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => to.extend(['\\', c]),
            '#' if i == 0 => to.push_str("\\#"),
            ' ' if i == 0 || i == last => to.push_str("\\ "),
            ' '..='~' => to.push(c),
            _ => hex(c.encode_utf8(&mut [0; 4]).as_bytes(), "\\", to),
        }
    }
}

fn hex(bytes: &[u8], before_each: &str, to: &mut String) {
    for byte in bytes {
        // A string takes everything.
        let _ = write!(to, "{before_each}{byte:02X}");
    }
}

fn dotted(id: &[u8], to: &mut String) -> Option<()> {
    let mut arcs = Vec::new();
    let mut arc = 0u64;
    for &byte in id {
        arc = arc.checked_mul(128)? | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            arcs.push(std::mem::take(&mut arc));
        }
    }
    let (&first, rest) = arcs.split_first()?;
    let top = (first / 40).min(2);
    write!(to, "{top}.{}", first - top * 40).ok()?;
    rest.iter().try_for_each(|arc| write!(to, ".{arc}").ok())
}

/// Seconds since 1970.
fn time((tag, value): (u8, &[u8])) -> Option<i64> {
    let (year_digits, digits) = match (tag, value.strip_suffix(b"Z")?) {
        (UTC_TIME, digits) if digits.len() == 12 => (2, digits),
        (GENERALIZED_TIME, digits) if digits.len() == 14 => (4, digits),
        _ => return None,
    };
    let number = |from: usize, length: usize| {
        let digits = &digits[from..from + length];
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, &d| n * 10 + i64::from(d - b'0')))
    };
    let year = match (number(0, year_digits)?, year_digits) {
        (year, 4) => year,
        (year, _) if year < 50 => 2000 + year,
        (year, _) => 1900 + year,
    };
    let part = |i: usize| number(year_digits + 2 * i, 2);
    let days = days_since_1970(year, part(0)?, part(1)?)?;
    Some(((days * 24 + part(2)?) * 60 + part(3)?) * 60 + part(4)?)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, date_time_ymd};

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2051, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_times_are_read() {
        let utf8 = |s: &str| DnValue::Utf8String(s.into());
        let der = certificate(&[
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::CommonName, utf8("böb, the #1 ")),
            (DnType::CustomDnType(vec![1, 2, 840, 4]), utf8("x")),
        ]);
        assert_eq!(name(&der, Naming::CommonName).as_deref(), Some("böb, the #1 "));
        assert_eq!(
            name(&der, Naming::Subject).as_deref(),
            Some("1.2.840.4=#0C0178,CN=b\\C3\\B6b\\, the #1\\ ,C=DE")
        );
        let expected = Validity { from: 1_709_164_800, until: 2_556_144_000 };
        assert_eq!(validity(&der), Some(expected));
    }

    #[test]
    fn a_name_is_none_if_it_is_missing_or_no_text() {
        let der = certificate(&[]);
        assert_eq!(name(&der, Naming::CommonName), None);
        assert_eq!(name(&der, Naming::Subject), None);
        let der = certificate(&[(DnType::CommonName, DnValue::Utf8String("a\0b".into()))]);
        assert_eq!(name(&der, Naming::CommonName), None);
    }

    #[test]
    fn version_3_is_what_version_1_becomes() {
        let der = certificate(&[(DnType::CommonName, DnValue::Utf8String("cn".into()))]);
        assert!(Version1::parse(&der).is_none(), "it is of version 3");
        // Without the version in front and the extensions behind.
        let mut parts = Der(Der(&der).of(SEQUENCE).unwrap());
        let content = parts.of(SEQUENCE).unwrap();
        let mut fields = Der(content);
        fields.of(VERSION).unwrap();
        let start = content.len() - fields.0.len();
        for _ in 0..6 {
            fields.any().unwrap();
        }
        let end = content.len() - fields.0.len();
        let signed = sequence(&[&content[start..end]]);
        let der = sequence(&[&signed, parts.0]);
        let version_1 = Version1::parse(&der).unwrap();
        assert_eq!(version_1.signed, signed);
        assert_eq!(name(&version_1.as_version_3, Naming::CommonName).as_deref(), Some("cn"));
        assert_eq!(validity(&version_1.as_version_3), validity(&der));
        assert!(version_1.as_version_3.windows(version_1.shown.len()).any(|w| w == version_1.shown));
        assert!(is_issued_by(&der, &version_1.as_version_3));
        for end in 0..der.len() {
            assert!(Version1::parse(&der[..end]).is_none());
        }
        assert!(Version1::parse(&[&der[..], &[0]].concat()).is_none());
    }

    #[test]
    fn what_is_cut_is_no_certificate() {
        let der = certificate(&[(DnType::CommonName, DnValue::Utf8String("cn".into()))]);
        for end in 0..der.len() {
            assert_eq!(validity(&der[..end]), None);
            assert_eq!(name(&der[..end], Naming::CommonName), None);
        }
    }
}
