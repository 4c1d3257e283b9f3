//! Manages password files, with mosquitto_passwd's options.

use hikyaku::auth::{
    Hash, ITERATIONS, ITERATIONS_MAX, SCRAM_ITERATIONS, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN, Scheme,
};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};
use std::num::{IntErrorKind, NonZeroU32};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

const HELP: &str = "\
hikyaku-passwd manages password files for hikyaku and mosquitto.

Usage: hikyaku-passwd [-H HASH | --scram] [-I N] [-c | -D] FILE USER
       hikyaku-passwd [-H HASH | --scram] [-I N] [-c] -b FILE USER PASSWORD
       hikyaku-passwd [-H HASH | --scram] [-I N] -U FILE

Sets the password of USER, asking for it twice, and adds USER if not there yet.

 -b  take the password from the command line, where other users of the machine
     can see it
 -c  create FILE; what was in it is lost. FILE may be - for the standard output
 -D  delete USER
 -H  sha512-pbkdf2 (default), argon2id (mosquitto from 2.1), or sha512 (weak,
     for mosquitto before 2.0)
 -I  how often the hash is iterated; default: 1000 for sha512-pbkdf2, 50000 for
     --scram, where 4096 is the least
 -U  hash the passwords that stand in FILE as plain text
 -h  show this
 --scram
     store keys for SCRAM-SHA-256, by which clients of MQTT 5.0 authenticate
     without sending the password; it may be sent as well. Each client computes
     the iterations when it connects. What is not ASCII in USER and password is
     taken as it is typed (no SASLprep). mosquitto cannot read such a line
";

const FAILURE: u8 = 1;
const MISMATCH: u8 = 2;
const TEXT_MAX: usize = 65_535;

/// What to do.
#[derive(PartialEq, Eq)]
enum Task {
    Help,
    Set { create: bool, file: PathBuf, user: Vec<u8>, password: Option<Zeroizing<Vec<u8>>>, scheme: Scheme },
    Delete { file: PathBuf, user: Vec<u8> },
    Update { file: PathBuf, scheme: Scheme },
}

impl fmt::Debug for Task {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, file, user, password) = match self {
            Task::Help => return f.write_str("Help"),
            Task::Set { file, user, password, .. } => ("Set", file, user.as_slice(), password.is_some()),
            Task::Delete { file, user } => ("Delete", file, user.as_slice(), false),
            Task::Update { file, .. } => ("Update", file, &[][..], false),
        };
        let password = if password { " with ***" } else { "" };
        write!(f, "{name}({} of {}{password})", user.escape_ascii(), file.display())
    }
}

/// What to print, and the exit code.
type Failed = (String, u8);

/// User and password of a line.
type Entry<'a> = (&'a [u8], &'a [u8]);

fn main() -> ExitCode {
    let done = match parse(std::env::args_os().skip(1)) {
        Ok(Task::Help) => Ok(HELP.to_string()),
        Ok(task) => run(task),
        Err(message) => Err((message, FAILURE)),
    };
    // Nobody is left to be told that nobody reads this.
    match done {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err((text, code)) => {
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(code)
        }
    }
}

