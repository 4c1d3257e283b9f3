//! Whose certificates clients may show.
//!
//! The rules are webpki's, with three exceptions, which people have who come from OpenSSL. A client's certificate
//! may be of version 1, made without extensions, which webpki does not read: it is shown the same certificate as
//! version 3 without extensions, and wherever the issuer's signature is checked, it is checked over the bytes
//! that were signed. Issuers have to be of version 3: otherwise any certificate could issue others. A
//! certificate that stands in `cafile` itself is taken as it is, also if it says that it is an authority's,
//! or if its issuer is not there.
//! And `disable_client_cert_date_checks` has certificates checked as if at a time when they were valid.
//!
//! In three things we are stricter. Only what says that it is an authority's may issue others, also in `cafile`. An
//! authority's own dates count. And chains are short, since what they cost grows with the faculty of their length.

use super::authority::{Authority, issuers};
use super::certificate::Version1;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// What decides whose certificate is good.
#[derive(Debug)]
pub(super) struct Clients {
    /// Who issues good ones.
    pub(super) authorities: Vec<Authority>,
    /// Those who issue, and others that are good as they are.
    pub(super) given: Vec<CertificateDer<'static>>,
    /// Which are good no more. Empty if nobody keeps a list.
    pub(super) revoked: Vec<Revoked>,
    pub(super) check_dates: bool,
    /// Whether who shows none is turned away at once; otherwise the CONNECT is refused, which says more.
    pub(super) mandatory: bool,
    pub(super) schemes: WebPkiSupportedAlgorithms,
    /// Names of who issues, as hints for clients that have several certificates.
    pub(super) hints: Vec<DistinguishedName>,
}

/// Those an authority has revoked.
#[derive(Debug)]
pub(super) struct Revoked {
    pub(super) list: CertRevocationList<'static>,
    /// When there should be a newer list.
    pub(super) until: UnixTime,
}

/// Who issued a certificate is trusted no more, or not yet.
#[derive(Debug)]
pub(super) struct AuthorityNotValid;

/// How many certificates may be between a client's and an authority's.
const INTERMEDIATES_MAX: usize = 8;
/// In how many certificates of a chain the dates may be wrong.
const OTHER_TIMES_MAX: usize = 4;

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(explain(webpki::Error::MaximumPathDepthExceeded));
        }
        let intermediates = issuers(intermediates);
        let chain = Chain { end_entity, intermediates: &intermediates };
        let counts = |a: &Authority| !self.check_dates || a.is_valid_at(now);
        match self.verify(chain, now, counts) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            // Nobody keeps a list of revoked certificates of this kind.
            Err(error)
                if is_about_issuer(&error) && self.revoked.is_empty() && self.given.contains(end_entity) =>
            {
                Ok(ClientCertVerified::assertion())
            }
            Err(error)
                if is_about_issuer(&error)
                    && !self.authorities.iter().all(counts)
                    && self.verify(chain, now, |_| true).is_ok() =>
            {
                let error = OtherError(Arc::new(AuthorityNotValid));
                Err(Error::InvalidCertificate(CertificateError::Other(error)))
            }
            Err(error) => Err(explain(error)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let version_1 = Version1::parse(cert);
        let cert = version_1.as_ref().map_or(cert, |v1| &v1.as_version_3);
        verify_tls12_signature(message, cert, dss, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let version_1 = Version1::parse(cert);
        let cert = version_1.as_ref().map_or(cert, |v1| &v1.as_version_3);
        verify_tls13_signature(message, cert, dss, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.supported_schemes()
    }
}

/// What a client shows.
#[derive(Clone, Copy)]
struct Chain<'a> {
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
}

