//! Password files in mosquitto's format: `user:hash` lines.
//!
//! | hash | made by |
//! |---|---|
//! | `$7$ITERATIONS$SALT$HASH` | PBKDF2 with HMAC-SHA-512, base64: mosquitto 2.0's default |
//! | `$6$SALT$HASH` | SHA-512 of password and salt, base64: mosquitto 1.6 and before |
//! | `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH` | Argon2id in the PHC format: mosquitto 2.1's default |
//! | `$scram-sha-256$ITERATIONS$SALT$STOREDKEY$SERVERKEY` | the keys of SCRAM-SHA-256, base64: not known to mosquitto |
//!
//! The last serves clients that authenticate by SCRAM and those that send a password; the others serve the latter only.
//! Its parts are those of PostgreSQL's verifiers, in the form of their neighbours: what follows a colon is cut off.

use super::scram::{self, KEY_BYTES, Secret};
use crate::config::{Place, Problem, Severity, Tally};
use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64, Base64Unpadded, Encoding};
use hikyaku_proto::broker::Verdict;
use hikyaku_proto::codec::ReasonCode;
use ring::{digest, pbkdf2};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// The users of a file and their hashed passwords.
#[derive(Debug)]
pub struct PasswordFile {
    users: HashMap<Box<str>, Hash>,
    dummies: Dummies,
    /// What those who are not there borrow in SCRAM: iterations and length of the salt of each who is.
    scrams: Vec<(NonZeroU32, usize)>,
    path: Arc<Path>,
}

/// What an unknown user's password is compared with: for each name always the same, and among many names as often
/// of each kind as the users have it. So the time an answer takes says nothing about whether a name is known, also where
/// hashes of several kinds are in use.
#[derive(Debug)]
struct Dummies {
    /// The kinds in the file, in the order of their efforts, each with how many users have it or one before.
    kinds: Vec<(Hash, usize)>,
}

/// How to hash a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// PBKDF2 with HMAC-SHA-512.
    Pbkdf2 {
        /// How often the hash is iterated.
        iterations: NonZeroU32,
    },
    /// One round of SHA-512: fast to try out, only for old brokers.
    Sha512,
    /// Argon2id with 46 MiB of memory and one pass.
    Argon2id,
    /// The keys of SCRAM-SHA-256.
    ScramSha256 {
        /// How often the hash is iterated, by each client that connects: [`SCRAM_ITERATIONS_MIN`] to
        /// [`SCRAM_ITERATIONS_MAX`].
        iterations: NonZeroU32,
    },
}

/// A hashed password. Displayed as it stands in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    kind: Kind,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Sha512,
    Pbkdf2(NonZeroU32),
    Argon2id {
        version: u32,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
    /// The hash is StoredKey and ServerKey.
    ScramSha256(NonZeroU32),
}

/// What mosquitto says, and people look for.
const INVALID: &str = "Invalid line in password file";
const UNDECODABLE: &str = "Unable to decode line in password file";
/// mosquitto 2.1's default.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// For SCRAM: half a second on the smallest boards with Linux, where RFC 7677 wants a tenth on a modern machine.
pub const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(50_000).unwrap();
/// The least RFC 7677 allows.
pub const SCRAM_ITERATIONS_MIN: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// More no client should compute.
pub const SCRAM_ITERATIONS_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();
const SCRAM_SALT_BYTES: usize = 16;
const SHA512_BYTES: usize = 64;
/// What mosquitto 2.0 insists on.
const SALT_BYTES: usize = 12;
const ARGON2_SALT_BYTES: usize = 16;
const ARGON2_HASH_BYTES: usize = 32;
/// More is a mistake, or an attempt to stop the broker.
const ARGON2_MEMORY_KIB_MAX: u32 = 4 << 20;
/// More takes a minute for each client that connects.
pub const ITERATIONS_MAX: NonZeroU32 = NonZeroU32::new(100_000_000).unwrap();
const KNOWN: &str = "known are $6$, $7$, $argon2id$ and $scram-sha-256$";

impl PasswordFile {
    /// Reads a file. What is remarkable in it is added to `problems`; `None` if there is an error among that:
    /// the file cannot be read, or a line is not one.
    pub fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<PasswordFile> {
        let text = super::read_text("password_file", path, problems)?;
        warn_if_readable_by_all(path, problems);
        PasswordFile::parse(&text, path, problems)
    }