/// Reads the arguments. An error is the text to print.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task, String> {
    let mut args = args.into_iter().peekable();
    let (mut batch, mut create, mut delete, mut update) = (false, false, false, false);
    let (mut hash, mut scram, mut iterations) = (None, false, None::<NonZeroU32>);
    while let Some(option) = args.next_if(|a| a.len() > 1 && a.as_bytes().starts_with(b"-")) {
        let mut value = |what| {
            args.next()
                .ok_or_else(|| format!("Error: {what} argument given but not enough other arguments.\n"))
        };
        match option.as_bytes() {
            b"-b" => batch = true,
            b"-c" => create = true,
            b"-D" => delete = true,
            b"-U" => update = true,
            b"-H" => hash = Some(value("-H")?),
            b"--scram" => scram = true,
            b"-I" => {
                let value = value("-I")?;
                iterations = Some(match value.to_string_lossy().parse() {
                    Ok(number) => number,
                    // The limit says no.
                    Err(e) if *e.kind() == IntErrorKind::PosOverflow => NonZeroU32::MAX,
                    Err(_) => return Err("Error: Number of iterations must be > 0.\n".into()),
                });
            }
            b"-h" | b"--help" => return Ok(Task::Help),
            b"--" => break,
            _ => return Err(format!("Error: Unknown option '{}'.\n\n{HELP}", option.display())),
        }
    }
    let scheme = scheme(hash.as_deref(), scram, iterations)?;
    for (a, b, names) in [
        (create, delete, "-c and -D"),
        (create, update, "-c and -U"),
        (delete, update, "-D and -U"),
        (batch, delete, "-b and -D"),
    ] {
        if a && b {
            return Err(format!("Error: {names} cannot be used together.\n"));
        }
    }
    let rest: Vec<OsString> = args.collect();
    let task = match &rest[..] {
        [] if !(batch || create || delete || update) => return Err(HELP.to_string()),
        [file] if update => Task::Update { file: file.into(), scheme },
        [_, _, ..] if update => {
            return Err("Error: -U takes the password file, and nothing else.\n".into());
        }
        [file, user] if delete => Task::Delete { file: file.into(), user: name(user)? },
        [file, user] if !batch => {
            Task::Set { create, file: file.into(), user: name(user)?, password: None, scheme }
        }
        [file, user, password] if batch => {
            let password = Zeroizing::new(password.as_bytes().to_vec());
            if password.len() > TEXT_MAX {
                return Err("Error: Password must be less than 65536 characters long.\n".into());
            }
            Task::Set { create, file: file.into(), user: name(user)?, password: Some(password), scheme }
        }
        rest => {
            let (wanted, most) = match () {
                () if update => ("password file", 1),
                () if batch => ("password file, username, or password", 3),
                () => ("password file or username", 2),
            };
            let option = [(create, "-c"), (delete, "-D"), (update, "-U"), (batch, "-b")];
            return Err(match option.iter().find(|(given, _)| *given) {
                _ if rest.len() > most => format!("Error: There are too many arguments.\n\n{HELP}"),
                Some((_, option)) => format!("Error: {option} argument given but {wanted} missing.\n"),
                None => format!("Error: FILE and USER are needed.\n\n{HELP}"),
            });
        }
    };
    Ok(task)
}

fn scheme(hash: Option<&OsStr>, scram: bool, iterations: Option<NonZeroU32>) -> Result<Scheme, String> {
    match hash.map(OsStr::as_bytes) {
        Some(_) if scram => Err("Error: -H and --scram cannot be used together.\n".into()),
        None if scram => {
            let iterations = iterations.unwrap_or(SCRAM_ITERATIONS);
            let (least, most) = (SCRAM_ITERATIONS_MIN, SCRAM_ITERATIONS_MAX);
            if (least..=most).contains(&iterations) {
                Ok(Scheme::ScramSha256 { iterations })
            } else {
                Err(format!("Error: Number of iterations must be {least} to {most} with --scram.\n"))
            }
        }
        None | Some(b"sha512-pbkdf2") => match iterations.unwrap_or(ITERATIONS) {
            iterations if iterations <= ITERATIONS_MAX => Ok(Scheme::Pbkdf2 { iterations }),
            _ => Err(format!("Error: Number of iterations must be 1 to {ITERATIONS_MAX}.\n")),
        },
        Some(b"argon2id") => Ok(Scheme::Argon2id),
        Some(b"sha512") => Ok(Scheme::Sha512),
        Some(_) => Err(format!("Error: Unknown hash type '{}'\n", hash.unwrap_or_default().display())),
    }
}

fn name(user: &OsStr) -> Result<Vec<u8>, String> {
    let Some(text) = user.to_str() else { return Err("Error: Username must be UTF-8.\n".into()) };
    let problem = match text {
        _ if text.len() > TEXT_MAX => "must be less than 65536 characters long",
        _ if text.contains(char::is_control) => "must not contain control characters",
        _ if text.contains(':') => "must not contain the ':' character",
        _ if text.trim().is_empty() => "must not be empty",
        _ if text.trim() != text => "must not begin or end with a blank",
        _ if text.starts_with('#') => "must not begin with '#': its line would be a comment",
        _ => return Ok(text.into()),
    };
    Err(format!("Error: Username {problem}.\n"))
}

