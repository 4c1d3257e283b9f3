//! Whether the server's certificate is to be trusted, and if not, why, in words.
//!
//! The rules are webpki's, with two exceptions, and stricter in that only authorities may issue others, in their time. One may leave the host's name unchecked, or everything. And a
//! certificate that was handed to us as trusted is trusted when the server shows that very one, also where it
//! says that it is an authority's, as what `openssl req -x509` makes does, or where its issuer is not known;
//! how long it holds, for which host it is, and that the server has its key, is checked as ever.

use crate::authority::{Authorities, issuers};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use std::{fmt, io};

/// What decides whether a server is trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Who may issue servers' certificates; `None` lets all pass.
    pub authorities: Option<Authorities>,
    /// Certificates that are trusted as they stand.
    pub given: Vec<CertificateDer<'static>>,
    /// Whether the certificate has to be for the host.
    pub check_name: bool,
    pub schemes: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        let server = ParsedCertificate::try_from(end_entity)?;
        let chain = issuers(intermediates);
        let verify = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(&server, roots, &chain, now, self.schemes.all)
        };
        match verify(&authorities.at(now)) {
            Ok(()) => {}
            // It is said after the dates were found right.
            Err(rustls::Error::InvalidCertificate(error))
                if is_about_issuer(&error) && self.given.contains(end_entity) => {}
            Err(rustls::Error::InvalidCertificate(error))
                if is_about_issuer(&error) && verify(&authorities.ever()).is_ok() =>
            {
                let error = OtherError(Arc::new(AuthorityNotValid));
                return Err(CertificateError::Other(error).into());
            }
            Err(error) => return Err(error),
        }
        if self.check_name {
            verify_server_name(&server, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.supported_schemes()
    }
}

/// Who issued a certificate is trusted no more, or not yet.
#[derive(Debug)]
struct AuthorityNotValid;

impl fmt::Display for AuthorityNotValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "who issued the server's certificate is known here, but by a certificate that has expired, or is not valid yet",
        )
    }
}

impl std::error::Error for AuthorityNotValid {}

/// Why there is no TLS with the server.
#[derive(Debug)]
pub(crate) struct NoTls {
    #[cfg_attr(not(feature = "tools"), expect(dead_code, reason = "only the tools have advice"))]
    pub why: Why,
    text: String,
}

/// What could be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The certificate is not for the host.
    Name,
    /// Who issued the certificate is not known.
    Issuer,
    /// The certificate has no extensions.
    Version1,
    /// The server wants to see a certificate, or another one.
    OurCertificate,
    /// Nothing on this side.
    Other,
}

impl NoTls {
    /// What rustls found, and in which host's certificate, as an error that says it to people.
    pub fn error(error: &rustls::Error, host: &str) -> io::Error {
        let (why, text) = explain(error, host);
        io::Error::new(io::ErrorKind::InvalidData, NoTls { why, text })
    }

    /// The error in `error`, if it is one.
    #[cfg(feature = "tools")]
    pub fn of(error: &io::Error) -> Option<&NoTls> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for NoTls {}

fn explain(error: &rustls::Error, host: &str) -> (Why, String) {
    match error {
        rustls::Error::InvalidCertificate(error) => explain_certificate(error, host),
        rustls::Error::InvalidMessage(_) => {
            (Why::Other, String::from("what the server says is not TLS; is it the right port?"))
        }
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                (Why::OurCertificate, String::from("the server wants to see a certificate"))
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA => {
                (Why::OurCertificate, format!("the server does not take our certificate: {alert:?}"))
            }
            alert => (Why::Other, format!("the server refuses TLS with us: {alert:?}")),
        },
        error => (Why::Other, error.to_string()),
    }
}

fn explain_certificate(error: &CertificateError, host: &str) -> (Why, String) {
    let date = |time: &UnixTime| date(time.as_secs());
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            let (until, now) = (date(not_after), date(time));
            (
                Why::Other,
                format!("the server's certificate was valid until {until}; the clock here says {now}"),
            )
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (from, now) = (date(not_before), date(time));
            (
                Why::Other,
                format!("the server's certificate is valid from {from} on; the clock here says {now}"),
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ");
            let text = if names.is_empty() {
                format!(
                    "the server's certificate names no host (subjectAltName; a common name does not count), \
                     so it is not for {host}"
                )
            } else {
                format!("the server's certificate is for {names}, not for {host}")
            };
            (Why::Name, text)
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            (Why::Issuer, String::from("who issued the server's certificate is not known here"))
        }
        CertificateError::InvalidPurposeContext { .. } => {
            (Why::Other, String::from("the server's certificate is not one for servers (extendedKeyUsage)"))
        }
        CertificateError::Other(OtherError(error)) if error.is::<AuthorityNotValid>() => {
            (Why::Other, error.to_string())
        }
        error if is_authority(error) => (
            Why::Issuer,
            String::from(
                "the server shows an authority's certificate, perhaps its own, that is not known here",
            ),
        ),
        error if is_version_1(error) => (
            Why::Version1,
            String::from(
                "the server's certificate is X.509 version 1, made without extensions: it names no host",
            ),
        ),
        error => (Why::Other, format!("the server's certificate is not valid: {error}")),
    }
}

fn webpki_error(error: &CertificateError) -> Option<&webpki::Error> {
    let CertificateError::Other(OtherError(error)) = error else { return None };
    error.downcast_ref()
}

fn is_about_issuer(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) || is_authority(error)
}

fn is_authority(error: &CertificateError) -> bool {
    matches!(webpki_error(error), Some(webpki::Error::CaUsedAsEndEntity))
}

fn is_version_1(error: &CertificateError) -> bool {
    matches!(webpki_error(error), Some(webpki::Error::UnsupportedCertVersion))
}

/// A name without the kind of name that webpki puts around it.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// The day of a moment, in UTC.
fn date(seconds: u64) -> String {
    // Days are counted from the first of March 0000, so that leap days are last, in eras of 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn names_are_shown_bare() {
        assert_eq!(bare("DnsName(\"*.example\")"), "*.example");
        assert_eq!(bare("IpAddress(::1)"), "::1");
        assert_eq!(bare("other"), "other");
    }
}
