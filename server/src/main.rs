//! The broker's binary.

mod cli;
mod logger;
mod outlet;
mod privileges;
mod signals;
mod systemd;

use cli::{Command, Run, Verbosity};
use hikyaku::auth::Security;
use hikyaku::config::{self, ListenerSettings, LogTypes, Problem, Settings, Severity};
use hikyaku::{
    Bindings, Certificates, Hold, Inherited, MosquittoDb, Options, Remote, Rescued, StartError, User, Watch,
    unwritable,
};
use logger::Logger;
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signals::Inbox;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use systemd::Notifier;

/// The arguments or the configuration are wrong.
const USAGE: u8 = 3;
/// It cannot start or go on.
const FAILURE: u8 = 1;
/// What was saved may not be all there was.
const DAMAGED: u8 = 2;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    match cli::parse(args) {
        Ok(Command::Run(run)) => serve(&run),
        Ok(Command::Test(run)) => test(&run),
        Ok(Command::Import(run, file)) => match import(&run, &file) {
            Ok(summary) => print(&mut std::io::stdout(), &summary, 0),
            Err(Failure { code, message }) => print(&mut std::io::stderr(), &message, code),
        },
        Ok(Command::Salvage(run, directory)) => salvage(&run, directory),
        Ok(Command::Help) => print(&mut std::io::stdout(), &cli::help(program.as_deref()), 0),
        Ok(Command::Version) => print(&mut std::io::stdout(), &format!("hikyaku version {VERSION}\n"), 0),
        Err(message) => print(&mut std::io::stderr(), &(message + "\n"), USAGE),
    }
}

fn print(to: &mut impl Write, text: &str, code: u8) -> ExitCode {
    // Nobody is left to be told that nobody reads this.
    let _ = to.write_all(text.as_bytes());
    ExitCode::from(code)
}

fn lines<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| logger::visible(&format!("{item}\n")).into_owned()).collect()
}

/// Says what there is to say of the configuration. Changes nothing.
fn test(run: &Run) -> ExitCode {
    let read = read_all(run, &[], None).and_then(|((settings, _), mut problems)| {
        problems.extend(hikyaku::foresee(&settings));
        match problems.iter().any(|p| p.severity == Severity::Error) {
            true => Err(problems),
            false => Ok((settings, problems)),
        }
    });
    match read {
        Ok((settings, problems)) => {
            print(&mut std::io::stderr(), &lines(problems), 0);
            let listeners = lines(settings.listeners.iter().map(ListenerSettings::describe));
            print(&mut std::io::stdout(), &format!("{listeners}Configuration file is OK.\n"), 0)
        }
        Err(problems) => print(&mut std::io::stderr(), &lines(problems), USAGE),
    }
}

/// Saves what can be read of a damaged store.
fn salvage(run: &Run, directory: Option<PathBuf>) -> ExitCode {
    let location = match directory
        .map_or_else(|| read(run, &[]).map(|(s, _)| s.persistence.location), |d| Ok(Some(d)))
    {
        Ok(location) => location.unwrap_or_else(|| PathBuf::from(".")),
        Err(problems) => return print(&mut std::io::stderr(), &lines(problems), USAGE),
    };
    // The engine may panic over damage. That is caught, and said in the lines below.
    std::panic::set_hook(Box::new(|panic| {
        if !panic.location().is_some_and(|at| at.file().contains("redb")) {
            print(&mut std::io::stderr(), &lines([panic]), FAILURE);
        }
    }));
    let mut tell = |line: String| {
        print(&mut std::io::stdout(), &lines([line]), 0);
    };
    match hikyaku::rescue(&location, &mut tell) {
        Ok(Rescued::Whole) => ExitCode::SUCCESS,
        Ok(Rescued::Renewed) => ExitCode::from(DAMAGED),
        Err(e) => print(&mut std::io::stderr(), &lines([format!("Error: {e}")]), FAILURE),
    }
}

/// The settings of the file and the command line; without these, for the `sockets` that were passed on.
fn read(run: &Run, sockets: &[Inherited]) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let (mut settings, problems) = match &run.config {
        Some(file) => config::read(file, &run.ports)?,
        None if run.ports.is_empty() && !sockets.is_empty() => {
            Settings::without_file_at(sockets.iter().map(Inherited::endpoint))
        }
        None => (Settings::without_file(&run.ports), Vec::new()),
    };
    settings.workers = run.workers.or(settings.workers);
    let all = |on| LogTypes { error: on, warning: on, notice: on, information: on, debug: on };
    if let Some(verbosity) = run.verbosity {
        settings.log.types = all(verbosity == Verbosity::Verbose);
    }
    Ok((settings, problems))
}

