//! Who may come in: password files, ACL files, and the threads that check passwords.
//!
//! [`Security::load`] reads all files of a configuration and fills in what the core has to know of it. The core
//! asks who a client is only where that is not plain; the answer is given here:
//!
//! | user name | listener | answer |
//! |---|---|---|
//! | none | `allow_anonymous true` | let in, no password is looked at |
//! | none | otherwise | refused |
//! | given | with a `password_file` | what the file says |
//! | given | without, `allow_anonymous true` | let in, nobody checks the name |
//! | given | without, otherwise | refused |
//!
//! A client of 5.0 may authenticate by SCRAM-SHA-256 where there is a `password_file`, whether or not
//! anonymous clients are let in; what it is then known by is the user of that exchange, which has to be the user name in
//! CONNECT, if there is one. It may do so again at any time, as the same user.
//!
//! The name in a client certificate, where it is taken for the user name, needs no password.
//!
//! When files are read again, those are closed whose password or name the new files do not have, or
//! have with another hash (also if it is of the same password: the old one is not known any more), and
//! anonymous clients where they are no longer allowed. All others stay, with the rights of the new files.

mod acl;
#[doc(hidden)]
pub mod check;
mod hasher;
mod password;
mod scram;

pub(crate) use hasher::Hasher;
pub use password::{
    Hash, ITERATIONS, ITERATIONS_MAX, PasswordFile, SCRAM_ITERATIONS, SCRAM_ITERATIONS_MAX,
    SCRAM_ITERATIONS_MIN, Scheme,
};

use crate::config::{ListenerSettings, Problem, SecuritySettings, Severity};
use crate::file;
use crate::user::unreadable;
use hasher::Question;
use hikyaku_proto::broker::rights::{Rights, Rules};
use hikyaku_proto::broker::{
    AuthStep, Authenticate, Authentication, Config, ConnId, Listener, Revoked, Verdict,
};
use hikyaku_proto::codec::ReasonCode;
use scram::{Exchange, Nonce};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What the files of all listeners say.
#[derive(Clone, Debug, Default)]
pub struct Security {
    doors: Vec<Door>,
}

#[derive(Clone, Debug)]
struct Door {
    anonymous: bool,
    passwords: Option<Arc<PasswordFile>>,
    /// Nobody is let in any more, whatever names them.
    closed: bool,
}

/// The answer to who a client is.
pub(crate) enum Answer {
    Now(Verdict),
    /// The password has to be checked against this.
    Check(Arc<PasswordFile>),
    /// A SCRAM exchange with this begins.
    Scram(Arc<PasswordFile>),
}

/// The exchanges of a worker's clients that wait for the client, with what they are judged by.
#[derive(Debug, Default)]
pub(crate) struct Exchanges(HashMap<ConnId, Box<(Exchange, Arc<Security>)>>);

impl Exchanges {
    /// The connection is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.0.remove(&conn);
    }
}

impl Security {
    /// Reads the files of `listeners`, each once, and makes [`Config::listeners`] of them, one for each.
    /// The second value is what is remarkable about them.
    ///
    /// # Errors
    /// All problems there are, if one of them is an error. `core` is unchanged then.
    pub fn load(
        listeners: &[ListenerSettings],
        core: &mut Config,
    ) -> Result<(Security, Vec<Problem>), Vec<Problem>> {
        let mut files = Files::default();
        let mut doors = Vec::new();
        let mut settings = Vec::new();
        for (i, listener) in listeners.iter().enumerate() {
            let (door, mut listener) = files.open(listener);
            if let Some(known) = core.listeners.get(i) {
                listener.limits = known.limits.clone();
            }
            doors.push(door);
            settings.push(listener);
        }
        if files.problems.iter().any(|p| p.severity == Severity::Error) {
            return Err(files.problems);
        }
        files.warn_of_strangers(listeners);
        core.listeners = settings;
        Ok((Security { doors }, files.problems))
    }

    pub(crate) fn answer(&self, question: &Authenticate) -> Answer {
        let refused = Answer::Now(Verdict::Failure(ReasonCode::NotAuthorized));
        let welcome = Answer::Now(Verdict::Success { username: None, data: None });
        let Some(door) = self.doors.get(usize::from(question.listener)) else { return refused };
        if let Some(method) = &question.method {
            return match &door.passwords {
                Some(passwords) if method == scram::METHOD => Answer::Scram(Arc::clone(passwords)),
                _ => Answer::Now(Verdict::Failure(ReasonCode::BadAuthenticationMethod)),
            };
        }
        match (&question.username, &door.passwords) {
            (Some(_), Some(passwords)) => Answer::Check(Arc::clone(passwords)),
            _ if door.anonymous => welcome,
            _ => refused,
        }
    }