fn run(task: Task) -> Result<String, Failed> {
    match task {
        Task::Help => Ok(HELP.to_string()),
        Task::Set { create, file, user, password, scheme } => {
            let printed = create && file == Path::new("-");
            if !printed {
                // Before anything is asked. While somebody types others may write.
                Store::open(&file, create)?;
            }
            let password = match password {
                Some(password) => password,
                None => ask_twice()?,
            };
            if password.is_empty() {
                let text = "Error: Empty password. Brokers let nobody in with it.\n";
                return Err((text.to_owned(), FAILURE));
            }
            let line = hashed(&user, scheme, &password)?;
            if printed {
                return String::from_utf8(line).map_err(|e| (e.to_string(), FAILURE));
            }
            let mut store = Store::open(&file, create)?;
            let old = if create { Vec::new() } else { store.read()? };
            let (new, found) = with_user(&old, &user, &line)?;
            store.replace(&new)?;
            let what = if found { "Updating" } else { "Adding" };
            Ok(format!("{what} password for user {}\n", String::from_utf8_lossy(&user)))
        }
        Task::Delete { file, user } => {
            let mut store = Store::open(&file, false)?;
            let (new, found) = with_user(&store.read()?, &user, b"")?;
            if !found {
                let user = String::from_utf8_lossy(&user);
                return Err((format!("Warning: User {user} not found in password file.\n"), FAILURE));
            }
            store.replace(&new).map(|()| String::new())
        }
        Task::Update { file, scheme } => {
            let mut store = Store::open(&file, false)?;
            let new = all_hashed(&store.read()?, scheme)?;
            store.replace(&new).map(|()| String::new())
        }
    }
}

/// A line of the file, with its end.
fn hashed(user: &[u8], scheme: Scheme, password: &[u8]) -> Result<Vec<u8>, Failed> {
    let hash = Hash::create(scheme, password).map_err(|e| failed("Unable to hash password", e))?;
    Ok([user, b":", hash.to_string().as_bytes(), b"\n"].concat())
}

/// The file with this line for a user, who may have been there.
fn with_user(old: &[u8], user: &[u8], line: &[u8]) -> Result<(Vec<u8>, bool), Failed> {
    let mut new = Vec::new();
    let mut found = false;
    for (number, old) in (1..).zip(old.split_inclusive(|&b| b == b'\n')) {
        if split(number, old)?.is_some_and(|(name, _)| name == user) {
            if !found {
                new.extend_from_slice(line);
            }
            found = true;
            continue;
        }
        new.extend_from_slice(old);
        if !old.ends_with(b"\n") {
            new.push(b'\n');
        }
    }
    if !found {
        new.extend_from_slice(line);
    }
    Ok((new, found))
}

/// The file with all passwords hashed; those that are stay as they are.
fn all_hashed(old: &[u8], scheme: Scheme) -> Result<Vec<u8>, Failed> {
    let mut new = Vec::new();
    for (number, line) in (1..).zip(old.split_inclusive(|&b| b == b'\n')) {
        let Some((user, password)) = split(number, line)? else {
            new.extend_from_slice(line);
            continue;
        };
        let known = [&b"$6$"[..], b"$7$", b"$argon2id$", b"$scram-sha-256$"]
            .iter()
            .any(|kind| password.starts_with(kind));
        if !known {
            new.extend(hashed(user, scheme, password)?);
        } else if std::str::from_utf8(password).is_ok_and(|p| Hash::parse(p).is_ok()) {
            new.extend_from_slice(line);
        } else {
            return Err(corrupt(number));
        }
    }
    Ok(new)
}

/// User and password of a line; `None` for one that is empty or a comment.
fn split(number: usize, line: &[u8]) -> Result<Option<Entry<'_>>, Failed> {
    if line.starts_with(b"#") || line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let colon = line.iter().position(|&b| b == b':').ok_or_else(|| corrupt(number))?;
    let (user, password) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
    if user.is_empty() || password.is_empty() { Err(corrupt(number)) } else { Ok(Some((user, password))) }
}

fn corrupt(line: usize) -> Failed {
    (format!("Error: Corrupt password file at line {line}.\n"), FAILURE)
}

fn failed(what: impl fmt::Display, cause: impl fmt::Display) -> Failed {
    (format!("Error: {what}. {cause}.\n"), FAILURE)
}

/// The password file, which nobody else changes meanwhile.
struct Store {
    /// Where it is, behind all links.
    path: PathBuf,
    /// The file, locked; `None` if it is to be created.
    file: Option<File>,
}

impl Store {
    /// Opens a file, and waits until nobody else has it. Only if it is to be created it may be missing.
    fn open(file: &Path, create: bool) -> Result<Store, Failed> {
        let failed =
            |e: io::Error| failed(format_args!("Unable to open password file {}", file.display()), e);
        let path = target(file).map_err(failed)?;
        loop {
            let locked = match open_regular(&path) {
                Err(e) if create && e.kind() == ErrorKind::NotFound => return Ok(Store { path, file: None }),
                other => other.map_err(failed)?,
            };
            // Some file systems have no locks; there one writer at a time is the user's business.
            let _ = rustix::io::retry_on_intr(|| flock(&locked, FlockOperation::LockExclusive));
            // Who had the lock before has put another file in its place.
            let (own, there) = (locked.metadata().map_err(failed)?, std::fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
                return Ok(Store { path, file: Some(locked) });
            }
        }
    }

