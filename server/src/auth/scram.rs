//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's part: a client shows that it knows a password without sending
//! it, and is shown that the server knows it too.
//!
//! ```text
//! CONNECT      n,,n=user,r=NONCE                 the client's first message
//! AUTH 0x18    r=NONCE+OURS,s=SALT,i=ITERATIONS  ours
//! AUTH 0x18    c=biws,r=NONCE+OURS,p=PROOF       its last
//! CONNACK      v=SIGNATURE                       our last
//! ```
//!
//! Who is unknown, or has a password hash of another kind, is answered as if not: with a salt and a number of iterations
//! that stay the same, and look like those of the others in the file. It ends as a wrong password does. What they are made
//! of is computed from the file as it is when the first exchange with it begins, so that they are the same after a
//! restart, and kept for as long as the process runs, so that they are the same after a reload. They change with a
//! restart after a change of the file. Nobody can tell them from others' but who knows all that is stored in it.
//!
//! There is no channel binding. User names and passwords are not normalized (SASLprep): what is not ASCII
//! has to be given in the same code points as when it was stored.

use super::password::{Hash, PasswordFile};
use base64ct::{Base64, Encoding};
use hikyaku_proto::broker::Verdict;
use hikyaku_proto::codec::ReasonCode;
use ring::{digest, hmac, pbkdf2};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The name of the authentication method.
pub(super) const METHOD: &str = "SCRAM-SHA-256";
pub(super) const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// A client's message may be no longer: there is no use for it, and it is kept until the next.
const MESSAGE_MAX: usize = 4096;
const NONCE_BYTES: usize = 18;

/// What salts for users that are not there are made of.
pub(super) struct Secret(hmac::Key);

/// The secret of each password file. They stay when the files change: salts that do not are those of users.
#[derive(Debug, Default)]
pub(super) struct Secrets(Mutex<HashMap<Arc<Path>, Arc<Secret>>>);

/// A random text, new for each exchange.
pub(super) struct Nonce(String);

/// An exchange that waits for the client's last message.
pub(super) struct Exchange {
    username: String,
    hash: Hash,
    /// Whether there is such a user, and the hash is its.
    known: bool,
    /// The password file, if the user is in it with a hash of another kind.
    keyless: Option<Arc<Path>>,
    /// What the last message has to begin with.
    prefix: String,
    /// The first messages of both, as far as they are signed.
    signed: String,
}

/// A user who wants to authenticate by SCRAM, and has no keys.
pub(super) struct Keyless {
    username: String,
    path: Arc<Path>,
}

impl Keyless {
    /// Tells the operator, no more than once a second.
    pub(super) fn say(&self, last: &Mutex<Option<Instant>>) {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return;
        }
        *last = Some(Instant::now());
        let (user, path) = (self.username.escape_debug(), self.path.display());
        log::info!(
            "User '{user}' has no keys for SCRAM-SHA-256 in {path}, only a hash for passwords that are sent. \
             'hikyaku-passwd --scram' makes them of the password."
        );
    }
}

impl Secret {
    pub(super) fn draw() -> Result<Secret, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *bytes)?;
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
    }

    fn of(file: &PasswordFile) -> Result<Secret, getrandom::Error> {
        let Some(fingerprint) = file.fingerprint() else { return Secret::draw() };
        let key = hmac::Key::new(hmac::HMAC_SHA256, fingerprint.as_ref());
        let key = hmac::sign(&key, b"hikyaku: SCRAM for who is not there");
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())))
    }

    /// Bytes without end that belong to a purpose and a name.
    pub(super) fn stream(&self, purpose: &str, name: &str) -> impl Iterator<Item = u8> {
        (0u8..).flat_map(move |count| {
            let mut context = hmac::Context::with_key(&self.0);
            context.update(&[count]);
            context.update(purpose.as_bytes());
            context.update(&[0]);
            context.update(name.as_bytes());
            <[u8; KEY_BYTES]>::try_from(context.sign().as_ref()).unwrap_or_default()
        })
    }
}