    /// Whom `new` would not have let in, of those who are.
    pub(crate) fn revoked_by(&self, new: &Security) -> Vec<Revoked> {
        let nobody = || Some(Default::default());
        let revoked = (0..).zip(self.doors.iter().zip(&new.doors)).map(|(listener, (old, new))| {
            let anonymous = old.anonymous && !new.anonymous;
            let certified = new.closed && !old.closed;
            let users = match (&old.passwords, &new.passwords) {
                (Some(old), Some(new)) => Some(old.changed_in(new).map(Box::from).collect()),
                (None, Some(_)) => None,
                (_, None) if new.anonymous => nobody(),
                (_, None) => None,
            };
            Revoked { listener, anonymous, users, certified }
        });
        revoked
            .filter(|r| r.anonymous || r.certified || r.users.as_ref().is_none_or(|u| !u.is_empty()))
            .collect()
    }
}

impl Hasher {
    /// Answers a question of the core, at once or later, on another thread; the answer comes with what it is judged
    /// by. The password is wiped afterwards.
    pub(crate) fn authenticate(
        &self,
        security: &Arc<Security>,
        exchanges: &mut Exchanges,
        mut question: Authenticate,
        answer: impl FnOnce(Verdict, Arc<Security>) + Send + 'static,
    ) {
        let password = question.password.take().map(Zeroizing::new);
        let address = question.peer.map(|p| p.ip());
        let data = question.data.take().unwrap_or_default();
        let by = Arc::clone(security);
        if question.step == AuthStep::Continue {
            let Some(begun) = exchanges.0.remove(&question.conn) else {
                return answer(Verdict::Failure(ReasonCode::NotAuthorized), by);
            };
            let (exchange, by) = *begun;
            let (keyless, said) = (exchange.keyless(), Arc::clone(&self.keyless_said));
            let user = self.key_of(exchange.username());
            return self.ask(Question {
                bytes: data.len(),
                check: Box::new(move || exchange.finish(&data)),
                address,
                user,
                answer: Box::new(move |verdict| {
                    answer(verdict, by);
                    // After the answer, whose time tells nothing.
                    if let Some(keyless) = keyless {
                        keyless.say(&said);
                    }
                }),
            });
        }
        match security.answer(&question) {
            Answer::Now(verdict) => answer(verdict, by),
            Answer::Check(passwords) => {
                let username = question.username.unwrap_or_default();
                let user = self.key_of(&username);
                self.ask(Question {
                    bytes: username.len() + password.as_ref().map_or(0, |p| p.len()),
                    check: Box::new(move || {
                        passwords.judge(&username, password.as_deref().map(Vec::as_slice))
                    }),
                    address,
                    user,
                    answer: Box::new(move |verdict| answer(verdict, by)),
                });
            }
            Answer::Scram(passwords) => {
                let verdict = match self.begin(&question, &data, &passwords) {
                    Ok((exchange, data)) => {
                        exchanges.0.insert(question.conn, Box::new((exchange, Arc::clone(&by))));
                        Verdict::Continue { data }
                    }
                    Err(reason) => Verdict::Failure(reason),
                };
                answer(verdict, by);
            }
        }
    }

    fn begin(
        &self,
        question: &Authenticate,
        first: &[u8],
        passwords: &PasswordFile,
    ) -> Result<(Exchange, Vec<u8>), ReasonCode> {
        let random = |e| {
            log::error!("A client is refused, there are no random numbers: {e}.");
            ReasonCode::ServerBusy
        };
        let nonce = Nonce::draw().map_err(random)?;
        let secret = self.secrets.of(passwords).map_err(random)?;
        let begun = Exchange::begin(first, question.username.as_deref(), passwords, &secret, &nonce);
        begun.ok_or(ReasonCode::NotAuthorized)
    }
}

/// The files that were read.
#[derive(Default)]
struct Files {
    passwords: HashMap<PathBuf, Option<Arc<PasswordFile>>>,
    rules: HashMap<PathBuf, Option<Arc<Rights>>>,
    problems: Vec<Problem>,
}

