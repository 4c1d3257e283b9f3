//! The certificate files of a listener, as rustls takes them.

use super::authority::Authority;
use super::certificate::{Naming, Validity, is_issued_by, issuer, list_until, name, validity};
use super::clients::{Clients, Revoked};
use crate::config::{Place, Problem, Severity, TlsSettings, TlsVersion};
use crate::file;
use crate::user::unreadable;
use crate::watch::Watch;
use rustls::crypto::ring::{Ticketer, default_provider, sign::any_supported_type};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{DistinguishedName, InconsistentKeys, ServerConfig};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::OwnedCertRevocationList;

/// What new TLS connections of a listener are made of.
#[derive(Debug)]
pub(super) struct Acceptor {
    settings: TlsSettings,
    config: Arc<ServerConfig>,
    watch: Mutex<Watch>,
}

impl Acceptor {
    /// Reads the files of a listener. What is remarkable, or wrong, is added to `problems`.
    pub(super) fn load(
        settings: &TlsSettings,
        keylog: Option<&Arc<KeyLog>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let TlsSettings { certfile, keyfile, cafile, capath, crlfile, .. } = settings.clone();
        let crlfile = crlfile.filter(|_| Acceptor::wants_certificates(settings));
        // Looked at before they are read: what changes meanwhile is read again.
        let watch = Watch::new(
            [certfile, keyfile].into_iter().chain([cafile, capath, crlfile].into_iter().flatten()),
        );
        match (Files { settings, remarks: problems }).config(keylog) {
            Ok(config) => {
                let (settings, config, watch) = (settings.clone(), Arc::new(config), Mutex::new(watch));
                Some(Acceptor { settings, config, watch })
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// As [`Watch::changed`], of the files it was made of.
    pub(super) fn changed(&self) -> Vec<PathBuf> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).changed()
    }

    /// Whether clients are asked for a certificate.
    pub(super) fn wants_certificates(settings: &TlsSettings) -> bool {
        settings.require_certificate || naming(settings).is_some()
    }

    /// What names clients, if the user name is taken from certificates.
    pub(super) fn naming(&self) -> Option<Naming> {
        naming(&self.settings)
    }
}

fn naming(settings: &TlsSettings) -> Option<Naming> {
    if settings.use_identity_as_username {
        Some(Naming::CommonName)
    } else if settings.use_subject_as_username {
        Some(Naming::Subject)
    } else {
        None
    }
}

/// The protocols a client may name beforehand. Who names none is welcome too.
const ALPN: [&[u8]; 2] = [b"mqtt", b"http/1.1"];
/// Tickets for resumption given to each client of TLS 1.3. Few ever come back with one.
const TICKETS: usize = 1;
/// A certificate that will end within these seconds is warned of.
const SOON_S: i64 = 14 * 24 * 3600;

/// Reads the files of a listener.
struct Files<'a> {
    settings: &'a TlsSettings,
    /// What is remarkable about them.
    remarks: &'a mut Vec<Problem>,
}

