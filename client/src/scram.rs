//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's part: we show that we know a password without sending it, and the
//! server shows that it knows its keys.
//!
//! There is no channel binding. User name and password are not normalized (SASLprep): what is not ASCII has to be
//! given in the code points the server has.

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use std::fmt;
use std::num::NonZeroU32;

/// The name of the authentication method.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";
const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
const NONCE_BYTES: usize = 18;
/// "n,,": no channel binding, and no other name to act under.
const HEADER: &str = "n,,";
/// Fewer would make it cheap to find the password out (RFC 7677); more are computed for long.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// Why authentication by SCRAM came to nothing on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// Enhanced authentication begins with MQTT 5.0.
    Version,
    /// The user name is empty or has a null character in it.
    Username,
    /// The system has no random numbers.
    Random,
    /// What the server sent is no message of this exchange.
    Message,
    /// The server wants fewer iterations than are safe, or more than are reasonable.
    Iterations,
    /// The server does not know the keys of this user: it is not the one the password is for.
    Signature,
}

impl fmt::Display for ScramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScramError::Version => "SCRAM needs MQTT 5.0",
            ScramError::Username => "SCRAM needs a user name, without null characters",
            ScramError::Random => "the system has no random numbers",
            ScramError::Message => "the server's SCRAM message cannot be understood",
            ScramError::Iterations => "the server wants too few or too many SCRAM iterations",
            ScramError::Signature => "the server has not shown that it knows the user",
        })
    }
}

impl std::error::Error for ScramError {}

/// Who we are, and where an exchange stands.
pub(crate) struct Scram {
    /// With commas and equals signs escaped.
    username: String,
    password: Vec<u8>,
    stage: Stage,
    /// Of the last exchange: the next one most likely needs the same.
    keys: Option<Keys>,
}

enum Stage {
    /// There is no exchange.
    Idle,
    /// The server is to send its challenge.
    First { bare: String, nonce: String },
    /// The server is to sign this.
    Last { signed: String },
}

struct Keys {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    client: hmac::Tag,
    server: hmac::Key,
}

impl Scram {
    pub fn new(username: &str, password: &[u8]) -> Result<Scram, ScramError> {
        if username.is_empty() || username.contains('\0') {
            return Err(ScramError::Username);
        }
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Ok(Scram { username, password: password.to_vec(), stage: Stage::Idle, keys: None })
    }

    /// Begins an exchange: the first message.
    pub fn first(&mut self) -> Result<Vec<u8>, ScramError> {
        let mut bytes = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| ScramError::Random)?;
        Ok(self.begin(Base64::encode_string(&bytes)))
    }

    fn begin(&mut self, nonce: String) -> Vec<u8> {
        let bare = format!("n={},r={nonce}", self.username);
        let message = format!("{HEADER}{bare}").into_bytes();
        self.stage = Stage::First { bare, nonce };
        message
    }

    /// Takes the server's challenge: our last message.
    pub fn last(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ScramError> {
        let Stage::First { bare, nonce } = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return Err(ScramError::Message);
        };
        let challenge = std::str::from_utf8(challenge).map_err(|_| ScramError::Message)?;
        let mut attributes = challenge.split(',');
        // "m=" before it would be an extension we do not know.
        let mut attribute =
            |name| attributes.next().and_then(|a| a.strip_prefix(name)).ok_or(ScramError::Message);
        let (both, salt, iterations) = (attribute("r=")?, attribute("s=")?, attribute("i=")?);
        if both.strip_prefix(nonce.as_str()).is_none_or(str::is_empty) {
            return Err(ScramError::Message);
        }
        let salt = Base64::decode_vec(salt).map_err(|_| ScramError::Message)?;
        let iterations = iterations.parse::<NonZeroU32>().map_err(|_| ScramError::Message)?;
        if !ITERATIONS.contains(&iterations.get()) {
            return Err(ScramError::Iterations);
        }
        let unproved = format!("c={},r={both}", Base64::encode_string(HEADER.as_bytes()));
        let signed = format!("{bare},{challenge},{unproved}");
        let keys = match self.keys.take() {
            Some(known) if known.salt == salt && known.iterations == iterations => known,
            _ => Keys::derive(&self.password, salt, iterations),
        };
        let stored = digest::digest(&digest::SHA256, keys.client.as_ref());
        let mask = sign(stored.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = keys.client.as_ref().iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
        self.keys = Some(keys);
        self.stage = Stage::Last { signed };
        Ok(format!("{unproved},p={}", Base64::encode_string(&proof)).into_bytes())
    }

    /// Takes the server's last message: whether it is the one that knows us.
    pub fn verify(&mut self, last: Option<&[u8]>) -> Result<(), ScramError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        // A server that lets us in without an exchange has shown nothing.
        let (Stage::Last { signed }, Some(keys)) = (stage, &self.keys) else {
            return Err(ScramError::Signature);
        };
        let last = last.and_then(|last| std::str::from_utf8(last).ok()).ok_or(ScramError::Signature)?;
        let signature = last.split(',').next().and_then(|a| a.strip_prefix("v=")).unwrap_or_default();
        let signature = Base64::decode_vec(signature).map_err(|_| ScramError::Message)?;
        hmac::verify(&keys.server, signed.as_bytes(), &signature).map_err(|_| ScramError::Signature)
    }
}

