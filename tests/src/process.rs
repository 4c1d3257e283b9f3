//! Programs under test: started, read, waited for, and killed when the test is over.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::PATIENCE;

/// A running broker; dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    /// The port it listens on, at 127.0.0.1 and ::1.
    pub port: u16,
}

impl Broker {
    /// Starts the broker on a free port with these further arguments; returns when it accepts.
    pub fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::start_command(Command::new(broker_binary()), free_port(), args)
    }

    /// Starts the broker on this port.
    pub fn start_at(port: u16) -> Self {
        Self::start_command::<&str>(Command::new(broker_binary()), port, [])
    }

    /// Starts the broker under a hard limit of open files.
    pub fn start_with_files_max<S: AsRef<OsStr>>(files_max: u32, args: impl IntoIterator<Item = S>) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\"")).arg(broker_binary());
        Self::start_command(shell, free_port(), args)
    }

    fn start_command<S: AsRef<OsStr>>(
        mut command: Command,
        port: u16,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        command.arg("-p").arg(port.to_string()).args(args);
        let mut broker = Self { process: Process::spawn(&mut command), port };
        broker.wait_accepts(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        broker
    }

    /// Waits until the broker accepts a connection at this address.
    pub fn wait_accepts(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect_timeout(&address, PATIENCE) {
            if let Some(code) = self.process.exit_code() {
                panic!("the broker ended with {code} before it accepted:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "nobody accepts at {address}: {error}\n{}", self.log());
            thread::sleep(POLL);
        }
    }

    /// What the broker has written to stderr.
    pub fn log(&self) -> String {
        self.process.stderr.text()
    }

    /// Asks the broker to stop with SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits for the broker's end.
    pub fn wait(self) -> Finished {
        self.process.wait()
    }
}

/// A child process whose output is collected; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// What it wrote to stdout.
    pub stdout: Capture,
    /// What it wrote to stderr.
    pub stderr: Capture,
}

/// How a process ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, or -1 when a signal ended it.
    pub code: i32,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Process {
    /// Starts a program without input, with both outputs collected.
    pub fn spawn(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::null()))
    }

    /// Starts a program that reads this input, with both outputs collected.
    pub fn spawn_with_input(command: &mut Command, input: Vec<u8>) -> Self {
        let mut process = Self::start(command.stdin(Stdio::piped()));
        let mut stdin = process.child.stdin.take().expect("stdin is piped");
        // The program may end without reading all of it: what it did with it is for the test to say.
        thread::spawn(move || stdin.write_all(&input));
        process
    }

    fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = Capture::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Capture::of(child.stderr.take().expect("stderr is piped"));
        Self { name, child, stdout, stderr }
    }

    /// Waits until a part of stdout is there; panics with all output when it does not come.
    pub fn wait_stdout(&self, needle: &str) {
        if !self.stdout.wait_until(PATIENCE, |text| text.contains(needle)) {
            panic!(
                "{} did not write {needle:?}; stdout:\n{}stderr:\n{}",
                self.name,
                self.stdout.text(),
                self.stderr.text()
            );
        }
    }

    /// Sends the process a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status =
            Command::new("sh").arg("-c").arg("kill -\"$0\" \"$1\"").arg(name).arg(pid).status().unwrap();
        assert!(status.success(), "kill failed");
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process ends by itself.
    pub fn wait(mut self) -> Finished {
        // A few times the patience: a script has its own, and says more about what it waited for.
        let deadline = Instant::now() + 4 * PATIENCE;
        let code = loop {
            if let Some(code) = self.exit_code() {
                break code;
            }
            if Instant::now() > deadline {
                panic!(
                    "{} does not end; stdout:\n{}stderr:\n{}",
                    self.name,
                    self.stdout.text(),
                    self.stderr.text()
                );
            }
            thread::sleep(POLL);
        };
        self.stdout.wait_end();
        self.stderr.wait_end();
        Finished { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Ends the process at once (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("the child is ours");
        status.map(|status| status.code().unwrap_or(-1))
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The text that a process has written so far.
#[derive(Debug, Clone)]
pub struct Capture(Arc<(Mutex<Text>, Condvar)>);

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    /// All that was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits until the text fulfils the condition; `false` when it ended or the time is over without it.
    pub fn wait_until(&self, patience: Duration, condition: impl Fn(&str) -> bool) -> bool {
        let (text, changed) = &*self.0;
        let deadline = Instant::now() + patience;
        let mut text = text.lock().unwrap();
        loop {
            if condition(&String::from_utf8_lossy(&text.bytes)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.ended || left.is_zero() {
                return false;
            }
            text = changed.wait_timeout(text, left).unwrap().0;
        }
    }

    fn of(mut source: impl Read + Send + 'static) -> Self {
        let capture = Self(Arc::default());
        let shared = Arc::clone(&capture.0);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = source.read(&mut buffer).unwrap_or(0);
                let mut text = shared.0.lock().unwrap();
                text.bytes.extend_from_slice(&buffer[..count]);
                text.ended = count == 0;
                shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        capture
    }

    fn wait_end(&self) {
        let (text, changed) = &*self.0;
        let guard = text.lock().unwrap();
        drop(changed.wait_timeout_while(guard, PATIENCE, |text| !text.ended).unwrap());
    }
}

/// How often a condition is looked at that cannot be waited on.
const POLL: Duration = Duration::from_millis(5);

/// Runs the broker with exactly these arguments until it ends by itself.
pub fn run_broker<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Finished {
    Process::spawn(Command::new(broker_binary()).args(args)).wait()
}

/// The broker under test: `HIKYAKU_TEST_BROKER`, or the release build beside this test.
pub fn broker_binary() -> PathBuf {
    if let Some(path) = env::var_os("HIKYAKU_TEST_BROKER") {
        return path.into();
    }
    release_binary("hikyaku")
}

/// A program of the release build beside this test.
pub fn release_binary(name: &str) -> PathBuf {
    let path = target_folder().join("release").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --release -p hikyaku`, or ./tests/run, which does",
        path.display()
    );
    path
}

/// One of our tools: in the folder `HIKYAKU_TEST_TOOLS`, or the release build beside this test.
pub fn tool_binary(name: &str) -> PathBuf {
    let folder = env::var_os("HIKYAKU_TEST_TOOLS").map(PathBuf::from);
    let path = folder.unwrap_or_else(|| target_folder().join("release")).join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --release -p hikyaku-client`, or ./tests/run, which does",
        path.display()
    );
    path
}

/// The Debian package, which `tests/run` builds: the newest under `target/debian`.
pub fn package() -> PathBuf {
    let files = std::fs::read_dir(target_folder().join("debian")).into_iter().flatten().flatten();
    let packages = files.map(|file| file.path()).filter(|path| path.extension() == Some(OsStr::new("deb")));
    let newest = packages.max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
    newest.expect("there is no package: run `cargo deb -p hikyaku`, or ./tests/run, which does")
}

/// A file that `tests/run` installs under `target/clients`.
pub fn installed(path: &str) -> PathBuf {
    let path = target_folder().join("clients").join(path);
    assert!(path.exists(), "{} is missing: ./tests/run installs it", path.display());
    path
}

/// A file of `tests/clients`.
pub fn client_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn target_folder() -> PathBuf {
    // target/PROFILE/deps/TEST
    let test = env::current_exe().expect("the test has a path");
    test.ancestors().nth(3).expect("the test lies in target/PROFILE/deps").to_path_buf()
}

/// A port that is free on both loopback addresses.
///
/// It lies below the range from which the system takes the ports of outgoing connections, so that no client
/// of another test sits on it by the time the broker binds it.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run side by side start at different places.
    let start = (std::process::id() % 200) as u16 * 100;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(offset) % COUNT;
        // Looked at from outside: a socket bound here for a try could live on for a moment in a child that
        // another thread is just starting.
        let answers = |address: SocketAddr| TcpStream::connect_timeout(&address, PATIENCE).is_ok();
        if !answers((Ipv4Addr::LOCALHOST, port).into()) && !answers((Ipv6Addr::LOCALHOST, port).into()) {
            return port;
        }
    }
    panic!("no free port");
}

/// Whether this machine has the loopback address of IPv6.
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
