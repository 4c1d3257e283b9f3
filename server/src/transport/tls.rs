//! The server's side of one TLS connection.

use super::clients::AuthorityNotValid;
use super::plain::Socket;
use rustls::{AlertDescription, CertificateError, OtherError, ServerConfig, ServerConnection};
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

/// How far behind the front of the buffer ciphertext is read: more than what one record may hold that
/// began in an earlier read, so that plaintext, written from the front, never reaches what is not yet
/// decrypted.
pub(super) const HEADROOM: usize = 20 << 10;

pub(super) struct Tls {
    connection: ServerConnection,
    /// How much has come before the handshake was done.
    handshake_bytes: usize,
}

/// What became of ciphertext.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decrypted {
    pub(super) bytes: usize,
    /// The peer has said that nothing else comes.
    pub(super) ended: bool,
}

impl Tls {
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Tls { connection, handshake_bytes: 0 })
    }

    /// Turns the `bytes` of ciphertext at [`HEADROOM`] into plaintext at the front of `buffer`.
    pub(super) fn decrypt(&mut self, buffer: &mut [u8], bytes: usize) -> io::Result<Decrypted> {
        if self.connection.is_handshaking() {
            self.handshake_bytes += bytes;
        }
        let (mut at, end) = (HEADROOM, HEADROOM + bytes);
        let mut out = 0;
        while at < end {
            let mut input = &buffer[at..end];
            let taken = self.connection.read_tls(&mut input)?;
            at += taken;
            let state = self.connection.process_new_packets().map_err(explain)?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let got = self.connection.reader().read(&mut buffer[out..at])?;
                if got == 0 {
                    return Err(io::Error::other("more plaintext than ciphertext"));
                }
                out += got;
                left -= got;
            }
            if state.peer_has_closed() {
                return Ok(Decrypted { bytes: out, ended: true });
            }
            if taken == 0 {
                return Err(io::Error::other("ciphertext is not taken"));
            }
        }
        Ok(Decrypted { bytes: out, ended: false })
    }

    /// Encrypts as much of `slices` as may wait.
    pub(super) fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.connection.writer().write_vectored(slices)
    }

    pub(super) fn has_pending(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes what is encrypted. False if the socket takes no more for now.
    pub(super) fn flush(&mut self, socket: &mut Socket) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    pub(super) fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn handshake_bytes(&self) -> usize {
        self.handshake_bytes
    }

    /// The client's certificate, which was verified.
    pub(super) fn peer_certificate(&self) -> Option<&[u8]> {
        Some(self.connection.peer_certificates()?.first()?.as_ref())
    }
}

fn explain(e: rustls::Error) -> io::Error {
    let text = match &e {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error)))
            if error.is::<AuthorityNotValid>() =>
        {
            Some(error.to_string())
        }
        rustls::Error::InvalidCertificate(error) => explain_certificate(error).map(str::to_owned),
        rustls::Error::NoCertificatesPresented => Some("the client shows no certificate".into()),
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired),
        ) => Some(format!("the client does not trust our certificate ({alert:?})")),
        _ => None,
    };
    let text = text.unwrap_or_else(|| e.to_string());
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {text}"))
}

fn explain_certificate(error: &CertificateError) -> Option<&'static str> {
    Some(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the client's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the client's certificate is not valid yet, if the clock is right"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "who issued the client's certificate is not in cafile or capath"
        }
        CertificateError::Revoked => "the client's certificate is revoked",
        CertificateError::UnknownRevocationStatus => {
            "crlfile has no list of who issued the client's certificate"
        }
        CertificateError::ExpiredRevocationListContext { .. } => "the list in crlfile has expired",
        CertificateError::Other(OtherError(error)) => match error.downcast_ref()? {
            webpki::Error::CaUsedAsEndEntity => {
                "the client shows an authority's certificate, as 'openssl req -x509' makes it, that is not in cafile"
            }
            webpki::Error::UnsupportedCertVersion => {
                "a certificate is of X.509 version 2, or who issued it is of version 1: make it again with -extfile"
            }
            webpki::Error::RequiredEkuNotFoundContext(_) => {
                "the client's certificate is not one for clients (extendedKeyUsage)"
            }
            webpki::Error::UnsupportedSignatureAlgorithmContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                "a certificate of the client's is signed by an algorithm that is not taken, such as SHA-1: make it again \
                 with -sha256"
            }
            webpki::Error::MaximumPathDepthExceeded => {
                "the client shows too many certificates between its own and the authority's"
            }
            webpki::Error::MaximumPathBuildCallsExceeded | webpki::Error::MaximumSignatureChecksExceeded => {
                "the client shows certificates that can be put together in too many ways"
            }
            _ => return None,
        },
        _ => return None,
    })
}