/// With the same user, and no exchange.
impl Clone for Scram {
    fn clone(&self) -> Self {
        let (username, password) = (self.username.clone(), self.password.clone());
        Scram { username, password, stage: Stage::Idle, keys: None }
    }
}

impl Keys {
    fn derive(password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> Keys {
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut salted);
        let server = hmac::Key::new(hmac::HMAC_SHA256, sign(&salted, b"Server Key").as_ref());
        Keys { salt, iterations, client: sign(&salted, b"Client Key"), server }
    }
}

fn sign(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

impl fmt::Debug for Scram {
    /// Leaves password and keys out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7677.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn begun() -> Scram {
        let mut scram = Scram::new("user", b"pencil").unwrap();
        assert_eq!(scram.begin(NONCE.into()), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        scram
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut scram = begun();
        for _ in 0..2 {
            assert_eq!(scram.last(CHALLENGE.as_bytes()).unwrap(), LAST.as_bytes());
            assert_eq!(scram.verify(Some(SIGNATURE.as_bytes())), Ok(()));
            assert!(scram.keys.is_some(), "for the next time");
            scram.begin(NONCE.into());
        }
        let (a, b) = (scram.first().unwrap(), scram.first().unwrap());
        assert_ne!(a, b, "each exchange has its own nonce");
    }

    #[test]
    fn challenges_are_not_trusted() {
        for (from, to, error) in [
            ("rOpr", "rOpx", ScramError::Message),
            ("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "", ScramError::Message),
            ("s=W22Z", "s=!", ScramError::Message),
            ("i=4096", "i=4095", ScramError::Iterations),
            ("i=4096", "i=1000001", ScramError::Iterations),
            ("i=4096", "i=0", ScramError::Message),
            ("r=rOpr", "m=must,r=rOpr", ScramError::Message),
            (",i=4096", "", ScramError::Message),
        ] {
            assert_eq!(begun().last(CHALLENGE.replace(from, to).as_bytes()), Err(error), "{to}");
        }
        assert_eq!(begun().last(b"\xff"), Err(ScramError::Message));
        let mut idle = Scram::new("user", b"pencil").unwrap();
        assert_eq!(idle.last(CHALLENGE.as_bytes()), Err(ScramError::Message));
        assert_eq!(Scram::new("", b"").unwrap_err(), ScramError::Username);
        assert_eq!(Scram::new("a,b=c", b"").unwrap().username, "a=2Cb=3Dc");
    }

    #[test]
    fn a_server_that_does_not_know_us_is_found_out() {
        for last in [None, Some(""), Some("e=other-error"), Some(&SIGNATURE[..10]), Some("v=AAAA")] {
            let mut scram = begun();
            scram.last(CHALLENGE.as_bytes()).unwrap();
            assert!(scram.verify(last.map(str::as_bytes)).is_err(), "{last:?}");
        }
        assert_eq!(begun().verify(Some(SIGNATURE.as_bytes())), Err(ScramError::Signature), "too early");
    }
}