    fn read(&mut self) -> Result<Vec<u8>, Failed> {
        let mut content = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut content).map_err(|e| {
                failed(format_args!("Unable to read password file {}", self.path.display()), e)
            })?;
        }
        Ok(content)
    }

    /// Puts a new file in the place of the old one, all at once, with the same owner and permissions.
    fn replace(self, content: &[u8]) -> Result<(), Failed> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(format!(".new.{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let done = written.and_then(|new| {
            let done =
                fill(new, self.file.as_ref(), content).and_then(|()| std::fs::rename(&temporary, &self.path));
            if done.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            done
        });
        done.map_err(|e| failed(format_args!("Unable to write password file {}", self.path.display()), e))
    }
}

/// Where links lead, so that they stay; also to a file that is not there yet.
fn target(file: &Path) -> io::Result<PathBuf> {
    const LINKS_MAX: usize = 40;
    let mut file = file.to_path_buf();
    for _ in 0..LINKS_MAX {
        match file.canonicalize() {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        let Ok(link) = file.read_link() else { return Ok(file) };
        file.pop();
        file.push(link);
    }
    Err(io::Error::other("There are too many links"))
}

/// Opens a file; what is none is left alone, and waited for by nobody.
fn open_regular(path: &Path) -> io::Result<File> {
    // Opening alone may do something to a device, or wait for who writes to a pipe.
    check_regular(&std::fs::metadata(path)?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    match found.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(io::Error::other("It is a directory")),
        _ => Err(io::Error::other("It is not a regular file")),
    }
}

fn fill(mut new: File, old: Option<&File>, content: &[u8]) -> io::Result<()> {
    if let Some(old) = old {
        let (own, old) = (new.metadata()?, old.metadata()?);
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            // The broker may be who owns it: it has to be able to read it afterwards.
            fchown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(old.permissions())?;
    }
    new.write_all(content)?;
    new.sync_all()
}

fn ask_twice() -> Result<Zeroizing<Vec<u8>>, Failed> {
    let first = ask("Password: ")?;
    if ask("Reenter password: ")? != first {
        return Err(("Error: Passwords do not match.\n".into(), MISMATCH));
    }
    Ok(first)
}

/// Asks for a line, which is not shown.
fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let _ = io::stdout().write_all(prompt.as_bytes()).and_then(|()| io::stdout().flush());
    let _silence = Silence::begin();
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let read = io::stdin().lock().read_until(b'\n', &mut line);
    read.map_err(|e| failed("Unable to read the password", e))?;
    let _ = io::stdout().write_all(b"\n");
    while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        line.pop();
    }
    match line.len() {
        0 => Err(("Error: Empty password.\n".into(), FAILURE)),
        1..=TEXT_MAX => Ok(line),
        _ => Err(("Error: Password must be less than 65536 characters long.\n".into(), FAILURE)),
    }
}

/// While it lives the terminal does not show what is typed.
struct Silence(Option<rustix::termios::Termios>);