impl Files<'_> {
    fn config(&mut self, keylog: Option<&Arc<KeyLog>>) -> Result<ServerConfig, Problem> {
        let settings = self.settings;
        let versions: &[_] = match settings.tls_version {
            Some(TlsVersion::V1_3) => &[&TLS13],
            Some(TlsVersion::V1_2) | None => &[&TLS13, &TLS12],
        };
        let mut provider = default_provider();
        provider.cipher_suites.retain(|suite| {
            let wanted = match suite.tls13() {
                Some(_) => &settings.ciphers_tls13,
                None => &settings.ciphers,
            };
            wanted.is_empty() || wanted.contains(&suite.suite())
        });
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .map_err(|e| self.problem(format!("TLS cannot be set up: {e}")))?;
        let given = self.given()?;
        let resolver = SingleCertAndKey::from(self.certified_key(&given)?);
        let builder = if Acceptor::wants_certificates(settings) {
            builder.with_client_cert_verifier(Arc::new(self.clients(given)?))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        // One ticketer for all workers, but one per listener: what counts at one door may not at another.
        config.ticketer = Ticketer::new().map_err(|e| self.problem(format!("TLS cannot be set up: {e}")))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        if let Some(keylog) = keylog {
            config.key_log = Arc::clone(keylog) as Arc<dyn rustls::KeyLog>;
        }
        Ok(config)
    }

    fn certified_key(&mut self, given: &[CertificateDer<'static>]) -> Result<CertifiedKey, Problem> {
        let TlsSettings { certfile, keyfile, .. } = self.settings;
        let mut chain = self.certificates("certfile", certfile)?;
        complete(&mut chain, given);
        let now = now();
        let at = &self.settings.at;
        let problem = |severity, message: &str| {
            let message = format!("certfile '{}': {message}", certfile.display());
            Problem { at: Some(at.clone()), severity, message }
        };
        let error = |message: &str| problem(Severity::Error, message);
        let leaf = chain.first().ok_or_else(|| error("there is no certificate in it"))?;
        let validity = validity(leaf).ok_or_else(|| error("its first certificate is malformed"))?;
        if validity.until <= now {
            let since = days(now - validity.until);
            return Err(error(&format!("the certificate has expired, {since} ago; get a new one")));
        }
        if validity.until - now < SOON_S {
            let soon = format!("the certificate expires in {}", days(validity.until - now));
            self.remarks.push(problem(Severity::Warning, &soon));
        }
        if validity.from > now {
            // A board without a clock thinks it is 1970.
            let message = "the certificate is not valid yet, if the clock is right";
            self.remarks.push(problem(Severity::Warning, message));
        }
        let key = self.key(keyfile)?;
        let key = any_supported_type(&key).map_err(|_| {
            self.problem(format!(
                "keyfile '{}': this kind of key is not supported; RSA (2048 to 8192 bits), ECDSA (P-256, P-384) \
                 and Ed25519 are",
                keyfile.display()
            ))
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(self.problem(format!(
                    "keyfile '{}' is not the key of the certificate in certfile '{}'",
                    keyfile.display(),
                    certfile.display()
                )))
            }
            // Certificates of version 1, which OpenSSL makes unasked, cannot be compared; they serve.
            Ok(()) | Err(_) => Ok(key),
        }
    }

    fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
        let bytes = self.read("keyfile", path)?;
        let problem = |message: String| self.problem(format!("keyfile '{}': {message}", path.display()));
        if bytes.windows(9).any(|w| w == b"ENCRYPTED") {
            return Err(problem(format!(
                "the key is encrypted; write it without a passphrase: openssl pkey -in '{}' -out …",
                path.display()
            )));
        }
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| match e {
            pem::Error::NoItemsFound => problem("there is no private key (PEM) in it".into()),
            e => problem(format!("malformed: {e}")),
        })
    }

    /// Whose certificates clients may have.
    fn clients(&mut self, given: Vec<CertificateDer<'static>>) -> Result<Clients, Problem> {
        let TlsSettings { cafile, capath, .. } = self.settings;
        let place = match (cafile, capath) {
            (None, None) => {
                let message =
                    "clients have to show a certificate, but neither cafile nor capath says whose are taken";
                return Err(self.problem(message.into()));
            }
            (Some(path), None) => format!("cafile '{}'", path.display()),
            (None, Some(path)) => format!("capath '{}'", path.display()),
            (Some(file), Some(path)) => format!("cafile '{}', capath '{}'", file.display(), path.display()),
        };
        if given.is_empty() {
            return Err(self.problem(format!("{place}: there is no certificate (PEM) in it")));
        }
        let (mut authorities, mut hints) = (Vec::new(), Vec::new());
        for certificate in &given {
            let authority = Authority::of(certificate)
                .map_err(|e| self.problem(format!("{place}: a certificate is malformed: {e}")))?;
            // A client with several certificates looks for one that was issued by one of these.
            hints.extend(match &authority {
                Some(authority) => Some(DistinguishedName::in_sequence(authority.subject())),
                None => issuer(certificate).map(DistinguishedName::in_sequence),
            });
            if let Some(authority) = authority {
                self.remark_on(&authority, certificate, &place);
                authorities.push(authority);
            }
        }
        if authorities.is_empty() {
            let message = format!(
                "{place}: there is no authority's certificate in it (basicConstraints CA:TRUE), so only clients with \
                 the very certificates in it are let in"
            );
            let at = Some(self.settings.at.clone());
            self.remarks.push(Problem { at, severity: Severity::Note, message });
        }
        hints.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        hints.dedup_by(|a, b| a.as_ref() == b.as_ref());
        Ok(Clients {
            hints,
            authorities,
            given,
            revoked: self.revoked()?,
            check_dates: !self.settings.disable_client_cert_date_checks,
            mandatory: self.settings.require_certificate,
            schemes: default_provider().signature_verification_algorithms,
        })
    }

    /// Warns of an authority that has no say, or soon has none.
    fn remark_on(&mut self, authority: &Authority, certificate: &[u8], place: &str) {
        let (Validity { from, until }, now) = (authority.validity(), now());
        let state = match () {
            () if until <= now => format!("has expired, {} ago", days(now - until)),
            () if until - now < SOON_S => format!("expires in {}", days(until - now)),
            () if from > now => "is not valid yet, if the clock is right".into(),
            () => return,
        };
        let checked = !self.settings.disable_client_cert_date_checks;
        let so = if checked && (until <= now || from > now) {
            "; clients whose certificates it issued are refused"
        } else {
            ""
        };
        let who = name(certificate, Naming::Subject).unwrap_or_else(|| "an authority".into());
        let message = format!("{place}: the certificate of {who} {state}{so}");
        let at = Some(self.settings.at.clone());
        self.remarks.push(Problem { at, severity: Severity::Warning, message });
    }

    fn revoked(&self) -> Result<Vec<Revoked>, Problem> {
        let Some(path) = &self.settings.crlfile else { return Ok(Vec::new()) };
        let problem = |message: String| self.problem(format!("crlfile '{}': {message}", path.display()));
        let bytes = self.read("crlfile", path)?;
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(&bytes) {
            let der = der.map_err(|e| problem(format!("malformed: {e}")))?;
            let list = OwnedCertRevocationList::from_der(&der).map_err(|e| problem(e.to_string()))?;
            let until = list_until(&der).and_then(|until| u64::try_from(until).ok());
            let until = until.ok_or_else(|| problem("malformed: its dates cannot be read".into()))?;
            let until = UnixTime::since_unix_epoch(Duration::from_secs(until));
            lists.push(Revoked { list: list.into(), until });
        }
        if lists.is_empty() {
            return Err(problem("there is no revocation list (PEM) in it".into()));
        }
        Ok(lists)
    }

    /// All that is in `cafile` and `capath`.
    fn given(&self) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let TlsSettings { cafile, capath, .. } = self.settings;
        let mut given = Vec::new();
        if let Some(path) = cafile {
            given.extend(self.certificates("cafile", path)?);
        }
        if let Some(path) = capath {
            let problem = |e| {
                self.problem(format!("capath '{}' cannot be read: {}", path.display(), unreadable(path, &e)))
            };
            for entry in fs::read_dir(path).map_err(problem)? {
                let file = entry.map_err(problem)?.path();
                if file.is_file() {
                    // Others lie here too, keys and lists of revoked certificates.
                    let found = self.certificates("capath", &file).unwrap_or_default();
                    given.extend(found.into_iter().filter(|c| Authority::of(c).is_ok()));
                }
            }
        }
        Ok(given)
    }

    fn certificates(&self, option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let bytes = self.read(option, path)?;
        let problem = |message: String| self.problem(format!("{option} '{}': {message}", path.display()));
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let found = found.map_err(|e| problem(format!("malformed: {e}")))?;
        if found.is_empty() {
            return Err(problem("there is no certificate (PEM) in it".into()));
        }
        Ok(found)
    }

    fn read(&self, option: &str, path: &Path) -> Result<Vec<u8>, Problem> {
        file::read(path, file::PEM_BYTES_MAX).map_err(|e| {
            self.problem(format!("{option} '{}' cannot be read: {}", path.display(), unreadable(path, &e)))
        })
    }

    fn problem(&self, message: String) -> Problem {
        problem(&self.settings.at, message)
    }
}