    pub(super) fn parse(text: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<PasswordFile> {
        let file: Arc<Path> = path.into();
        let mut users = HashMap::new();
        let mut tally = Tally::default();
        for (line, content) in (1..).zip(text.lines()) {
            if tally.is_full() {
                break;
            }
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let mut say = |column: usize, message: String| {
                let at = Some(Place { file: Arc::clone(&file), line, column: column as u32 });
                tally.tell(Problem { at, severity: Severity::Error, message }, problems);
            };
            let Some((name, rest)) = content.split_once(':') else {
                // Half of a file, perhaps, or none of passwords: who is not in it any more would be closed.
                say(1, format!("{INVALID}: it is not USER:HASH"));
                continue;
            };
            let column = name.chars().count() + 2;
            let (name, hash) = (name.trim(), rest.split(':').next().unwrap_or_default().trim());
            let (column, problem) = match Hash::parse(hash) {
                _ if name.is_empty() => (1, format!("{INVALID}: the user name is empty")),
                _ if name.len() > 65_535 => {
                    (1, format!("{INVALID}: the user name is longer than 65535 bytes"))
                }
                _ if users.contains_key(name) => {
                    (1, format!("{INVALID}: user '{}' is there twice", name.escape_debug()))
                }
                Err(cause) => {
                    let user = name.escape_debug();
                    (column, format!("{UNDECODABLE}: the password of '{user}' {cause}"))
                }
                Ok(hash) => {
                    users.insert(name.into(), hash);
                    continue;
                }
            };
            say(column, problem);
        }
        problems.extend(tally.rest(path));
        let ok = !tally.has_errors();
        if ok && users.is_empty() {
            let message = format!("{} has no users: nobody gets in by a password", path.display());
            problems.push(Problem { at: None, severity: Severity::Warning, message });
        }
        let dummies = Dummies::new(users.values());
        let mut scrams: Vec<_> =
            users.values().filter_map(Hash::scram).map(|(i, s, _)| (i, s.len())).collect();
        scrams.sort_unstable();
        ok.then_some(PasswordFile { users, dummies, scrams, path: file })
    }

    /// Whether this is the user's password. Takes as long for an unknown user as for one of the users, always the
    /// same for the same name. An empty password is nobody's, as in mosquitto: a file may have its hash.
    pub fn verify(&self, username: &str, password: Option<&[u8]>) -> bool {
        let user = self.users.get(username);
        let dummy = self.dummies.of(username);
        let password = password.unwrap_or_default();
        let same = user.unwrap_or(dummy).verify(password);
        same & user.is_some() & !password.is_empty()
    }

    /// What [`PasswordFile::verify`] means for a client.
    pub(super) fn judge(&self, username: &str, password: Option<&[u8]>) -> Verdict {
        match self.verify(username, password) {
            true => Verdict::Success { username: None, data: None },
            false => Verdict::Failure(ReasonCode::NotAuthorized),
        }
    }

    /// What a SCRAM exchange is about, and whether there is such a user: without, it looks like there was.
    pub(super) fn scram(&self, username: &str, secret: &Secret) -> (Hash, bool) {
        let user = self.users.get(username).filter(|hash| hash.scram().is_some());
        let drawn = secret.stream("user", username).take(8).fold(0, |n, byte| n << 8 | u128::from(byte));
        // A share of them, and not a remainder, as with the dummies.
        let like = self.scrams.get(((drawn * self.scrams.len() as u128) >> 64) as usize);
        let &(iterations, salt) = like.unwrap_or(&(SCRAM_ITERATIONS, SCRAM_SALT_BYTES));
        let nobody = Hash {
            kind: Kind::ScramSha256(iterations),
            salt: secret.stream("salt", username).take(salt).collect(),
            hash: secret.stream("keys", username).take(2 * KEY_BYTES).collect(),
        };
        (user.cloned().unwrap_or(nobody), user.is_some())
    }

    /// Where it was read, if there is a user of this name who has no keys of SCRAM.
    pub(super) fn without_scram(&self, username: &str) -> Option<&Arc<Path>> {
        self.users.get(username).filter(|hash| hash.scram().is_none()).map(|_| &self.path)
    }

    /// Whether there is a user of this name.
    pub(super) fn has(&self, username: &str) -> bool {
        self.users.contains_key(username)
    }

    /// Where it was read.
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// A hash over all users and what is stored of their passwords, which only who has the file can compute. `None` if
    /// there are no users.
    pub(super) fn fingerprint(&self) -> Option<digest::Digest> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_unstable_by_key(|(name, _)| *name);
        let mut context = digest::Context::new(&digest::SHA256);
        for (name, hash) in &users {
            for part in [name.as_bytes(), &hash.salt, &hash.hash] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        (!users.is_empty()).then(|| context.finish())
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The users whose password is not the same, or not there, in `new`.
    pub(super) fn changed_in<'a>(&'a self, new: &'a PasswordFile) -> impl Iterator<Item = &'a str> {
        self.users.iter().filter(|&(name, hash)| new.users.get(name) != Some(hash)).map(|(name, _)| &**name)
    }
}

impl Dummies {
    fn new<'a>(users: impl Iterator<Item = &'a Hash>) -> Dummies {
        let mut counts: HashMap<_, (Hash, usize)> = HashMap::new();
        for hash in users {
            counts.entry(hash.effort()).or_insert_with(|| (hash.to_dummy(), 0)).1 += 1;
        }
        let mut kinds: Vec<_> = counts.into_values().collect();
        if kinds.is_empty() {
            kinds.push((Hash::default_dummy(), 1));
        }
        kinds.sort_by_key(|(dummy, _)| dummy.effort());
        let mut sum = 0;
        for (_, count) in &mut kinds {
            sum += *count;
            *count = sum;
        }
        Dummies { kinds }
    }

    fn of(&self, username: &str) -> &Hash {
        /// The same for all files this process reads: whose effort changes with a reload is known to be none's.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let (last, sum) = &self.kinds[self.kinds.len() - 1];
        // A share of the users, and not a remainder: a user more moves few names from one kind to another.
        let share = (u128::from(KEY.hash_one(username)) * *sum as u128) >> 64;
        let found = self.kinds.iter().find(|(_, below)| share < *below as u128);
        found.map_or(last, |(dummy, _)| dummy)
    }
}

impl Hash {
    /// Hashes a new password with a random salt.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn create(scheme: Scheme, password: &[u8]) -> Result<Hash, getrandom::Error> {
        let (kind, salt, length) = match scheme {
            Scheme::Pbkdf2 { iterations } => (Kind::Pbkdf2(iterations), SALT_BYTES, SHA512_BYTES),
            Scheme::Sha512 => (Kind::Sha512, SALT_BYTES, SHA512_BYTES),
            Scheme::Argon2id => {
                let kind = Kind::Argon2id { version: 0x13, memory_kib: 47_104, passes: 1, lanes: 1 };
                (kind, ARGON2_SALT_BYTES, ARGON2_HASH_BYTES)
            }
            Scheme::ScramSha256 { iterations } => {
                (Kind::ScramSha256(iterations), SCRAM_SALT_BYTES, 2 * KEY_BYTES)
            }
        };
        let mut salt = vec![0; salt];
        getrandom::fill(&mut salt)?;
        let mut hash = Hash { kind, salt: salt.into(), hash: vec![0; length].into() };
        hash.hash = hash.compute(password);
        Ok(hash)
    }

