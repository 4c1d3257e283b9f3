//! Who may issue certificates, of those that are trusted.
//!
//! webpki takes any certificate it is given as an anchor, whatever is in it: a client's own certificate, which stands in
//! `cafile` to let that client in, could issue others. What an authority's certificate says of itself is looked at here.

use super::certificate::{Der, SEQUENCE, VERSION, Validity, is_issued_by, subject, validity};
use rustls::pki_types::{CertificateDer, Der as Borrowed, TrustAnchor, UnixTime};

/// A trusted certificate that may issue others.
#[derive(Debug)]
pub(super) struct Authority {
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

/// More of a name are not looked at: two are there when an authority has changed hands or keys, and with many a chain
/// becomes a labyrinth.
const OF_A_NAME_MAX: usize = 2;

impl Authority {
    /// What `certificate` is trusted for; `None` for one that may not issue others.
    ///
    /// # Errors
    /// If it is malformed.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Option<Authority>, webpki::Error> {
        let anchor = webpki::anchor_from_trusted_cert(certificate)?.to_owned();
        let validity = validity(certificate).ok_or(webpki::Error::BadDer)?;
        Ok(may_issue(certificate).then_some(Authority { anchor, validity }))
    }

    /// Its name (DER, without the tag of the sequence).
    pub(super) fn subject(&self) -> &[u8] {
        &self.anchor.subject
    }

    pub(super) fn validity(&self) -> Validity {
        self.validity
    }

    pub(super) fn is_valid_at(&self, time: UnixTime) -> bool {
        let Validity { from, until } = self.validity;
        i64::try_from(time.as_secs()).is_ok_and(|time| from <= time && time <= until)
    }

    pub(super) fn anchor(&self) -> TrustAnchor<'_> {
        let TrustAnchor { subject, subject_public_key_info, name_constraints } = &self.anchor;
        TrustAnchor {
            subject: Borrowed::from_slice(subject),
            subject_public_key_info: Borrowed::from_slice(subject_public_key_info),
            name_constraints: name_constraints.as_deref().map(Borrowed::from_slice),
        }
    }
}

/// Those of a chain that may be between a client's certificate and an authority's.
pub(super) fn issuers<'a>(chain: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let mut issuers: Vec<CertificateDer<'a>> = Vec::new();
    for certificate in chain.iter().filter(|certificate| may_issue(certificate)) {
        let namesakes = issuers.iter().filter(|other| subject(other) == subject(certificate));
        if namesakes.count() < OF_A_NAME_MAX {
            issuers.push(certificate.clone());
        }
    }
    issuers
}

const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const EXTENSIONS: u8 = 0xA3;
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 19];
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 15];
const KEY_CERT_SIGN: u8 = 0x04;

/// Whether a certificate (DER) says that it is an authority's; one of version 1, which cannot, if it issued itself.
pub(super) fn may_issue(certificate: &[u8]) -> bool {
    match Uses::parse(certificate) {
        Some(Uses { has_extensions: false, .. }) => is_issued_by(certificate, certificate),
        Some(Uses { authority, signs_certificates, .. }) => authority && signs_certificates,
        None => false,
    }
}

/// What a certificate is for.
struct Uses {
    /// False in version 1.
    has_extensions: bool,
    authority: bool,
    signs_certificates: bool,
}

impl Uses {
    fn parse(certificate: &[u8]) -> Option<Uses> {
        let mut fields = Der(Der(Der(certificate).of(SEQUENCE)?).of(SEQUENCE)?);
        let mut uses = Uses { has_extensions: false, authority: false, signs_certificates: true };
        while !fields.is_empty() {
            match fields.any()? {
                (VERSION, _) => uses.has_extensions = true,
                (EXTENSIONS, extensions) => uses.read(Der(extensions).of(SEQUENCE)?)?,
                _ => {}
            }
        }
        Some(uses)
    }

    fn read(&mut self, extensions: &[u8]) -> Option<()> {
        let mut extensions = Der(extensions);
        while !extensions.is_empty() {
            let mut extension = Der(extensions.of(SEQUENCE)?);
            let id = extension.of(OBJECT_ID)?;
            let value = match extension.any()? {
                (OCTET_STRING, value) => value,
                // Whether it is critical.
                _ => extension.of(OCTET_STRING)?,
            };
            if id == BASIC_CONSTRAINTS {
                let constraints = Der(value).of(SEQUENCE)?;
                self.authority = Der(constraints).any() == Some((BOOLEAN, &[0xFF]));
            } else if id == KEY_USAGE {
                // The first byte counts the bits at the end that are not used.
                let bits = Der(value).of(BIT_STRING)?.get(1);
                self.signs_certificates = bits.is_some_and(|bits| bits & KEY_CERT_SIGN != 0);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

    fn made(is_ca: IsCa, key_usages: &[KeyUsagePurpose]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["name".into()]).unwrap();
        (params.is_ca, params.key_usages) = (is_ca, key_usages.to_vec());
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_authorities_may_issue() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        for (is_ca, usages, expected) in [
            (ca(), &[][..], true),
            (IsCa::Ca(BasicConstraints::Constrained(0)), &[KeyCertSign, CrlSign], true),
            (ca(), &[DigitalSignature, CrlSign], false),
            (IsCa::ExplicitNoCa, &[], false),
            (IsCa::ExplicitNoCa, &[KeyCertSign], false),
            (IsCa::NoCa, &[], false),
            (IsCa::NoCa, &[KeyCertSign], false),
        ] {
            let certificate = made(is_ca, usages);
            assert_eq!(may_issue(&certificate), expected, "{is_ca:?} {usages:?}");
            assert_eq!(Authority::of(&certificate).unwrap().is_some(), expected);
            for end in 0..certificate.len() {
                assert!(!may_issue(&certificate[..end]));
            }
        }
    }

    #[test]
    fn few_of_a_chain_have_the_same_name() {
        let chain: Vec<_> = (0..8).map(|_| made(IsCa::Ca(BasicConstraints::Unconstrained), &[])).collect();
        assert_eq!(issuers(&chain).len(), OF_A_NAME_MAX);
        assert!(issuers(&[made(IsCa::NoCa, &[])]).is_empty());
    }
}