/// What the files say that the settings name.
struct Files {
    certificates: Certificates,
    security: Security,
    /// Of passwords and rights.
    watch: Watch,
}

type Loaded<T> = Result<(T, Vec<Problem>), Vec<Problem>>;

/// The settings with what the files say that they name: certificates, passwords and rights.
fn secure(
    mut settings: Settings,
    mut problems: Vec<Problem>,
    certificates: impl FnOnce(&[ListenerSettings]) -> Loaded<Certificates>,
) -> Loaded<(Settings, Files)> {
    let certificates = certificates(&settings.listeners);
    let watch = Watch::new(settings.listeners.iter().flat_map(|l| l.security.files()));
    let security = Security::load(&settings.listeners, &mut settings.core);
    let certificates = keep_problems(certificates, &mut problems);
    let security = keep_problems(security, &mut problems);
    match (certificates, security) {
        (Some(certificates), Some(security)) => {
            Ok(((settings, Files { certificates, security, watch }), problems))
        }
        _ => Err(problems),
    }
}

fn keep_problems<T>(loaded: Loaded<T>, problems: &mut Vec<Problem>) -> Option<T> {
    let (value, more) = match loaded {
        Ok((value, more)) => (Some(value), more),
        Err(more) => (None, more),
    };
    problems.extend(more);
    value
}

/// What a start, or the test of one, has to know.
fn read_all(run: &Run, sockets: &[Inherited], keylog: Option<&Path>) -> Loaded<(Settings, Files)> {
    let (settings, mut problems) = read(run, sockets)?;
    problems.extend(privileges::check(&settings, run.config.as_deref()));
    let (secured, problems) = secure(settings, problems, |listeners| Certificates::load(listeners, keylog))?;
    match problems.iter().any(|p| p.severity == Severity::Error) {
        true => Err(problems),
        false => Ok((secured, problems)),
    }
}

fn serve(run: &Run) -> ExitCode {
    let sockets = match systemd::take_sockets() {
        Ok(sockets) => sockets,
        Err(what) => return print(&mut std::io::stderr(), &format!("Error: {what}\n"), USAGE),
    };
    let ((settings, files), problems) = match read_all(run, &sockets, run.tls_keylog.as_deref()) {
        Ok(read) => read,
        Err(problems) => return print(&mut std::io::stderr(), &lines(problems), USAGE),
    };
    // Before there are other threads.
    let hold = match Hold::at(SIGHUP) {
        Ok(hold) => hold,
        Err(e) => {
            return print(
                &mut std::io::stderr(),
                &format!("Error: Signals cannot be watched: {e}.\n"),
                FAILURE,
            );
        }
    };
    let logger = match Logger::start(&settings.log) {
        Ok(logger) => logger,
        Err(e) => return print(&mut std::io::stderr(), &format!("Error: {e}\n"), FAILURE),
    };
    log::info!("hikyaku version {VERSION} starting");
    if let Some(file) = &run.config {
        log::info!("Config loaded from {}.", file.display());
    }
    problems.iter().for_each(say);
    match start(run, settings, files, sockets, hold, logger) {
        Ok(()) => {
            log::info!("hikyaku version {VERSION} terminating");
            ExitCode::SUCCESS
        }
        Err(Failure { code, message }) => {
            log::error!("{message}");
            if run.verbosity != Some(Verbosity::Quiet) && !logger.shows_errors() {
                print(&mut std::io::stderr(), &format!("Error: {message}\n"), code);
            }
            ExitCode::from(code)
        }
    }
}

/// Why the broker ends.
struct Failure {
    code: u8,
    message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure { code: FAILURE, message }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let code =
            if matches!(error, StartError::Settings(_) | StartError::Inherited(_)) { USAGE } else { FAILURE };
        Failure { code, message: error.to_string() }
    }
}

fn say(problem: &Problem) {
    let place = problem.at.as_ref().map_or(String::new(), |at| format!("{at}: "));
    match problem.severity {
        Severity::Error => log::error!("{place}{}", problem.message),
        Severity::Warning => log::warn!("{place}{}", problem.message),
        Severity::Note => log::info!("{place}{}", problem.message),
    }
}