impl Clients {
    /// Checks what a client shows, with those authorities that count.
    fn verify(
        &self,
        chain: Chain<'_>,
        now: UnixTime,
        counts: impl Fn(&Authority) -> bool,
    ) -> Result<(), webpki::Error> {
        let anchors: Vec<_> = self.authorities.iter().filter(|a| counts(a)).map(Authority::anchor).collect();
        let (fresh, stale): (Vec<_>, Vec<_>) = self.revoked.iter().partition(|r| now < r.until);
        let lists: Vec<_> = fresh.iter().map(|r| &r.list).collect();
        let expired = |r: &Revoked| webpki::Error::CrlExpired { time: now, next_update: r.until };
        if let (true, Some(stale)) = (lists.is_empty(), stale.first()) {
            return Err(expired(stale));
        }
        let check = |at| {
            let Some(version_1) = Version1::parse(chain.end_entity) else {
                return self.verify_at(at, chain, &anchors, &lists, self.schemes.all);
            };
            let algorithms: Vec<_> =
                self.schemes.all.iter().map(|&inner| OverOriginal { inner, version_1: &version_1 }).collect();
            let algorithms: Vec<_> =
                algorithms.iter().map(|a| a as &dyn SignatureVerificationAlgorithm).collect();
            let chain = Chain { end_entity: &version_1.as_version_3, ..chain };
            self.verify_at(at, chain, &anchors, &lists, &algorithms)
        };
        let mut result = check(now);
        for _ in 0..OTHER_TIMES_MAX {
            let at = match result {
                Err(webpki::Error::CertExpired { not_after, .. }) if !self.check_dates => not_after,
                Err(webpki::Error::CertNotValidYet { not_before, .. }) if !self.check_dates => not_before,
                _ => break,
            };
            result = check(at);
        }
        match (result, stale.first()) {
            (Err(webpki::Error::UnknownRevocationStatus), Some(stale)) => Err(expired(stale)),
            (result, _) => result,
        }
    }

    fn verify_at(
        &self,
        at: UnixTime,
        chain: Chain<'_>,
        anchors: &[TrustAnchor<'_>],
        revoked: &[&CertRevocationList<'_>],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), webpki::Error> {
        let certificate = EndEntityCert::try_from(chain.end_entity)?;
        let (usage, policy) = (KeyUsage::client_auth(), revocation(revoked));
        certificate
            .verify_for_usage(algorithms, anchors, chain.intermediates, at, usage, policy, None)
            .map(drop)
    }
}

/// What is said where a certificate is good, but nobody is known who issued it.
fn is_about_issuer(error: &webpki::Error) -> bool {
    use webpki::Error as E;
    matches!(error, E::UnknownIssuer | E::InvalidSignatureForPublicKey | E::CaUsedAsEndEntity)
}

/// As OpenSSL does for mosquitto: the client's own certificate is looked up, and without a list of its issuer
/// nobody gets in. Lists that have expired are not among these, whatever the time certificates are checked for.
fn revocation<'a>(revoked: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(revoked).ok()?;
    let builder = builder.with_depth(RevocationCheckDepth::EndEntity);
    let builder = builder.with_status_policy(UnknownStatusPolicy::Deny);
    Some(builder.with_expiration_policy(ExpirationPolicy::Ignore).build())
}

/// Checks the signature of a certificate of version 1 over what was signed, not over what webpki is shown.
struct OverOriginal<'a> {
    inner: &'static dyn SignatureVerificationAlgorithm,
    version_1: &'a Version1,
}

impl SignatureVerificationAlgorithm for OverOriginal<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let Version1 { shown, signed, .. } = self.version_1;
        let message = if message == shown { signed } else { message };
        self.inner.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.signature_alg_id()
    }
}

impl fmt::Debug for OverOriginal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for AuthorityNotValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "who issued the client's certificate is in cafile or capath, but that certificate has expired, or is not \
             valid yet",
        )
    }
}

impl std::error::Error for AuthorityNotValid {}

