//! A desk with terminals, at which the steps of a document are done.
//!
//! It has a folder and, where the system permits that, a network of its own: documents name the ports that everyone uses, and these
//! may be taken. Where the system does not, they have to be free.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use crate::PATIENCE;
use crate::document::{Key, Step, matches, matches_all};
use crate::process::{Finished, Process, broker_binary, client_script, installed, tool_binary};

/// A folder, a network and terminals; dropping it ends what runs there.
#[derive(Debug)]
pub struct Desk {
    folder: PathBuf,
    path: OsString,
    network: Network,
    terminals: BTreeMap<String, Terminal>,
    browser: Option<Process>,
}

/// A terminal whose program runs, or has ended.
#[derive(Debug)]
struct Terminal {
    command: String,
    process: Process,
    /// How many lines have been seen.
    seen: usize,
    /// Whether any further lines may come.
    elided: bool,
}

/// Where programs connect to each other.
#[derive(Debug)]
enum Network {
    Own { holder: Process, enter: &'static [&'static str] },
    Shared,
}

/// What every password prompt is answered with.
const PASSWORD: &str = "secret";

impl Desk {
    /// A desk for a document that uses these ports.
    pub fn new(ports: &[u16]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hikyaku-desk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        let programs = folder.join("programs");
        fs::create_dir_all(&programs).unwrap();
        let broker = broker_binary();
        link(&broker.with_file_name("hikyaku-passwd"), &programs);
        link(&broker, &programs);
        for tool in ["hikyaku-pub", "hikyaku-sub"] {
            link(&tool_binary(tool), &programs);
        }
        let mut path = vec![programs];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let path = env::join_paths(path).unwrap();
        let folder = folder.join("work");
        fs::create_dir_all(&folder).unwrap();
        let network = Network::new(ports);
        Self { folder, path, network, terminals: BTreeMap::new(), browser: None }
    }

    /// Does all of this, and demands to see what it says, and nothing else.
    pub fn run(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        self.close_browser();
        for (name, terminal) in &self.terminals {
            terminal.assert_nothing_unseen(name);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(file, content) => fs::write(self.folder.join(file), content).unwrap(),
            Step::Run { command, output, fails } => {
                let finished = self.finish(command);
                let lines: Vec<&str> = finished.stdout.lines().map(str::trim_end).collect();
                let same = matches_all(output, &lines) && (finished.code != 0) == *fails;
                assert!(same, "$ {command}\nexpected {output:#?}\ngot {finished:#?}\n{}", self.broker_log());
            }
            Step::Start(name, command) => self.start(name, command),
            Step::See(name, line) => {
                self.close_browser();
                self.see(name, line);
            }
            Step::Press(name, key) => {
                self.close_browser();
                let terminal = self.terminals.remove(name).unwrap_or_else(|| panic!("no terminal {name}"));
                terminal.press(name, *key);
            }
            Step::Browse(address, message) => self.browse(address, message),
            Step::Skip(_) => {}
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut words = self.network.enter();
        // A test that was started in the background ignores keys; what it starts is not to.
        words.extend(["env", "--default-signal=INT", "--default-signal=QUIT"].map(str::to_owned));
        // Lines are to come when they are written, not when there are many.
        words.extend(["stdbuf", "-oL", program].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.folder).env("PATH", &self.path);
        // Nobody's own options, and messages in the language of the documents' output.
        command.env("XDG_CONFIG_HOME", "/nonexistent").env("LC_ALL", "C.UTF-8").env("PYTHONUNBUFFERED", "1");
        command
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = self.command("bash");
        command.arg("-c").arg(line);
        command
    }

    fn finish(&self, command: &str) -> Finished {
        let input = format!("{PASSWORD}\n{PASSWORD}\n").into_bytes();
        Process::spawn_with_input(&mut self.shell(&format!("exec 2>&1; {command}")), input).wait()
    }

    fn start(&mut self, name: &str, command: &str) {
        if let Some(terminal) = self.terminals.remove(name) {
            terminal.wait(name);
        }
        let more = match (is_broker(command), is_subscriber(command)) {
            // One worker, so that what the log tells has happened everywhere.
            (true, _) => " -v --workers 1",
            // With the lines that tell when it is ready; they are no more shown than seen.
            (_, true) => " -d",
            _ => "",
        };
        let process = Process::spawn(&mut self.shell(&format!("exec 2>&1; exec {command}{more}")));
        if is_subscriber(command) {
            process.wait_stdout("\nSubscribed (mid: 1)");
        }
        let terminal = Terminal { command: command.into(), process, seen: 0, elided: false };
        self.terminals.insert(name.to_owned(), terminal);
    }

    fn see(&mut self, name: &str, expected: &str) {
        let terminal = self.terminals.get_mut(name).unwrap_or_else(|| panic!("no terminal {name}"));
        if expected == "…" {
            terminal.elided = true;
            return;
        }
        let position = |text: &str| {
            let lines = shown(&terminal.command, text);
            let mut unseen = lines.iter().enumerate().skip(terminal.seen);
            match terminal.elided {
                true => unseen.find(|(_, line)| matches(expected, line)).map(|(at, _)| at),
                false => unseen.next().map(|(at, _)| at),
            }
        };
        terminal.process.stdout.wait_until(PATIENCE, |text| position(text).is_some());
        let text = terminal.process.stdout.text();
        let found = position(&text).filter(|&at| matches(expected, shown(&terminal.command, &text)[at]));
        let Some(at) = found else {
            panic!(
                "terminal {name}: $ {}\nexpected {expected:?} after line {} of\n{text}",
                terminal.command, terminal.seen
            );
        };
        terminal.seen = at + 1;
        terminal.elided = false;
    }

    fn browse(&mut self, address: &str, message: &str) {
        let subscriptions = self.pages_subscriptions();
        let screenshot = self.folder.join("page.png");
        let mut node = self.command("node");
        node.arg(client_script("page.mjs")).args([address, message]).arg(screenshot);
        node.env("MQTT_JS", installed("node"));
        self.browser = Some(Process::spawn(&mut node));
        self.wait_for_page(subscriptions + 1);
    }

    /// Waits until the page has shown all that it is to show, and has sent its message.
    fn close_browser(&mut self) {
        let Some(browser) = self.browser.take() else { return };
        let finished = browser.wait();
        assert!(finished.code == 0, "the page:\n{finished:#?}\n{}", self.broker_log());
        if let Some(folder) = env::var_os("HIKYAKU_TEST_SCREENSHOTS") {
            fs::copy(self.folder.join("page.png"), Path::new(&folder).join("tutorial.png")).unwrap();
        }
    }

    /// How many subscriptions pages have asked the broker for that runs.
    fn pages_subscriptions(&self) -> usize {
        self.broker().map_or(0, |broker| count_pages_subscriptions(&broker.process.stdout.text()))
    }

    fn wait_for_page(&self, count: usize) {
        let Some(broker) = self.broker() else { panic!("a client is started before the broker") };
        // A browser takes its time on a busy machine.
        let there =
            broker.process.stdout.wait_until(3 * PATIENCE, |text| count_pages_subscriptions(text) >= count);
        let browser = self.browser.as_ref().map(|browser| (browser.stdout.text(), browser.stderr.text()));
        assert!(there, "no subscription comes; {browser:?}\n{}", self.broker_log());
    }

    fn broker(&self) -> Option<&Terminal> {
        self.terminals.values().find(|terminal| is_broker(&terminal.command))
    }

    fn broker_log(&self) -> String {
        self.broker()
            .map_or(String::new(), |broker| format!("the broker says:\n{}", broker.process.stdout.text()))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.terminals.clear();
        self.browser = None;
        let _ = fs::remove_dir_all(self.folder.parent().unwrap_or(&self.folder));
    }
}

impl Terminal {
    fn press(self, name: &str, key: Key) {
        self.process.signal(match key {
            Key::Interrupt => "INT",
            Key::Quit => "QUIT",
        });
        self.wait_end(name, key == Key::Interrupt);
    }

