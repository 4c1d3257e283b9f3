//! Whose certificates clients may show.
//!
//! The rules are webpki's, with three exceptions, which people have who come from OpenSSL. A client's certificate
//! may be of version 1, made without extensions, which webpki does not read: it is shown the same certificate as
//! version 3 without extensions, and wherever the issuer's signature is checked, it is checked over the bytes
//! that were signed. Issuers have to be of version 3: otherwise any certificate could issue others. A
//! certificate that stands in `cafile` itself is taken as it is, also if it says that it is an authority's.
//! And `disable_client_cert_date_checks` has certificates checked as if at a time when they were valid.

use super::certificate::Version1;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// What decides whose certificate is good.
#[derive(Debug)]
pub(super) struct Clients {
    /// Who issues good ones.
    pub(super) roots: RootCertStore,
    /// Those who issue, and others that are good as they are.
    pub(super) given: Vec<CertificateDer<'static>>,
    /// Which are good no more. Empty if nobody keeps a list.
    pub(super) revoked: Vec<CertRevocationList<'static>>,
    pub(super) check_dates: bool,
    /// Whether who shows none is turned away at once; otherwise the CONNECT is refused, which says more.
    pub(super) mandatory: bool,
    pub(super) schemes: WebPkiSupportedAlgorithms,
    /// Names of who issues, as hints for clients that have several certificates.
    pub(super) hints: Vec<DistinguishedName>,
}

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
        let mut at = now;
        let mut result = self.verify_at(at, end_entity, intermediates);
        for _ in 0..OTHER_TIMES_MAX {
            at = match result {
                Err(webpki::Error::CertExpired { not_after, .. }) if !self.check_dates => not_after,
                Err(webpki::Error::CertNotValidYet { not_before, .. }) if !self.check_dates => not_before,
                _ => break,
            };
            result = self.verify_at(at, end_entity, intermediates);
        }
        match result {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            // Nobody keeps a list of the revoked certificates of such an authority.
            Err(webpki::Error::CaUsedAsEndEntity)
                if self.revoked.is_empty() && self.given.contains(end_entity) =>
            {
                Ok(ClientCertVerified::assertion())
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

impl Clients {
    fn verify_at(
        &self,
        at: UnixTime,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), webpki::Error> {
        let Some(version_1) = Version1::parse(end_entity) else {
            return self.verify(at, end_entity, intermediates, self.schemes.all);
        };
        let algorithms: Vec<_> =
            self.schemes.all.iter().map(|&inner| OverOriginal { inner, version_1: &version_1 }).collect();
        let algorithms: Vec<_> =
            algorithms.iter().map(|a| a as &dyn SignatureVerificationAlgorithm).collect();
        self.verify(at, &version_1.as_version_3, intermediates, &algorithms)
    }

    fn verify(
        &self,
        at: UnixTime,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), webpki::Error> {
        let anchors: &[TrustAnchor<'_>] = &self.roots.roots;
        let certificate = EndEntityCert::try_from(end_entity)?;
        let revoked: Vec<_> = self.revoked.iter().collect();
        let usage = KeyUsage::client_auth();
        let policy = revocation(&revoked);
        certificate.verify_for_usage(algorithms, anchors, intermediates, at, usage, policy, None).map(drop)
    }
}

/// As OpenSSL does for mosquitto: the client's own certificate is looked up, in a list that has not expired, and
/// without a list of its issuer nobody gets in.
fn revocation<'a>(revoked: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(revoked).ok()?;
    let builder = builder.with_depth(RevocationCheckDepth::EndEntity);
    let builder = builder.with_status_policy(UnknownStatusPolicy::Deny);
    Some(builder.with_expiration_policy(ExpirationPolicy::Enforce).build())
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

impl std::fmt::Debug for OverOriginal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

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