/// How many certificates a chain gets at most.
const CHAIN_MAX: usize = 8;

/// Appends who issued the last one, as long as that one is known: OpenSSL does so, and people have `certfile` with
/// the server's certificate alone. The last issuer, who issued its own, is left out: clients have it, or not.
fn complete(chain: &mut Vec<CertificateDer<'static>>, known: &[CertificateDer<'static>]) {
    while let Some(last) = chain.last()
        && chain.len() < CHAIN_MAX
        && !is_issued_by(last, last)
        && let Some(issuer) = known.iter().find(|issuer| is_issued_by(last, issuer))
        && !is_issued_by(issuer, issuer)
    {
        chain.push(issuer.clone());
    }
}

fn problem(at: &Place, message: String) -> Problem {
    Problem { at: Some(at.clone()), severity: Severity::Error, message }
}

/// In seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

fn days(seconds: i64) -> String {
    match seconds / (24 * 3600) {
        0 => "less than a day".into(),
        1 => "a day".into(),
        n => format!("{n} days"),
    }
}

/// Writes the secrets of connections down, for Wireshark. Whoever has them reads along.
pub(super) struct KeyLog(Mutex<File>);

impl KeyLog {
    pub(super) fn open(path: &Path) -> Result<(Self, Problem), Problem> {
        let problem = |severity, message| Problem { at: None, severity, message };
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|e| {
            let message = format!("The key log '{}' cannot be written: {e}.", path.display());
            problem(Severity::Error, message)
        })?;
        let message = format!("The keys of all TLS connections are written to '{}'.", path.display());
        Ok((KeyLog(Mutex::new(file)), problem(Severity::Warning, message)))
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = file.write_all(line.as_bytes()) {
            log::debug!("The key log cannot be written: {e}.");
        }
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog")
    }
}
