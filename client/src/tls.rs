//! What TLS trusts and shows.

use crate::authority::Authorities;
use crate::trust::Trust;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, InconsistentKeys, KeyLog, SupportedProtocolVersion};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where distributions keep the certificates they trust: one file each, the first that exists counts.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 and 1.3.
    #[default]
    Any,
    /// 1.2 only.
    V1_2,
    /// 1.3 only.
    V1_3,
}

/// How far the server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Who issued it, and for which host.
    #[default]
    Full,
    /// Who issued it, not for which host: anyone with a certificate of the same issuer can be in between.
    AnyName,
    /// Not at all: anyone can be in between.
    Nothing,
}

/// What TLS trusts and shows. Without `ca_file` and `ca_path` that is what the system trusts.
///
/// ```no_run
/// use hikyaku_client::{Connector, Options, Tls, Version};
///
/// # fn main() -> Result<(), hikyaku_client::Error> {
/// let tls = Tls { ca_file: Some("ca.crt".into()), ..Tls::default() };
/// let client = Connector::new("mqtts://broker.example", Options::new(Version::V5, "reader"))?
///     .tls(&tls)?
///     .connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file of certificates to trust: of those who issue servers' certificates, or of servers themselves.
    pub ca_file: Option<PathBuf>,
    /// A folder of such files; what is no certificate in it is passed over.
    pub ca_path: Option<PathBuf>,
    /// Also trust what the system trusts, when `ca_file` or `ca_path` is given.
    pub system: bool,
    /// The certificate to show, a PEM file, intermediate certificates behind it. It needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key, a PEM file, not encrypted.
    pub key_file: Option<PathBuf>,
    /// How far the server's certificate is checked.
    pub verify: Verify,
    /// Which versions are spoken.
    pub version: TlsVersion,
    /// Application protocols to offer (ALPN).
    pub alpn: Vec<Vec<u8>>,
    /// A file to append the keys to, for debugging: whoever reads it can read what is sent.
    pub key_log: Option<PathBuf>,
}

impl Tls {
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(default_provider());
        let versions: &[&SupportedProtocolVersion] = match self.version {
            TlsVersion::Any => &[&TLS13, &TLS12],
            TlsVersion::V1_2 => &[&TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(TlsError::Config)?;
        let (authorities, given) = match self.verify {
            Verify::Nothing => (None, Vec::new()),
            Verify::Full | Verify::AnyName => {
                let (authorities, given) = self.trusted()?;
                (Some(authorities), given)
            }
        };
        let schemes = provider.signature_verification_algorithms;
        let check_name = self.verify == Verify::Full;
        let verifier = Arc::new(Trust { authorities, given, check_name, schemes });
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let read =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::of(key, "key", error))?;
                let pair = CertifiedKey::new(chain, any_supported_type(&read).map_err(TlsError::Config)?);
                // A certificate of version 1 cannot be compared; there are servers that take it.
                if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = pair.keys_match()
                {
                    return Err(TlsError::OtherKey(cert.clone(), key.clone()));
                }
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(TlsError::HalfIdentity),
        };
        config.alpn_protocols = self.alpn.clone();
        if let Some(path) = &self.key_log {
            let opened = File::options().create(true).append(true).open(path);
            let file = opened.map_err(|error| TlsError::Read(path.clone(), error))?;
            config.key_log = Arc::new(Keys(file));
        }
        Ok(Arc::new(config))
    }

    /// Whose certificates are trusted, and which certificates we were given, not the system.
    fn trusted(&self) -> Result<(Authorities, Vec<CertificateDer<'static>>), TlsError> {
        let mut authorities = Authorities::default();
        let mut given = Vec::new();
        if let Some(file) = &self.ca_file {
            for certificate in certificates(file)? {
                if !authorities.add(&certificate) {
                    let error = rustls::CertificateError::BadEncoding;
                    return Err(TlsError::Config(rustls::Error::InvalidCertificate(error)));
                }
                given.push(certificate);
            }
        }
        if let Some(path) = &self.ca_path {
            given.extend(add_folder(&mut authorities, path)?);
        }
        let is_system_alone = self.ca_file.is_none() && self.ca_path.is_none();
        if self.system || is_system_alone {
            let is_found = add_system(&mut authorities);
            if is_system_alone && !is_found {
                return Err(TlsError::NoCertificate(PathBuf::from("the system's certificates")));
            }
        }
        Ok((authorities, given))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| TlsError::of(path, "certificate", error))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_path_buf()));
    }
    Ok(certificates)
}

fn add_folder(to: &mut Authorities, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| TlsError::Read(path.to_path_buf(), error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)?.flatten() {
        // Keys and the like lie in such folders too.
        found.extend(certificates(&entry.path()).unwrap_or_default());
    }
    found.retain(|certificate| to.add(certificate));
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.to_path_buf()));
    }
    Ok(found)
}

/// As OpenSSL does, the environment says where else to look. Whether something was found.
fn add_system(to: &mut Authorities) -> bool {
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let folder = std::env::var_os("SSL_CERT_DIR").map(PathBuf::from);
    let mut is_found = folder.as_deref().is_some_and(|folder| add_folder(to, folder).is_ok());
    let files = match (file, folder) {
        (Some(file), _) => vec![file],
        (None, Some(_)) => Vec::new(),
        (None, None) => SYSTEM_FILES.iter().map(PathBuf::from).collect(),
    };
    if let Some(found) = files.iter().find_map(|file| certificates(file).ok()) {
        found.iter().for_each(|certificate| is_found |= to.add(certificate));
    }
    is_found
}

/// Where the keys go, in the format that Wireshark reads.
#[derive(Debug)]
struct Keys(File);

impl KeyLog for Keys {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        if let Err(error) = (&self.0).write_all(line.as_bytes()) {
            log::warn!("Cannot write TLS keys: {error}.");
        }
    }
}

/// Why [`Tls`] cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// A file or folder cannot be read.
    Read(PathBuf, std::io::Error),
    /// A file is not PEM, or has no such section; what was looked for.
    Pem(PathBuf, &'static str, pem::Error),
    /// There is no certificate in a file or folder.
    NoCertificate(PathBuf),
    /// There is a certificate without a key, or a key without a certificate.
    HalfIdentity,
    /// A key, named last, is not that of the certificate.
    OtherKey(PathBuf, PathBuf),
    /// Certificates, key and versions do not go together.
    Config(rustls::Error),
}

impl TlsError {
    fn of(path: &Path, what: &'static str, error: pem::Error) -> TlsError {
        match error {
            pem::Error::Io(error) => TlsError::Read(path.to_path_buf(), error),
            error => TlsError::Pem(path.to_path_buf(), what, error),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            TlsError::Pem(path, what, error) => write!(f, "no {what} in {}: {error}", path.display()),
            TlsError::NoCertificate(path) => write!(f, "no certificate in {}", path.display()),
            TlsError::HalfIdentity => f.write_str("a certificate needs its key, and a key its certificate"),
            TlsError::OtherKey(certificate, key) => {
                let (certificate, key) = (certificate.display(), key.display());
                write!(f, "the key in {key} is not that of the certificate in {certificate}")
            }
            TlsError::Config(error) => write!(f, "TLS cannot be used: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