impl Silence {
    fn begin() -> Self {
        let stdin = io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            // Who ends the program here wants an echo afterwards.
            let restored = before.clone();
            if let Ok(mut signals) = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT]) {
                std::thread::spawn(move || {
                    if signals.forever().next().is_some() {
                        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &restored);
                        std::process::exit(130);
                    }
                });
            }
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(&stdin, OptionalActions::Now, &silent);
        }
        Silence(before)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &str) -> Result<Task, String> {
        parse(args.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_task_that_is_printed_holds_no_password() {
        let task = parsed("-b f ann secret").unwrap();
        assert_eq!(format!("{task:?} {task:#?}"), "Set(ann of f with ***) Set(ann of f with ***)");
        let others = ["f ann", "-D f ann", "-U f", "--help"].map(|args| parsed(args).unwrap());
        assert_eq!(format!("{others:?}"), "[Set(ann of f), Delete(ann of f), Update( of f), Help]");
    }

    #[test]
    fn options_are_mosquitto_passwds() {
        let scheme = Scheme::Pbkdf2 { iterations: ITERATIONS };
        let (file, user) = (PathBuf::from("f"), b"u".to_vec());
        let set = |create, password: Option<&str>, scheme| {
            let password = password.map(|p| Zeroizing::new(p.into()));
            Ok(Task::Set { create, file: file.clone(), user: user.clone(), password, scheme })
        };
        assert_eq!(parsed("f u"), set(false, None, scheme));
        assert_eq!(parsed("-c -b -H argon2id f u p"), set(true, Some("p"), Scheme::Argon2id));
        let iterations = 5.try_into().unwrap();
        assert_eq!(parsed("-I 5 -b f u -p"), set(false, Some("-p"), Scheme::Pbkdf2 { iterations }));
        let scram = |iterations| Scheme::ScramSha256 { iterations };
        assert_eq!(parsed("--scram f u"), set(false, None, scram(SCRAM_ITERATIONS)));
        assert_eq!(parsed("-I 4096 --scram f u"), set(false, None, scram(SCRAM_ITERATIONS_MIN)));
        assert_eq!(parsed("-D f u"), Ok(Task::Delete { file: file.clone(), user }));
        assert_eq!(parsed("-U f"), Ok(Task::Update { file, scheme }));
        for (args, error) in [
            ("-c -D f u", "Error: -c and -D cannot be used together."),
            ("-b -D f u", "Error: -b and -D cannot be used together."),
            ("-I 0 f u", "Error: Number of iterations must be > 0."),
            ("-I 100000001 f u", "Error: Number of iterations must be 1 to 100000000."),
            ("-I 99999999999 f u", "Error: Number of iterations must be 1 to 100000000."),
            ("-I -1 f u", "Error: Number of iterations must be > 0."),
            (
                "--scram -I 99999999999 f u",
                "Error: Number of iterations must be 4096 to 1000000 with --scram.",
            ),
            ("--scram -I 4095 f u", "Error: Number of iterations must be 4096 to 1000000 with --scram."),
            ("--scram -H sha512 f u", "Error: -H and --scram cannot be used together."),
            ("-H md5 f u", "Error: Unknown hash type 'md5'"),
            ("-H", "Error: -H argument given but not enough other arguments."),
            ("f", "Error: FILE and USER are needed."),
            ("f u p", "Error: There are too many arguments."),
            ("-b f u", "Error: -b argument given but password file, username, or password missing."),
            ("-c", "Error: -c argument given but password file or username missing."),
            ("-D f", "Error: -D argument given but password file or username missing."),
            ("-U", "Error: -U argument given but password file missing."),
            ("f a:b", "Error: Username must not contain the ':' character."),
            ("-x", "Error: Unknown option '-x'."),
        ] {
            assert_eq!(parsed(args).unwrap_err().lines().next(), Some(error));
        }
    }

    #[test]
    fn users_are_set_and_deleted_among_others() {
        let file = b"# staff\nann:$6$a\n\nbob:$6$b";
        let (new, found) = with_user(file, b"ann", b"ann:new\n").unwrap();
        assert_eq!((&new[..], found), (&b"# staff\nann:new\n\nbob:$6$b\n"[..], true));
        let (new, found) = with_user(file, b"cid", b"cid:new\n").unwrap();
        assert_eq!((&new[..], found), (&b"# staff\nann:$6$a\n\nbob:$6$b\ncid:new\n"[..], false));
        let (new, found) = with_user(file, b"bob", b"").unwrap();
        assert_eq!((&new[..], found), (&b"# staff\nann:$6$a\n\n"[..], true));
        assert_eq!(with_user(b"a:b\nc\n", b"a", b""), Err(corrupt(2)));
    }

    #[test]
    fn plain_passwords_are_hashed_and_hashed_ones_kept() {
        let kept = hashed(b"bob", Scheme::Sha512, b"x").unwrap();
        let new = all_hashed(&[b"ann: a:b \n# c\n", &kept[..]].concat(), Scheme::Sha512).unwrap();
        let new = String::from_utf8(new).unwrap();
        let lines: Vec<&str> = new.lines().collect();
        let hash = Hash::parse(lines[0].strip_prefix("ann:").unwrap()).unwrap();
        assert!(hash.verify(b"a:b"));
        assert_eq!((lines[1], lines[2]), ("# c", String::from_utf8_lossy(&kept).trim_end()));
        let scheme = Scheme::ScramSha256 { iterations: SCRAM_ITERATIONS_MIN };
        let scram = all_hashed(b"ann:x\n", scheme).unwrap();
        assert!(scram.starts_with(b"ann:$scram-sha-256$4096$"));
        assert_eq!(all_hashed(&scram, Scheme::Sha512), Ok(scram));
        assert_eq!(all_hashed(b"ann:$7$broken", Scheme::Sha512), Err(corrupt(1)));
    }
}
