//! The broker that is attacked.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::bystander::Plain;
use crate::process::free_port;

/// A broker for one scenario; killed when dropped.
pub(crate) struct Target {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Target {
    /// Starts `command`, in which `{conf}` stands for the configuration, with a limit of open files if one is given.
    pub(crate) fn start(command: &str, options: &str, files: Option<u32>) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("hikyaku-overload-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let conf = folder.join("broker.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\nsys_interval 1\n{options}\n"
        );
        fs::write(&conf, text).expect("a file can be written");
        let log = fs::File::create(folder.join("log")).expect("a file can be made");
        let limit = files.map_or(String::new(), |files| format!("ulimit -n {files} && "));
        let command = command.replace("{conf}", &conf.display().to_string());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{limit}exec {command}"));
        let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut target = Self {
            child: child.expect("the broker can be started"),
            folder,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        let begin = Instant::now();
        while TcpStream::connect(target.address).is_err() {
            let ended = target.child.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended && begin.elapsed() < Duration::from_secs(10), "no broker: {}", target.log());
            thread::sleep(Duration::from_millis(5));
        }
        target
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let value =
            status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        value.unwrap_or(0)
    }

    /// KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// KiB, the most there was.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Seconds of CPU time.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
        ticks.sum::<f64>() / 100.0
    }

    /// Nanoseconds of CPU time, of all its threads.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
        stats.filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// What it tells of itself under `$SYS/broker`.
    pub(crate) fn report(&self) -> BTreeMap<String, u64> {
        let mut report = BTreeMap::new();
        let Ok(mut reader) = Plain::connect(self.address, "overload-reader") else { return report };
        if reader.subscribe("$SYS/broker/#", 0).is_err() {
            return report;
        }
        let begin = Instant::now();
        while let Some(packet) = reader.packet_within(Duration::from_millis(1500)) {
            let head = if packet[1] < 128 { 2 } else { 3 };
            if packet[0] >> 4 == 3 && packet.len() > head + 2 {
                let end = head + 2 + usize::from(u16::from_be_bytes([packet[head], packet[head + 1]]));
                let topic = String::from_utf8_lossy(&packet[head + 2..end]).replace("$SYS/broker/", "");
                if let Ok(value) = String::from_utf8_lossy(&packet[end..]).parse() {
                    report.insert(topic, value);
                }
            }
            // What is retained, and what changed last.
            if begin.elapsed() > Duration::from_millis(2500) {
                break;
            }
        }
        report
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