    /// Reads a hash as it stands in a file.
    ///
    /// # Errors
    /// What is wrong with it, to stand behind "the password".
    pub fn parse(text: &str) -> Result<Hash, String> {
        let mut parts = text.split('$');
        if parts.next() != Some("") || text.is_empty() {
            return Err("is not hashed; 'hikyaku-passwd -U FILE' hashes all of a file".into());
        }
        let hash = match parts.next() {
            Some("6") => Hash::parse_sha512(Kind::Sha512, &mut parts)?,
            Some("7") => {
                let iterations = parts.next().and_then(|n| n.parse::<NonZeroU32>().ok());
                let iterations = iterations.filter(|n| *n <= ITERATIONS_MAX);
                let kind = Kind::Pbkdf2(iterations.ok_or("has no valid number of iterations")?);
                Hash::parse_sha512(kind, &mut parts)?
            }
            Some("argon2id") => Hash::parse_argon2id(&mut parts)?,
            Some("scram-sha-256") => Hash::parse_scram(&mut parts)?,
            Some(kind) if kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
                return Err(format!("has a hash of unknown kind '${kind}$'; {KNOWN}"));
            }
            _ => return Err(format!("has a hash of unknown kind; {KNOWN}")),
        };
        if parts.next().is_some() { Err("has more than one hash".into()) } else { Ok(hash) }
    }

    fn parse_sha512<'a>(kind: Kind, parts: &mut impl Iterator<Item = &'a str>) -> Result<Hash, String> {
        let mut decode = |what| decode::<Base64>(parts.next(), what);
        let (salt, hash) = (decode("salt")?, decode("hash")?);
        if hash.len() != SHA512_BYTES {
            return Err(format!("has a hash of {} bytes instead of {SHA512_BYTES}", hash.len()));
        }
        Ok(Hash { kind, salt, hash })
    }

    fn parse_argon2id<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Result<Hash, String> {
        let mut part = parts.next().unwrap_or_default();
        let mut version = 0x10;
        if let Some(number) = part.strip_prefix("v=") {
            version = number.parse().unwrap_or(0);
            part = parts.next().unwrap_or_default();
        }
        let mut values = [0; 3];
        let mut given = part.split(',');
        for (value, name) in values.iter_mut().zip(["m=", "t=", "p="]) {
            *value = given.next().and_then(|v| v.strip_prefix(name)?.parse().ok()).unwrap_or(0);
        }
        let [memory_kib, passes, lanes] = values;
        let kind = Kind::Argon2id { version, memory_kib, passes, lanes };
        let mut decode = |what| decode::<Base64Unpadded>(parts.next(), what);
        let hash = Hash { kind, salt: decode("salt")?, hash: decode("hash")? };
        let fits = memory_kib <= ARGON2_MEMORY_KIB_MAX
            && given.next().is_none()
            && hash.argon2().is_some()
            && (argon2::MIN_SALT_LEN..=argon2::MAX_SALT_LEN).contains(&hash.salt.len());
        if fits { Ok(hash) } else { Err("has Argon2 parameters that cannot be used".into()) }
    }

    fn parse_scram<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Result<Hash, String> {
        let range = SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX;
        let iterations = parts.next().and_then(|n| n.parse().ok()).filter(|n| range.contains(n));
        let iterations = iterations.ok_or_else(|| {
            format!("has no valid number of iterations; {} to {} are", range.start(), range.end())
        })?;
        let mut decode = |what| decode::<Base64>(parts.next(), what);
        let (salt, stored, server) = (decode("salt")?, decode("stored key")?, decode("server key")?);
        if (stored.len(), server.len()) != (KEY_BYTES, KEY_BYTES) {
            return Err(format!("has keys of {} and {} bytes, not {KEY_BYTES}", stored.len(), server.len()));
        }
        let hash = [stored, server].concat().into();
        Ok(Hash { kind: Kind::ScramSha256(iterations), salt, hash })
    }

    /// Iterations, salt and both keys, one behind the other, of a hash that is for SCRAM.
    pub(super) fn scram(&self) -> Option<(NonZeroU32, &[u8], &[u8])> {
        let Kind::ScramSha256(iterations) = self.kind else { return None };
        Some((iterations, &self.salt, &self.hash))
    }

    fn argon2(&self) -> Option<Argon2<'static>> {
        let Kind::Argon2id { version, memory_kib, passes, lanes } = self.kind else { return None };
        let params = Params::new(memory_kib, passes, lanes, Some(self.hash.len())).ok()?;
        Some(Argon2::new(Algorithm::Argon2id, Version::try_from(version).ok()?, params))
    }

    /// Whether this is the password.
    pub fn verify(&self, password: &[u8]) -> bool {
        same(&self.compute(password), &self.hash)
    }

    fn compute(&self, password: &[u8]) -> Box<[u8]> {
        #[cfg(test)]
        tests::COMPUTED.with_borrow_mut(|computed| computed.push(self.effort()));
        let mut out = vec![0; self.hash.len()];
        match self.kind {
            Kind::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                out = context.finish().as_ref().to_vec();
            }
            Kind::Pbkdf2(iterations) => {
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, &self.salt, password, &mut out);
            }
            Kind::ScramSha256(iterations) => out = scram::keys(password, &self.salt, iterations),
            Kind::Argon2id { .. } => {
                let done = self.argon2().map(|a| a.hash_password_into(password, &self.salt, &mut out));
                if !matches!(done, Some(Ok(()))) {
                    out.clear(); // Equal to no hash.
                }
            }
        }
        out.into()
    }

    /// What it takes to compute it; the same for hashes that take the same.
    fn effort(&self) -> (u8, [u32; 4]) {
        match self.kind {
            Kind::Sha512 => (0, [0; 4]),
            Kind::Pbkdf2(iterations) => (1, [iterations.get(), 0, 0, 0]),
            Kind::ScramSha256(iterations) => (3, [iterations.get(), 0, 0, 0]),
            Kind::Argon2id { version, memory_kib, passes, lanes } => {
                (2, [memory_kib, passes, lanes, version])
            }
        }
    }

    fn to_dummy(&self) -> Hash {
        Hash { hash: vec![0; self.hash.len()].into(), ..self.clone() }
    }

    fn default_dummy() -> Hash {
        let (salt, hash) = ([0; SALT_BYTES].into(), [0; SHA512_BYTES].into());
        Hash { kind: Kind::Pbkdf2(ITERATIONS), salt, hash }
    }
}