impl Files {
    fn open(&mut self, settings: &ListenerSettings) -> (Door, Listener) {
        let security = &settings.security;
        let passwords = security.password_file.as_deref().and_then(|path| self.passwords(path));
        let certified =
            settings.tls.as_ref().is_some_and(|t| t.use_identity_as_username || t.use_subject_as_username);
        let door = Door { anonymous: settings.allows_anonymous(), passwords, closed: settings.closed };
        let all_come_in = door.anonymous && security.password_file.is_none();
        let rights = self.rights(security, all_come_in && !certified);
        let listener = Listener {
            name: settings.name().into(),
            closed: settings.closed,
            authentication: if all_come_in { Authentication::None } else { Authentication::Ask },
            rights,
            clientid_prefixes: security.clientid_prefixes.as_deref().map(Box::from),
            auto_id_prefix: security.auto_id_prefix.as_deref().map(Box::from),
            use_username_as_clientid: settings.use_username_as_clientid,
            identity_required: certified,
            mount_point: settings.mount_point.as_deref().map(Arc::from),
            ..Listener::default()
        };
        (door, listener)
    }

    fn passwords(&mut self, path: &Path) -> Option<Arc<PasswordFile>> {
        if let Some(known) = self.passwords.get(path) {
            return known.clone();
        }
        let read = PasswordFile::read(path, &mut self.problems).map(Arc::new);
        self.passwords.insert(path.into(), read.clone());
        read
    }

    fn rights(&mut self, security: &SecuritySettings, unchecked: bool) -> Arc<Rights> {
        let Some(path) = &security.acl_file else { return Arc::default() };
        if let Some(known) = self.rules.get(path) {
            return known.clone().unwrap_or_default();
        }
        let read = acl::read(path, &mut self.problems);
        if unchecked && read.as_ref().is_some_and(Rules::name_users) {
            let path = path.display();
            let message = format!(
                "{path} has rules for users, but there is no password_file: any client may claim any name"
            );
            self.problems.push(Problem { at: None, severity: Severity::Warning, message });
        }
        let read = read.map(|rules| Arc::new(Rights::Rules(rules)));
        self.rules.insert(path.clone(), read.clone());
        read.unwrap_or_default()
    }
}

impl Files {
    /// Warns of rules for users who are in no password file that is used with them.
    fn warn_of_strangers(&mut self, listeners: &[ListenerSettings]) {
        for (acl, rights) in &self.rules {
            let Some(Rights::Rules(rules)) = rights.as_deref() else { continue };
            let with = || listeners.iter().filter(|l| l.security.acl_file.as_ref() == Some(acl));
            let named_otherwise = |l: &ListenerSettings| {
                let tls = l.tls.as_ref();
                l.security.password_file.is_none()
                    || tls.is_some_and(|t| t.use_identity_as_username || t.use_subject_as_username)
            };
            if with().any(named_otherwise) {
                continue;
            }
            let files = || with().filter_map(|l| l.security.password_file.as_ref());
            let known = |user: &str| {
                let mut found = files().filter_map(|file| self.passwords.get(file)?.as_ref());
                found.any(|passwords| passwords.has(user))
            };
            let mut strangers: Vec<_> = rules.users().filter(|user| !known(user)).collect();
            strangers.sort_unstable();
            let (Some(first), Some(file)) = (strangers.first(), files().next()) else { continue };
            let others = match strangers.len() - 1 {
                0 => String::new(),
                more => format!(", nor are {more} others"),
            };
            let message = format!(
                "{} has rules for user '{}', who is not in {}{others}.",
                acl.display(),
                first.escape_debug(),
                file.display()
            );
            self.problems.push(Problem { at: None, severity: Severity::Warning, message });
        }
    }
}

/// The text of the file an option names.
fn read_text(option: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<String> {
    let mut fail = |cause: String| {
        let message = format!("Unable to open {option} \"{}\": {cause}.", path.display());
        problems.push(Problem { at: None, severity: Severity::Error, message });
    };
    match file::read(path, file::USERS_BYTES_MAX).map(String::from_utf8) {
        Ok(Ok(text)) => Some(text),
        Ok(Err(e)) => {
            let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
            fail(format!("line {line} is not UTF-8"));
            None
        }
        Err(e) => {
            fail(unreadable(path, &e));
            None
        }
    }
}

/// A problem without its severity.
#[cfg(test)]
fn text(problem: &Problem) -> String {
    match &problem.at {
        Some(at) => format!("{at}: {}", problem.message),
        None => problem.message.clone(),
    }
}
