//! Lists of ciphers in OpenSSL's words, narrowed to the ciphers that are spoken here.
//!
//! All of them are good ones, so a list that speaks of kinds (`HIGH:!aNULL`) is not resolved: it has no effect. A list
//! of names leaves those of them that there are.

use rustls::CipherSuite;

/// What a list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// These, and what of the list there is not here.
    Named { suites: Vec<CipherSuite>, absent: Vec<String> },
    /// This is no name of a cipher, but may be one of a kind.
    Kinds(String),
}

/// Names of OpenSSL and of the standards.
pub(super) const TLS_1_2: &[(&str, &str, CipherSuite)] = &[
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Names of OpenSSL and of the standards, which are the same.
pub(super) const TLS_1_3: &[(&str, &str, CipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// Reads a list of `known` ciphers and others.
///
/// # Errors
/// If it names none that there is.
pub(super) fn parse(list: &str, known: &[(&str, &str, CipherSuite)]) -> Result<List, String> {
    let (mut suites, mut absent) = (Vec::new(), Vec::new());
    for word in list.split([':', ',', ' ', '\t']).filter(|word| !word.is_empty()) {
        match known.iter().find(|(openssl, standard, _)| [*openssl, *standard].contains(&word)) {
            Some(&(_, _, suite)) => suites.push(suite),
            None if is_kind(word) => return Ok(List::Kinds(word.to_owned())),
            None => absent.push(word.to_owned()),
        }
    }
    if suites.is_empty() {
        let names: Vec<_> = known.iter().map(|(name, ..)| *name).collect();
        return Err(format!("None of these ciphers is spoken here. There are {}.", names.join(", ")));
    }
    Ok(List::Named { suites, absent })
}

/// Names of ciphers have several parts.
fn is_kind(word: &str) -> bool {
    let strange = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit());
    let known =
        ["aNULL", "eNULL", "aRSA", "kRSA", "aECDSA", "kECDHE", "kEECDH", "kDHE", "kEDH", "aPSK", "kPSK"];
    word.starts_with(['!', '-', '+', '@'])
        || word.contains('+')
        || known.contains(&word)
        || !word.contains(strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_kinds_are_told() {
        let suite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        let named = |absent: &[&str]| {
            let absent = absent.iter().map(|&name| name.to_owned()).collect();
            Ok(List::Named { suites: vec![suite], absent })
        };
        assert_eq!(parse("ECDHE-RSA-AES128-GCM-SHA256", TLS_1_2), named(&[]));
        assert_eq!(
            parse("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:AES256-SHA", TLS_1_2),
            named(&["AES256-SHA"])
        );
        for kind in ["HIGH", "!aNULL", "kECDHE", "ECDHE+AESGCM", "@SECLEVEL=1"] {
            let list = format!("ECDHE-RSA-AES128-GCM-SHA256:{kind}");
            assert_eq!(parse(&list, TLS_1_2), Ok(List::Kinds(kind.to_owned())));
        }
        for none in ["invalid", "AES256-SHA", "", "TLS_AES_128_GCM_SHA256"] {
            assert!(parse(none, TLS_1_2).is_err(), "{none}");
        }
        let all = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256,TLS_AES_128_GCM_SHA256";
        assert!(
            matches!(parse(all, TLS_1_3), Ok(List::Named { suites, absent }) if suites.len() == 3 && absent.is_empty())
        );
    }
}