/// Whether both are the same. All bytes are looked at, wherever the first difference is.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |d, (a, b)| std::hint::black_box(d | (a ^ b)));
    difference == 0 && a.len() == b.len()
}

fn decode<E: Encoding>(text: Option<&str>, what: &str) -> Result<Box<[u8]>, String> {
    match text {
        None | Some("") => Err(format!("has no {what}")),
        Some(text) => match E::decode_vec(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(format!("has a {what} that is not valid base64")),
        },
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Sha512 => f.write_str("$6")?,
            Kind::Pbkdf2(iterations) => write!(f, "$7${iterations}")?,
            Kind::Argon2id { version, memory_kib, passes, lanes } => {
                write!(f, "$argon2id$v={version}$m={memory_kib},t={passes},p={lanes}")?;
                let encode = Base64Unpadded::encode_string;
                return write!(f, "${}${}", encode(&self.salt), encode(&self.hash));
            }
            Kind::ScramSha256(iterations) => {
                let encode = Base64::encode_string;
                let (stored, server) = self.hash.split_at(KEY_BYTES.min(self.hash.len()));
                write!(f, "$scram-sha-256${iterations}${}", encode(&self.salt))?;
                return write!(f, "${}${}", encode(stored), encode(server));
            }
        }
        write!(f, "${}${}", Base64::encode_string(&self.salt), Base64::encode_string(&self.hash))
    }
}