/// Opens what needs privileges, gives them up, and serves until the end.
fn start(
    run: &Run,
    settings: Settings,
    files: Files,
    sockets: Vec<Inherited>,
    hold: Hold,
    logger: &'static Logger,
) -> Result<(), Failure> {
    let notifier = Notifier::from_env();
    raise_open_files();
    // Before anyone can connect: from now on a signal ends it properly.
    let signals =
        Inbox::open(&[SIGTERM, SIGINT, SIGHUP]).map_err(|e| format!("Signals cannot be watched: {e}."))?;
    // A file that may not grow any more is an error of that file, and no reason to die.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    if settings.listeners.iter().any(|l| l.local_only_default) {
        log::info!("Starting in local only mode. Connections will only be possible from this machine.");
    }
    let Files { certificates, security, watch } = files;
    let mut options = Options::from_settings(&settings, security);
    options.certificates = Some(certificates);
    options.hold = hold.clone();
    let bindings = Bindings::inherit(options, sockets)?;
    for listener in &settings.listeners {
        log::info!("{}", listener.describe());
    }
    let pid_file = settings.pid_file.as_deref().map(PidFile::write).transpose()?;
    give_up_root(settings.user.as_deref(), logger, pid_file.as_ref())?;
    let server = bindings.start()?;
    let (status, run, remote) = (status(&settings), run.clone(), server.remote());
    let mut reload = Reload { run, settings, watch, logger, remote, hold, notifier: notifier.clone() };
    std::thread::spawn(move || reload.watch(signals));
    log::info!("hikyaku version {VERSION} running");
    notifier.ready(&status);
    notifier.keep_watch(server.remote());
    server.wait().map_err(|e| format!("A worker ended: {e}.").into())
}

/// Where it listens, for the service manager to show.
fn status(settings: &Settings) -> String {
    let places: Vec<_> = settings.listeners.iter().map(|l| l.endpoint.to_string()).collect();
    format!("Listening on {}.", places.join(", "))
}

fn give_up_root(user: Option<&str>, logger: &Logger, pid_file: Option<&PidFile>) -> Result<(), String> {
    if !privileges::is_root() {
        return Ok(());
    }
    let Some(name) = user else {
        log::warn!("Running as root. Name a user for it to become: user hikyaku");
        return Ok(());
    };
    let user = User::find(name)?;
    logger.give_files_to(user.uid, user.gid);
    if let Some(PidFile(path)) = pid_file {
        let _ = std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid));
    }
    privileges::become_user(&user).map_err(|e| format!("Cannot become user '{name}': {e}."))
}

/// The file with the process id, removed with the value.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<PidFile, String> {
        fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| format!("Unable to write pid file {}. {}.", path.display(), unwritable(path, &e)))?;
        Ok(PidFile(path.into()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            let directory = self.0.parent().unwrap_or(Path::new("/")).display();
            log::warn!(
                "The pid file {} cannot be removed from {directory}, and stays: {e}.",
                self.0.display()
            );
        }
    }
}

/// Takes over what mosquitto kept. Returns what to say of it.
fn import(run: &Run, file: &Path) -> Result<String, Failure> {
    let error = |message: String| Failure::from(lines([format!("Error: {message}")]));
    let (settings, _) =
        read(run, &[]).map_err(|problems| Failure { code: USAGE, message: lines(problems) })?;
    if let Some(config) = run.config.as_ref().filter(|_| !settings.persistence.enabled) {
        return Err(error(format!(
            "{} does not say 'persistence true': a broker with it would not look at what is imported.",
            config.display()
        )));
    }
    // Root may read what is mosquitto's, and the broker's user write what is the broker's.
    let db = MosquittoDb::read(file).map_err(|e| error(e.to_string()))?;
    let location = settings.persistence.location.clone().unwrap_or_else(|| PathBuf::from("."));
    if privileges::is_root() {
        let user = match &settings.user {
            Some(name) => Some(User::find(name).map_err(error)?),
            None => User::owner_of(&location),
        };
        if let Some(user) = user {
            privileges::become_user(&user)
                .map_err(|e| error(format!("Cannot become user '{}': {e}.", user.name())))?;
        }
    }
    let summary = db.import(&settings).map_err(|e| error(e.to_string()))?;
    let mut text = summary.to_string();
    if run.config.is_none() {
        text += "Note: only a broker with a configuration that says 'persistence true' uses this.\n";
    }
    let lines = text.lines().map(|line| logger::visible(line).into_owned() + "\n");
    Ok(lines.collect())
}

