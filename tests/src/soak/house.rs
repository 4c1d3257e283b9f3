//! The broker: started, looked at, ended.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A broker that lives several lives over one store.
#[derive(Debug)]
pub(super) struct House {
    binary: PathBuf,
    folder: PathBuf,
    pub(super) plain: SocketAddr,
    pub(super) secure: SocketAddr,
    child: Option<Child>,
    /// Even: it is up. Odd: it ends, is away or starts.
    pub(super) life: u32,
    reloads: u32,
}

/// What a look at the process shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vitals {
    pub(super) resident_kb: u64,
    pub(super) descriptors: usize,
    pub(super) store_kb: u64,
}

impl House {
    pub(super) fn new(binary: &Path, folder: &Path, ports: [u16; 2]) -> Self {
        let [plain, secure] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (binary, folder) = (binary.to_path_buf(), folder.to_path_buf());
        Self { binary, folder, plain, secure, child: None, life: 1, reloads: 0 }
    }

    pub(super) fn up(&self) -> bool {
        self.life.is_multiple_of(2)
    }

    fn configure(&self) -> io::Result<PathBuf> {
        let file = self.folder.join("hikyaku.conf");
        let path = |name: &str| self.folder.join(name).display().to_string();
        let text = format!(
            "allow_anonymous true\npersistence true\npersistence_location {}\nmax_queued_messages 0\n\
             max_queued_bytes 0\nmax_inflight_messages {}\nlog_type error\nlog_type warning\nlog_type notice\n\
             connection_messages false\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
            self.folder.display(),
            20 + self.reloads % 2 * 10,
            self.plain.port(),
            self.secure.port(),
            path("server.crt"),
            path("server.key"),
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    pub(super) fn start(&mut self, workers: u64) -> io::Result<()> {
        let file = self.configure()?;
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(file).args(["--workers", &workers.to_string()]);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// Whether it is up now, having been started.
    pub(super) fn look(&mut self) -> Result<bool, String> {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            return Err(format!("the broker ended by itself: {status}; its log: {}", self.log_tail()));
        }
        let patience = Duration::from_millis(50);
        let answers = |to: &SocketAddr| TcpStream::connect_timeout(to, patience).is_ok();
        if !self.up() && answers(&self.plain) && answers(&self.secure) {
            self.life += 1;
        }
        Ok(self.up())
    }

    pub(super) fn kill(&mut self) {
        self.life += 1;
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn terminate(&mut self) {
        self.life += 1;
        self.signal("-TERM");
    }

    /// The exit code after [`House::terminate`], when it has ended.
    pub(super) fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status.code())
    }

    pub(super) fn reload(&mut self) {
        self.reloads += 1;
        if self.configure().is_ok() {
            self.signal("-HUP");
        }
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill").args([name, &child.id().to_string()]).status();
        }
    }

    pub(super) fn vitals(&self) -> Vitals {
        let Some(child) = &self.child else { return Vitals::default() };
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let files = fs::read_dir(format!("/proc/{}/fd", child.id()));
        let store = fs::read_dir(self.folder.join("hikyaku.store")).into_iter().flatten().flatten();
        Vitals {
            resident_kb: resident.unwrap_or(0),
            descriptors: files.map_or(0, Iterator::count),
            store_kb: store.filter_map(|file| Some(file.metadata().ok()?.len() / 1024)).sum(),
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    /// Lines of the log that should not be there.
    pub(super) fn complaints(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let bad = |line: &&str| ["panicked", "Error", "error"].iter().any(|word| line.contains(word));
        text.lines().filter(bad).map(str::to_owned).collect()
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.kill();
    }
}