impl Secrets {
    /// That of a file, from the first time on that it is asked for.
    pub(super) fn of(&self, file: &PasswordFile) -> Result<Arc<Secret>, getrandom::Error> {
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = secrets.get(file.path()) {
            return Ok(Arc::clone(known));
        }
        let secret = Arc::new(Secret::of(file)?);
        secrets.insert(Arc::clone(file.path()), Arc::clone(&secret));
        Ok(secret)
    }
}

impl Nonce {
    pub(super) fn draw() -> Result<Nonce, getrandom::Error> {
        let mut bytes = [0; NONCE_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Nonce(Base64::encode_string(&bytes)))
    }
}

/// For [`check`](super::check).
impl Nonce {
    pub(super) fn fixed(nonce: &str) -> Nonce {
        Nonce(nonce.into())
    }
}

/// For [`check`](super::check).
impl Exchange {
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Exchange {
    /// Takes the client's first message. `claimed` is the user name it has given elsewhere, which has to be the same.
    /// The second value is what to answer; `None` for what is no such message.
    pub(super) fn begin(
        first: &[u8],
        claimed: Option<&str>,
        passwords: &PasswordFile,
        secret: &Secret,
        nonce: &Nonce,
    ) -> Option<(Exchange, Vec<u8>)> {
        let first = std::str::from_utf8(first).ok().filter(|first| first.len() <= MESSAGE_MAX)?;
        let (flag, rest) = first.split_once(',')?;
        let (authorized, bare) = rest.split_once(',')?;
        // "p=": it insists on a channel binding.
        if !matches!(flag, "n" | "y") {
            return None;
        }
        let mut attributes = bare.split(',');
        // "m=" would be an extension we do not know.
        let username = name(attributes.next()?.strip_prefix("n=")?)?;
        let theirs = attributes.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?;
        let same = claimed.is_none_or(|claimed| claimed == username);
        let itself = authorized.is_empty()
            || authorized.strip_prefix("a=").and_then(name).is_some_and(|other| other == username);
        if !same || !itself {
            return None;
        }
        let (hash, known) = passwords.scram(&username, secret);
        let keyless = passwords.without_scram(&username).cloned();
        let (iterations, salt, _) = hash.scram()?;
        let nonce = format!("{theirs}{}", nonce.0);
        let answer = format!("r={nonce},s={},i={iterations}", Base64::encode_string(salt));
        let header = Base64::encode_string(&first.as_bytes()[..first.len() - bare.len()]);
        let prefix = format!("c={header},r={nonce}");
        let signed = format!("{bare},{answer},");
        Some((Exchange { username, hash, known, keyless, prefix, signed }, answer.into_bytes()))
    }

    /// Why a right password will not do, which the client is not told.
    pub(super) fn keyless(&self) -> Option<Keyless> {
        Some(Keyless { username: self.username.clone(), path: self.keyless.clone()? })
    }

    /// Whom the client claims to be.
    pub(super) fn username(&self) -> &str {
        &self.username
    }

    /// Takes the client's last message.
    pub(super) fn finish(self, last: &[u8]) -> Verdict {
        match self.verify(last) {
            Some(signature) => {
                let data = format!("v={}", Base64::encode_string(signature.as_ref()));
                Verdict::Success { username: Some(self.username.into()), data: Some(data.into()) }
            }
            None => Verdict::Failure(ReasonCode::NotAuthorized),
        }
    }

    /// Our signature, if the client's proof is right.
    fn verify(&self, last: &[u8]) -> Option<hmac::Tag> {
        let last = std::str::from_utf8(last).ok().filter(|last| last.len() <= MESSAGE_MAX)?;
        let (unproved, proof) = last.rsplit_once(",p=")?;
        let extensions = unproved.strip_prefix(&self.prefix)?;
        if !(extensions.is_empty() || extensions.starts_with(',')) {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        if Base64::decode(proof, &mut key).ok()?.len() != KEY_BYTES {
            return None;
        }
        let (_, _, keys) = self.hash.scram()?;
        let (stored, server) = keys.split_at_checked(KEY_BYTES)?;
        let signed = [self.signed.as_bytes(), unproved.as_bytes()].concat();
        for (byte, mask) in key.iter_mut().zip(sign(stored, &signed).as_ref()) {
            *byte ^= mask;
        }
        let right = super::password::same(digest::digest(&digest::SHA256, &key).as_ref(), stored);
        let signature = sign(server, &signed);
        (right & self.known).then_some(signature)
    }
}

/// StoredKey and ServerKey of a password, one behind the other.
pub(super) fn keys(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
    let mut salted = Zeroizing::new([0; KEY_BYTES]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut *salted);
    let client = sign(&*salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, client.as_ref());
    [stored.as_ref(), sign(&*salted, b"Server Key").as_ref()].concat()
}

fn sign(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

/// A name in which commas and equals signs are escaped.
fn name(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('=');
    let mut name = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        name.push(sign);
        name.push_str(rest);
    }
    (!name.is_empty() && !name.contains('\0')).then_some(name)
}

/// Printable ASCII; a comma has ended it already.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

impl fmt::Debug for Exchange {
    /// Leaves out what is signed and the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::{SCRAM_ITERATIONS_MIN, Scheme};
    use std::path::Path;

    // The example of RFC 7677.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const OURS: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn file() -> PasswordFile {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = keys(b"pencil", &salt, SCRAM_ITERATIONS_MIN);
        let encode = Base64::encode_string;
        let line =
            format!("$scram-sha-256$4096${}${}${}", encode(&salt), encode(&keys[..32]), encode(&keys[32..]));
        let plain = Hash::create(Scheme::Sha512, b"pencil").unwrap();
        let text = format!("user:{line}\nother:{plain}\na,b=c:{line}\n");
        PasswordFile::parse(&text, Path::new("users"), &mut Vec::new()).unwrap()
    }

    fn begin(first: &str, claimed: Option<&str>) -> Option<(Exchange, String)> {
        let begun = Exchange::begin(
            first.as_bytes(),
            claimed,
            &file(),
            &Secret::draw().unwrap(),
            &Nonce(OURS.into()),
        );
        begun.map(|(exchange, answer)| (exchange, String::from_utf8(answer).unwrap()))
    }

    const NO: Verdict = Verdict::Failure(ReasonCode::NotAuthorized);

    #[test]
    fn the_example_of_rfc_7677() {
        for claimed in [None, Some("user")] {
            let (exchange, challenge) = begin(FIRST, claimed).unwrap();
            assert_eq!(challenge, CHALLENGE);
            let success = Verdict::Success { username: Some("user".into()), data: Some(SIGNATURE.into()) };
            assert_eq!(exchange.finish(LAST.as_bytes()), success);
        }
    }

    #[test]
    fn first_messages_are_taken_apart() {
        for (first, taken) in [
            ("n,,n=user,r=x", true),
            ("y,,n=user,r=x", true),
            ("n,a=user,n=user,r=x", true),
            ("n,,n=user,r=x,e=extension", true),
            ("n,,n=a=2Cb=3Dc,r=x", true),
            ("n,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=x", true),
            ("p=tls-exporter,,n=user,r=x", false),
            ("n,a=other,n=user,r=x", false),
            ("n,user,n=user,r=x", false),
            ("n,,m=must,n=user,r=x", false),
            ("n,,n=,r=x", false),
            ("n,,n=us=er,r=x", false),
            ("n,,n=user=2c,r=x", false),
            ("n,,n=us\0er,r=x", false),
            ("n,,n=user,r=", false),
            ("n,,n=user,r=a b", false),
            ("n,,n=user,r=ä", false),
            ("n,,n=user", false),
            ("n,,r=x,n=user", false),
            ("n,n=user,r=x", false),
            ("", false),
        ] {
            assert_eq!(begin(first, None).is_some(), taken, "{first}");
        }
        assert_eq!(begin("n,,n=a=2Cb=3Dc,r=x", None).unwrap().0.username, "a,b=c");
        assert!(begin(FIRST, Some("other")).is_none(), "another name in CONNECT");
        assert!(begin(&format!("n,,n=user,r={}", "x".repeat(MESSAGE_MAX)), None).is_none());
        let not_text =
            Exchange::begin(b"n,,n=\xff,r=x", None, &file(), &Secret::draw().unwrap(), &Nonce(OURS.into()));
        assert!(not_text.is_none());
    }

    #[test]
    fn last_messages_that_are_not_the_one_are_refused() {
        for (from, to) in [
            ("c=biws", "c=eSws"), // Another header than sent.
            ("rOpr", "rOpx"),     // Another nonce, as of an exchange that was recorded.
            ("k0,p=", "k0x,p="),
            ("p=dHzb", "p=dHzc"),
            ("dVQ=", "dVR="), // Not canonical.
            ("p=dHzb", "p="),
            (",p=", ",x=y,p="), // It is signed.
            (",p=", ",q="),
            ("c=biws,", ""),
        ] {
            let last = LAST.replace(from, to);
            assert_ne!(last, LAST);
            assert_eq!(begin(FIRST, None).unwrap().0.finish(last.as_bytes()), NO, "{last}");
        }
        assert_eq!(begin(FIRST, None).unwrap().0.finish(b"\xff"), NO);
        assert_eq!(begin(FIRST, None).unwrap().0.finish(b""), NO);
    }

    #[test]
    fn the_unknown_look_like_the_others() {
        let (file, secret) = (file(), Secret::draw().unwrap());
        let ask = |name: &str, secret: &Secret| {
            let first = format!("n,,n={name},r=x");
            let (exchange, answer) =
                Exchange::begin(first.as_bytes(), None, &file, secret, &Nonce(OURS.into())).unwrap();
            (exchange, String::from_utf8(answer).unwrap())
        };
        for name in ["nobody", "other", "anybody"] {
            let (exchange, challenge) = ask(name, &secret);
            assert_eq!(challenge, ask(name, &secret).1, "the same each time");
            assert_ne!(challenge, ask(name, &Secret::draw().unwrap()).1, "nobody outside can compute it");
            let known = ask("user", &secret).1;
            assert_eq!(challenge.len(), known.len());
            assert!(challenge.ends_with(",i=4096") && challenge != known);
            // Not even who knows the keys gets in.
            let (_, _, keys) = exchange.hash.scram().unwrap();
            let (stored, unproved) = (keys[..KEY_BYTES].to_vec(), exchange.prefix.clone());
            let signed = [exchange.signed.as_bytes(), unproved.as_bytes()].concat();
            let proof = Base64::encode_string(sign(&stored, &signed).as_ref());
            assert_eq!(exchange.finish(format!("{unproved},p={proof}").as_bytes()), NO);
        }
        // They survive restarts as long as the file is the same, and changes of it as long as the process runs.
        let salt = |file: &PasswordFile, secret: &Secret| file.scram("nobody", secret).0.to_string();
        let (process, next) = (Secrets::default(), Secrets::default());
        let secret_of = |process: &Secrets, file: &PasswordFile| salt(file, &process.of(file).unwrap());
        let other = {
            let hash = Hash::create(Scheme::ScramSha256 { iterations: SCRAM_ITERATIONS_MIN }, b"x").unwrap();
            PasswordFile::parse(&format!("new:{hash}\n"), Path::new("users"), &mut Vec::new()).unwrap()
        };
        let before = secret_of(&process, &file);
        assert_eq!(secret_of(&process, &other), before);
        assert_ne!(secret_of(&next, &other), before, "only who has the file knows them");
        assert_eq!(Secret::of(&file).map(|s| salt(&file, &s)).unwrap(), before);
        let empty = PasswordFile::parse("", Path::new("users"), &mut Vec::new()).unwrap();
        let (hash, known) = empty.scram("nobody", &secret);
        assert!(!known && hash.scram().is_some());
    }
}