impl fmt::Debug for Hash {
    /// Leaves salt and hash out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hash").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn warn_if_readable_by_all(path: &Path, problems: &mut Vec<Problem>) {
    #[cfg(unix)]
    if std::fs::metadata(path).is_ok_and(|m| std::os::unix::fs::MetadataExt::mode(&m) & 0o004 != 0) {
        let message =
            format!("{0} can be read by everyone on this machine; 'chmod o-r {0}' ends that", path.display());
        problems.push(Problem { at: None, severity: Severity::Warning, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        /// The efforts of the hashes that this thread has computed.
        pub(super) static COMPUTED: RefCell<Vec<(u8, [u32; 4])>> = const { RefCell::new(Vec::new()) };
    }

    /// Made by mosquitto_passwd 2.0.11, which knows no Argon2: that line is a vector of the reference
    /// implementation.
    const FILE: &str = "\
new:$7$101$rmKEmtDhTH0zfPme$OdK72HpZ5ID3pfgjOppwpXB7o5Ts2Fz+Vyv1GoRO7/EmB9k8nU4q35V33Eiyl+b3zxLfx943jMPZd4qlkSI3eQ==
old:$6$v5TCR/5Ly+KmFksm$fqmnMJFuD0vE0fuXZuj4cltj1/ltzCb7qS289xrMh4zEEZgSLSFWOP+/80V9ybFWERR9m15/14LeMGsm4CyTuw==
argon:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4
";

    fn read(text: &str) -> (Option<PasswordFile>, Vec<String>) {
        let mut problems = Vec::new();
        let file = PasswordFile::parse(text, Path::new("users"), &mut problems);
        (file, problems.iter().map(crate::auth::text).collect())
    }

    #[test]
    fn known_hashes_are_verified() {
        let (file, problems) = read(FILE);
        let file = file.unwrap();
        assert_eq!((file.len(), problems), (3, vec![]));
        for (user, password) in [("new", "correct horse"), ("old", "päss:wörd"), ("argon", "password")] {
            assert!(file.verify(user, Some(password.as_bytes())), "{user}");
            assert!(!file.verify(user, Some(b"password ")) && !file.verify(user, Some(b"")), "{user}");
            assert!(!file.verify(user, None));
        }
        assert!(!file.verify("nobody", Some(b"password")) && !file.verify("", None));
    }

    #[test]
    fn an_empty_password_is_nobodys() {
        let hash = Hash::create(Scheme::Sha512, b"").unwrap();
        let (file, _) = read(&format!("empty:{hash}"));
        let file = file.unwrap();
        assert!(hash.verify(b""));
        assert!(!file.verify("empty", Some(b"")) && !file.verify("empty", None));
    }

    #[test]
    fn what_is_created_is_read_back() {
        let iterations = SCRAM_ITERATIONS_MIN;
        for scheme in [
            Scheme::Pbkdf2 { iterations: NonZeroU32::MIN },
            Scheme::Sha512,
            Scheme::Argon2id,
            Scheme::ScramSha256 { iterations },
        ] {
            let hash = Hash::create(scheme, b"a\0b").unwrap();
            let again = Hash::parse(&hash.to_string()).unwrap();
            assert_eq!(again, hash);
            assert!(again.verify(b"a\0b") && !again.verify(b"a"));
            assert_ne!(Hash::create(scheme, b"a\0b").unwrap(), hash, "salted");
        }
    }

    #[test]
    fn the_unknown_cost_what_the_known_cost() {
        let hash = FILE.lines().map(|line| line.split_once(':').unwrap().1).collect::<Vec<_>>();
        // One with Argon2, three with PBKDF2, six with SHA-512.
        let users = [(1, 2), (3, 0), (6, 1)].into_iter().flat_map(|(count, of)| vec![hash[of]; count]);
        let text = |more: &str| -> String {
            users
                .clone()
                .enumerate()
                .map(|(i, hash)| format!("user{i}:{hash}\n"))
                .chain([more.into()])
                .collect()
        };
        let file = read(&text("")).0.unwrap();
        let kind = |file: &PasswordFile, i: usize| file.dummies.of(&format!("unknown{i}")).effort().0;
        let mut counts = [0; 3];
        (0..10_000).for_each(|i| counts[usize::from(kind(&file, i))] += 1);
        for (count, expected) in counts.into_iter().zip([6_000, 3_000, 1_000]) {
            assert!((expected - 300..expected + 300).contains(&count), "{counts:?}");
        }
        // Whoever comes in addition leaves nearly all as they are.
        let more = read(&text(&format!("more:{}\n", hash[1]))).0.unwrap();
        let moved = (0..10_000).filter(|&i| kind(&file, i) != kind(&more, i)).count();
        assert!(moved < 1_000, "{moved}");
        assert!(matches!(read("").0.unwrap().dummies.of("x").kind, Kind::Pbkdf2(_)));
    }

    #[test]
    fn every_question_computes_one_hash_of_the_users_kind() {
        let hash = |iterations| Hash::create(Scheme::Pbkdf2 { iterations }, b"x").unwrap();
        let iterations = NonZeroU32::new(7).unwrap();
        let file = read(&format!("ann:{}\nbob:{}\n", hash(iterations), hash(iterations))).0.unwrap();
        for (name, password, welcome) in [
            ("ann", Some("x"), true),
            ("ann", Some("y"), false),
            ("ann", Some(""), false),
            ("ann", None, false),
            ("eve", Some("x"), false),
            ("eve", Some(""), false),
            ("eve", None, false),
            ("", Some("x"), false),
        ] {
            COMPUTED.take();
            assert_eq!(file.verify(name, password.map(str::as_bytes)), welcome, "{name} {password:?}");
            assert_eq!(COMPUTED.take(), [(1, [7, 0, 0, 0])], "{name} {password:?}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        let salted = "AAAAAAAAAAAAAAAA";
        for (text, problem) in [
            (
                "a:secret",
                "users:1:3: Unable to decode line in password file: the password of 'a' is not hashed; 'hikyaku-passwd -U FILE' hashes all of a file",
            ),
            (
                "#\n\n é:$5$a$b",
                "users:3:4: Unable to decode line in password file: the password of 'é' has a hash of unknown kind '$5$'; known are $6$, $7$, $argon2id$ and $scram-sha-256$",
            ),
            (":$6$a$b", "users:1:1: Invalid line in password file: the user name is empty"),
            (
                "a:",
                "users:1:3: Unable to decode line in password file: the password of 'a' is not hashed; 'hikyaku-passwd -U FILE' hashes all of a file",
            ),
            (
                "a:$6$!$b",
                "users:1:3: Unable to decode line in password file: the password of 'a' has a salt that is not valid base64",
            ),
            (
                &format!("a:$6${salted}"),
                "users:1:3: Unable to decode line in password file: the password of 'a' has no hash",
            ),
            (
                &format!("a:$6${salted}$AAAA"),
                "users:1:3: Unable to decode line in password file: the password of 'a' has a hash of 3 bytes instead of 64",
            ),
            (
                &format!("a:$7$0${salted}$AAAA"),
                "users:1:3: Unable to decode line in password file: the password of 'a' has no valid number of iterations",
            ),
            (
                "a:$argon2id$v=19$m=1,t=1,p=1$AAAAAAAAAAA$AAAAAA",
                "users:1:3: Unable to decode line in password file: the password of 'a' has Argon2 parameters that cannot be used",
            ),
            (
                &format!("a:$scram-sha-256$4095${salted}$AAAA$AAAA"),
                "users:1:3: Unable to decode line in password file: the password of 'a' has no valid number of iterations; 4096 to 1000000 are",
            ),
            (
                &format!("a:$scram-sha-256$4096${salted}$AAAA$AAAAAA=="),
                "users:1:3: Unable to decode line in password file: the password of 'a' has keys of 3 and 4 bytes, not 32",
            ),
            (
                &format!("a:$scram-sha-256$4096${salted}$AAAA"),
                "users:1:3: Unable to decode line in password file: the password of 'a' has no server key",
            ),
        ] {
            let (file, problems) = read(text);
            assert!(file.is_none());
            assert_eq!(problems, [problem]);
        }
        let hash = Hash::create(Scheme::Sha512, b"x").unwrap();
        let (file, problems) = read(&format!("a:{hash}\n a : {hash} \n"));
        assert!(file.is_none());
        assert_eq!(problems, ["users:2:1: Invalid line in password file: user 'a' is there twice"]);
        let (file, problems) = read(&format!("a:{hash}\r\nnonsense\r\n"));
        assert!(file.is_none());
        assert_eq!(problems, ["users:2:1: Invalid line in password file: it is not USER:HASH"]);
    }

    #[test]
    fn of_many_bad_lines_some_are_named() {
        for (lines, last) in
            [(21, "users: and 1 more errors"), (5000, "users: and 980 more errors; it was not read further")]
        {
            let (file, problems) = read(&"u:x\n".repeat(lines));
            assert!(file.is_none());
            assert_eq!((problems.len(), problems.last().map(|p| &**p)), (21, Some(last)));
        }
    }

    #[test]
    fn changed_and_removed_users_are_found() {
        let hash = || Hash::create(Scheme::Sha512, b"x").unwrap();
        let (a, b) = (hash(), hash());
        let old = read(&format!("a:{a}\nb:{b}\nc:{b}")).0.unwrap();
        let new = read(&format!("a:{a}\nb:{a}\nd:{a}")).0.unwrap();
        let mut changed: Vec<_> = old.changed_in(&new).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["b", "c"]);
    }
}