/// The error as rustls has it, which decides what the client is told.
fn explain(error: webpki::Error) -> Error {
    use webpki::Error as E;
    Error::InvalidCertificate(match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    };
    use rustls::crypto::ring::default_provider;
    use std::time::Duration;

    type Made = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str, is_ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        params
    }

    fn own(params: CertificateParams) -> Made {
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn by(issuer: &Made, params: CertificateParams) -> Made {
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
    }

    fn clients(given: &[&Made]) -> Clients {
        let given: Vec<CertificateDer<'static>> = given.iter().map(|made| made.der().clone()).collect();
        Clients {
            authorities: given.iter().filter_map(|c| Authority::of(c).unwrap()).collect(),
            given,
            revoked: Vec::new(),
            check_dates: true,
            mandatory: true,
            schemes: default_provider().signature_verification_algorithms,
            hints: Vec::new(),
        }
    }

    /// In 2025.
    const NOW: u64 = 1_750_000_000;

    fn show(clients: &Clients, shown: &[&Made]) -> Result<(), Error> {
        let shown: Vec<CertificateDer<'static>> = shown.iter().map(|made| made.der().clone()).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
        clients.verify_client_cert(&shown[0], &shown[1..], now).map(drop)
    }

    #[test]
    fn who_is_given_but_no_authority_issues_nothing() {
        let ca = own(params("CA", true));
        let (pinned, server) = (own(params("pinned", false)), by(&ca, params("server", false)));
        let mut cannot = params("no signer", true);
        cannot.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let cannot = own(cannot);
        let clients = clients(&[&ca, &pinned, &server, &cannot]);
        assert_eq!(clients.authorities.len(), 1);
        for given in [&pinned, &server, &cannot] {
            assert_eq!(show(&clients, &[given]), Ok(()), "the very one is good");
            let issued = by(given, params("victim", false));
            let refused = Error::InvalidCertificate(CertificateError::UnknownIssuer);
            assert_eq!(show(&clients, &[&issued]), Err(refused.clone()));
            assert_eq!(show(&clients, &[&issued, given]), Err(refused), "not behind it either");
        }
        assert_eq!(show(&clients, &[&by(&ca, params("good", false))]), Ok(()));
        let twin = own(params("pinned", false));
        assert!(show(&clients, &[&twin]).is_err(), "its name is not enough");
        let weak = by(&ca, {
            let mut weak = params("weak", true);
            weak.key_usages = vec![KeyUsagePurpose::CrlSign];
            weak
        });
        assert!(show(&clients, &[&by(&weak, params("victim", false)), &weak]).is_err());
    }

    #[test]
    fn a_pinned_certificate_ends_with_its_time() {
        let mut old = params("old", false);
        old.not_after = date_time_ymd(2021, 1, 1);
        let old = own(old);
        let mut clients = clients(&[&old]);
        assert!(show(&clients, &[&old]).is_err());
        clients.check_dates = false;
        assert_eq!(show(&clients, &[&old]), Ok(()));
    }

    #[test]
    fn an_authority_counts_in_its_time() {
        let mut old = params("old", true);
        old.not_after = date_time_ymd(2021, 1, 1);
        let (old, ca) = (own(old), own(params("CA", true)));
        let mut clients = clients(&[&old, &ca]);
        let (of_old, of_ca) = (by(&old, params("a", false)), by(&ca, params("b", false)));
        assert_eq!(show(&clients, &[&of_ca]), Ok(()));
        let Err(Error::InvalidCertificate(CertificateError::Other(OtherError(error)))) =
            show(&clients, &[&of_old])
        else {
            panic!("it is let in, or the cause is another")
        };
        assert!(error.is::<AuthorityNotValid>());
        clients.check_dates = false;
        assert_eq!(show(&clients, &[&of_old]), Ok(()));
    }

    #[test]
    fn a_list_has_to_be_new_whatever_the_certificate_is() {
        let mut ca = params("CA", true);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = own(ca);
        let mut old = params("old", false);
        old.not_after = date_time_ymd(2024, 1, 1);
        let mut new = params("new", false);
        new.not_before = date_time_ymd(2028, 1, 1);
        let shown = [by(&ca, params("good", false)), by(&ca, old), by(&ca, new)];
        let mut clients = clients(&[&ca]);
        clients.check_dates = false;
        for (until, good) in [(2025, false), (2026, true)] {
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2023, 1, 1),
                next_update: date_time_ymd(until, 1, 1),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&ca).unwrap();
            let seconds = super::super::certificate::list_until(list.der()).unwrap();
            let until = UnixTime::since_unix_epoch(Duration::from_secs(seconds as u64));
            let list = webpki::OwnedCertRevocationList::from_der(list.der()).unwrap().into();
            clients.revoked = vec![Revoked { list, until }];
            for shown in &shown {
                let shown = show(&clients, &[shown]);
                match good {
                    true => assert_eq!(shown, Ok(())),
                    false => assert!(matches!(
                        shown,
                        Err(Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { .. }))
                    )),
                }
            }
        }
    }

    #[test]
    fn long_and_winding_chains_are_refused() {
        let ca = own(params("CA", true));
        let clients = clients(&[&ca]);
        let leaf = by(&own(params("X", true)), params("leaf", false));
        let namesakes: Vec<Made> = (0..9).map(|_| own(params("X", true))).collect();
        let chain: Vec<&Made> = [&leaf].into_iter().chain(&namesakes).collect();
        let too_deep = explain(webpki::Error::MaximumPathDepthExceeded);
        assert_eq!(show(&clients, &chain).unwrap_err().to_string(), too_deep.to_string());
        let begin = std::time::Instant::now();
        assert!(show(&clients, &chain[..9]).is_err());
        assert!(begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());
        // One that is as it should be.
        let (a, b) = {
            let a = by(&ca, params("A", true));
            let b = by(&a, params("B", true));
            (a, b)
        };
        assert_eq!(show(&clients, &[&by(&b, params("leaf", false)), &b, &a, &ca]), Ok(()));
    }
}