/// What a reload needs to know.
struct Reload {
    run: Run,
    /// What the server runs with.
    settings: Settings,
    /// The files of passwords and rights.
    watch: Watch,
    logger: &'static Logger,
    remote: Remote,
    /// Makes newcomers wait.
    hold: Hold,
    notifier: Notifier,
}

impl Reload {
    /// Reloads at SIGHUP, and what has changed now and then; ends the server at the first other signal, the
    /// process at the second.
    fn watch(&mut self, mut signals: Inbox) {
        let mut asked = false;
        loop {
            let came = match signals.wait(self.look_after()) {
                Ok(Some(came)) => came,
                Ok(None) => {
                    self.reload_changed();
                    continue;
                }
                Err(e) => return log::error!("Signals cannot be waited for any more: {e}."),
            };
            for signal in came {
                match signal {
                    SIGHUP => {
                        self.notifier.reloading();
                        self.hold.begin();
                        self.reload();
                        self.hold.end();
                        self.notifier.ready(&status(&self.settings));
                    }
                    _ if asked => std::process::exit(FAILURE.into()),
                    _ => {
                        asked = true;
                        self.notifier.stopping();
                        self.remote.shutdown();
                    }
                }
            }
        }
    }

    /// After which time to look whether files have changed, if there are files.
    fn look_after(&self) -> Option<Duration> {
        let interval = Duration::from_secs(self.settings.reload_interval_s.into());
        let has_files = |l: &ListenerSettings| l.tls.is_some() || l.security.files().next().is_some();
        let looks = !interval.is_zero() && self.settings.listeners.iter().any(has_files);
        looks.then_some(interval)
    }

    /// Reads those files again that have changed since they were read.
    fn reload_changed(&mut self) {
        if let Some((changed, problems)) = self.remote.reload_changed_certificates() {
            problems.iter().for_each(say);
            match problems.iter().any(|p| p.severity == Severity::Error) {
                true => log::error!(
                    "Files of certificates have changed and cannot be used. What was read before stays."
                ),
                false => log::info!(
                    "Files of certificates have changed and were read again: {}.",
                    listed(&changed)
                ),
            }
        }
        let changed = self.watch.changed();
        if changed.is_empty() {
            return;
        }
        match Security::load(&self.settings.listeners, &mut self.settings.core) {
            Ok((security, problems)) => {
                problems.iter().for_each(say);
                self.remote.configure(self.settings.core.clone(), security);
                log::info!(
                    "Files of passwords or rights have changed and were read again: {}.",
                    listed(&changed)
                );
            }
            Err(problems) => {
                problems.iter().for_each(say);
                log::error!(
                    "Files of passwords or rights have changed and cannot be used. What was read before stays."
                );
            }
        }
    }

    fn reload(&mut self) {
        if self.run.config.is_none() {
            return log::info!("There is no configuration to reload.");
        }
        let read = read(&self.run, &[]).and_then(|(mut settings, problems)| {
            let remarks = settings.fit_to(&self.settings).map_err(|problem| vec![problem])?;
            let load = |listeners: &[ListenerSettings]| self.remote.load_certificates(listeners);
            let ((settings, files), problems) = secure(settings, problems, load)?;
            Ok((settings, files, problems, remarks))
        });
        let (settings, files, problems, remarks) = match read {
            Ok(read) => read,
            Err(problems) => {
                problems.iter().for_each(say);
                return log::error!("The configuration was not reloaded: it has errors. The old one stays.");
            }
        };
        if let Err(e) = self.logger.change(&settings.log) {
            log::error!("{e}");
            return log::error!("The configuration was not reloaded. The old one stays.");
        }
        problems.iter().for_each(say);
        remarks.iter().for_each(|remark| log::warn!("{remark}"));
        self.remote.use_certificates(files.certificates);
        self.remote.configure(settings.core.clone(), files.security);
        self.remote.limit(settings.max_connections, &settings.limits, &settings.listeners);
        self.watch = files.watch;
        self.settings = settings;
        log::info!("The configuration was reloaded.");
    }
}

fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Each connection is an open file, and the usual limit of 1,024 is kept low for programs that use select.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            log::warn!("The limit of open files cannot be raised: {e}.");
        }
    }
}
