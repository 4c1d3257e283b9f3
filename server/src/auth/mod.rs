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
//! The name in a client certificate, where it is taken for the user name, needs no password.
//!
//! When files are read again, those are closed whose password or name the new files do not have, or
//! have with another hash (also if it is of the same password: the old one is not known any more), and
//! anonymous clients where they are no longer allowed. All others stay, with the rights of the new files.

mod acl;
mod hasher;
mod password;

pub(crate) use hasher::{Hasher, Question};
pub use password::{Hash, ITERATIONS, PasswordFile, Scheme};

use crate::config::{ListenerSettings, Problem, SecuritySettings, Severity};
use hikyaku_proto::broker::rights::{Rights, Rules};
use hikyaku_proto::broker::{Authenticate, Authentication, Config, Listener, Revoked, Verdict};
use hikyaku_proto::codec::ReasonCode;
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
        core.listeners = settings;
        Ok((Security { doors }, files.problems))
    }

    pub(crate) fn answer(&self, question: &Authenticate) -> Answer {
        let refused = Answer::Now(Verdict::Failure(ReasonCode::NotAuthorized));
        let welcome = Answer::Now(Verdict::Success { username: None, data: None });
        if question.method.is_some() {
            return Answer::Now(Verdict::Failure(ReasonCode::BadAuthenticationMethod));
        }
        let Some(door) = self.doors.get(usize::from(question.listener)) else { return refused };
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
    /// Answers a question of the core, at once or later, on another thread. The password is wiped afterwards.
    pub(crate) fn authenticate(
        &self,
        security: &Security,
        mut question: Authenticate,
        answer: impl FnOnce(Verdict) + Send + 'static,
    ) {
        let password = question.password.take().map(Zeroizing::new);
        match security.answer(&question) {
            Answer::Now(verdict) => answer(verdict),
            Answer::Check(passwords) => self.ask(Question {
                passwords,
                username: question.username.unwrap_or_default(),
                password,
                address: question.peer.map(|p| p.ip()),
                answer: Box::new(answer),
            }),
        }
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

/// The text of the file an option names.
fn read_text(option: &str, path: &Path, problems: &mut Vec<Problem>) -> Option<String> {
    let mut fail = |cause: String| {
        let message = format!("Unable to open {option} \"{}\": {cause}.", path.display());
        problems.push(Problem { at: None, severity: Severity::Error, message });
    };
    match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => Some(text),
        Ok(Err(e)) => {
            let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
            fail(format!("line {line} is not UTF-8"));
            None
        }
        Err(e) => {
            fail(e.to_string());
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
