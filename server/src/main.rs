//! The broker's binary.

mod cli;
mod logger;
mod privileges;

use cli::{Command, Run, Verbosity};
use hikyaku::auth::Security;
use hikyaku::config::{self, ListenerSettings, LogTypes, Problem, Settings, Severity};
use hikyaku::{Bindings, Options, Remote, StartError, check_certificates};
use logger::Logger;
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The arguments or the configuration are wrong.
const USAGE: u8 = 3;
/// It cannot start or go on.
const FAILURE: u8 = 1;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    match cli::parse(args) {
        Ok(Command::Run(run)) => serve(&run),
        Ok(Command::Test(run)) => test(&run),
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
    items.into_iter().map(|item| format!("{item}\n")).collect()
}

/// Says what there is to say of the configuration. Changes nothing.
fn test(run: &Run) -> ExitCode {
    match read(run).and_then(|(settings, problems)| secure(settings, problems)) {
        Ok((settings, _, problems)) => {
            print(&mut std::io::stderr(), &lines(problems), 0);
            let listeners = lines(settings.listeners.iter().map(ListenerSettings::describe));
            print(&mut std::io::stdout(), &format!("{listeners}Configuration file is OK.\n"), 0)
        }
        Err(problems) => print(&mut std::io::stderr(), &lines(problems), USAGE),
    }
}

/// The settings of the file and the command line.
fn read(run: &Run) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let (mut settings, problems) = match &run.config {
        Some(file) => config::read(file, &run.ports)?,
        None => (Settings::without_file(&run.ports), Vec::new()),
    };
    settings.workers = run.workers.or(settings.workers);
    let all = |on| LogTypes { error: on, warning: on, notice: on, information: on, debug: on };
    if let Some(verbosity) = run.verbosity {
        settings.log.types = all(verbosity == Verbosity::Verbose);
    }
    Ok((settings, problems))
}

/// The settings with what the files say that they name: certificates, passwords and rights.
fn secure(
    mut settings: Settings,
    mut problems: Vec<Problem>,
) -> Result<(Settings, Security, Vec<Problem>), Vec<Problem>> {
    let certificates = check_certificates(&settings.listeners);
    if !certificates.is_empty() {
        problems.extend(certificates);
        return Err(problems);
    }
    match Security::load(&settings.listeners, &mut settings.core) {
        Ok((security, more)) => {
            problems.extend(more);
            Ok((settings, security, problems))
        }
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

fn serve(run: &Run) -> ExitCode {
    let read = read(run).and_then(|(settings, problems)| secure(settings, problems));
    let (settings, security, problems) = match read {
        Ok(read) => read,
        Err(problems) => return print(&mut std::io::stderr(), &lines(problems), USAGE),
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
    match start(run, settings, security, logger) {
        Ok(()) => {
            log::info!("hikyaku version {VERSION} terminating");
            ExitCode::SUCCESS
        }
        Err(Failure { code, message }) => {
            log::error!("{message}");
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
        let code = if matches!(error, StartError::Settings(_)) { USAGE } else { FAILURE };
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
fn start(run: &Run, settings: Settings, security: Security, logger: &'static Logger) -> Result<(), Failure> {
    raise_open_files();
    // Before anyone can connect: from now on a signal ends it properly.
    let signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|e| format!("Signals cannot be watched: {e}."))?;
    if settings.listeners.iter().any(|l| l.local_only_default) {
        log::info!("Starting in local only mode. Connections will only be possible from this machine.");
    }
    let mut options = Options::from_settings(&settings, security);
    options.tls_keylog.clone_from(&run.tls_keylog);
    let bindings = Bindings::open(options)?;
    for listener in &settings.listeners {
        log::info!("{}", listener.describe());
    }
    let pid_file = settings.pid_file.as_deref().map(PidFile::write).transpose()?;
    give_up_root(settings.user.as_deref(), logger, pid_file.as_ref())?;
    let server = bindings.start()?;
    let mut reload = Reload { run: run.clone(), settings, logger, remote: server.remote() };
    std::thread::spawn(move || reload.watch(signals));
    log::info!("hikyaku version {VERSION} running");
    server.wait().map_err(|e| format!("A worker ended: {e}.").into())
}

fn give_up_root(user: Option<&str>, logger: &Logger, pid_file: Option<&PidFile>) -> Result<(), String> {
    if !privileges::is_root() {
        return Ok(());
    }
    let Some(name) = user else {
        log::warn!("Running as root. Name a user for it to become: user hikyaku");
        return Ok(());
    };
    let user = privileges::find(name)?;
    logger.give_files_to(user.uid, user.gid);
    if let Some(PidFile(path)) = pid_file {
        let _ = std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid));
    }
    user.become_it().map_err(|e| format!("Cannot become user '{name}': {e}."))
}

/// The file with the process id, removed with the value.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<PidFile, String> {
        fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| format!("Unable to write pid file {}. {e}.", path.display()))?;
        Ok(PidFile(path.into()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            log::debug!("The pid file {} stays: {e}.", self.0.display());
        }
    }
}

/// What a reload needs to know.
struct Reload {
    run: Run,
    /// What the server runs with.
    settings: Settings,
    logger: &'static Logger,
    remote: Remote,
}

impl Reload {
    /// Reloads at SIGHUP; ends the server at the first other signal, the process at the second.
    fn watch(&mut self, mut signals: Signals) {
        let mut asked = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP => self.reload(),
                _ if asked => std::process::exit(FAILURE.into()),
                _ => {
                    asked = true;
                    self.remote.shutdown();
                }
            }
        }
    }

    fn reload(&mut self) {
        if self.run.config.is_none() {
            return log::info!("There is no configuration to reload.");
        }
        let read = read(&self.run).and_then(|(mut settings, problems)| {
            let remarks = settings.fit_to(&self.settings);
            let (settings, security, problems) = secure(settings, problems)?;
            Ok((settings, security, problems, remarks))
        });
        let (settings, security, problems, remarks) = match read {
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
        self.remote.configure(settings.core.clone(), security);
        // Each listener keeps its certificates if the new ones cannot be used.
        self.remote.reload_certificates().iter().for_each(say);
        self.settings = settings;
        log::info!("The configuration was reloaded.");
    }
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