    fn wait(self, name: &str) {
        self.wait_end(name, true);
    }

    fn wait_end(self, name: &str, succeeds: bool) {
        let Self { command, process, seen, elided } = self;
        let finished = process.wait();
        assert!(!succeeds || finished.code == 0, "terminal {name}: $ {command}\n{finished:#?}");
        assert_nothing_unseen(name, &command, &finished.stdout, seen, elided);
    }

    fn assert_nothing_unseen(&self, name: &str) {
        assert_nothing_unseen(name, &self.command, &self.process.stdout.text(), self.seen, self.elided);
    }
}

fn assert_nothing_unseen(name: &str, command: &str, text: &str, seen: usize, elided: bool) {
    let more: Vec<&str> = shown(command, text).into_iter().skip(seen).collect();
    assert!(elided || more.is_empty(), "terminal {name}: $ {command}\nalso shows {more:#?}");
}

impl Network {
    fn new(ports: &[u16]) -> Self {
        // With a user of its own where this one may not have a network.
        const WAYS: [(&[&str], &[&str]); 2] = [
            (&["--net"], &["--net"]),
            (&["--net", "--user", "--map-root-user"], &["--net", "--user", "--preserve-credentials"]),
        ];
        for (unshare, enter) in WAYS {
            let mut holder = Command::new("unshare");
            holder.args(unshare).args([
                "--",
                "sh",
                "-c",
                "PATH=$PATH:/sbin:/usr/sbin ip link set lo up && echo up && exec sleep infinity",
            ]);
            let holder = Process::spawn(&mut holder);
            if holder.stdout.wait_until(PATIENCE, |text| text.contains("up")) {
                return Network::Own { holder, enter };
            }
        }
        for &port in ports {
            let taken = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            assert!(!taken, "port {port} is taken, and this user may not make a network (unshare --net)");
        }
        Network::Shared
    }

    /// What stands before a command to run it there.
    fn enter(&self) -> Vec<String> {
        let Network::Own { holder, enter } = self else { return Vec::new() };
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", holder.id())];
        words.extend(enter.iter().map(|&word| word.to_owned()));
        words.push("--".into());
        words
    }
}

fn is_broker(command: &str) -> bool {
    command == "hikyaku" || command.starts_with("hikyaku ")
}

/// Subscriptions in a broker's log of clients whose id MQTT.js has made up. The lines of others may still be on their way.
fn count_pages_subscriptions(log: &str) -> usize {
    let pages = |line: &&str| line.contains(": mqttjs_") && line.contains(" subscribes to ");
    log.lines().filter(pages).count()
}

fn is_subscriber(command: &str) -> bool {
    command.starts_with("hikyaku-sub ") || command.starts_with("mosquitto_sub ")
}

/// The whole lines of what a command has written, without those that it would not write but for the test.
fn shown<'a>(command: &str, text: &'a str) -> Vec<&'a str> {
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    let of_packets = |line: &str| line.starts_with("Client ") || line.starts_with("Subscribed (mid: ");
    let lines = text[..end].lines().map(str::trim_end);
    lines.filter(|line| !(is_subscriber(command) && of_packets(line))).collect()
}

fn link(program: &Path, folder: &Path) {
    let name = program.file_name().expect("a program has a name");
    std::os::unix::fs::symlink(program, folder.join(name)).unwrap();
}
