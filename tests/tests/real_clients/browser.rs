//! A page with MQTT.js in a browser, at a broker with the configuration of `tests/tutorial`, beside Debian's
//! mosquitto clients and ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fs};

use hikyaku_tests::PATIENCE;
use hikyaku_tests::process::{Process, broker_binary, client_script, free_port, installed, tool_binary};

/// A browser is many processes: one after the other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn page_from_a_web_server() {
    let _alone = alone();
    let tutorial = Tutorial::start("http");
    let port = free_port().to_string();
    let mut server = Command::new("python3");
    server.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", &port]).current_dir(&tutorial.folder);
    let server = Process::spawn(&mut server);
    server.wait_stdout("Serving HTTP");
    tutorial.play(&format!("http://127.0.0.1:{port}/index.html"));
}

#[test]
fn page_from_a_file() {
    let _alone = alone();
    let tutorial = Tutorial::start("file");
    tutorial.play(&format!("file://{}", tutorial.folder.join("index.html").display()));
}

/// A folder with the configuration and the page on free ports, and the broker on that.
struct Tutorial {
    folder: PathBuf,
    broker: Process,
    mqtt: u16,
    tls: u16,
}

impl Tutorial {
    fn start(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("hikyaku-tutorial-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (mqtt, websocket, tls) = (free_port(), free_port(), free_port());
        let config = ["1883", "9001", "8883"].map(|port| format!("listener {port} "));
        let ports = [mqtt, websocket, tls].map(|port| format!("listener {port} "));
        copy("tutorial.conf", &folder, config.iter().zip(&ports));
        let (address, local) = (":9001'".to_owned(), format!(":{websocket}'"));
        copy("index.html", &folder, [(&address, &local)]);
        // One worker, so that what the log tells has happened everywhere.
        let mut broker = Command::new(broker_binary());
        let broker = broker.arg("-c").arg(folder.join("tutorial.conf")).args(["-v", "--workers", "1"]);
        let tutorial = Tutorial { folder, broker: Process::spawn(broker), mqtt, tls };
        assert!(tutorial.logs(" running", 1), "{}", tutorial.broker.stderr.text());
        tutorial
    }

    /// Subscribers of both makes and the page all get what publishers of both makes and the page send.
    fn play(&self, address: &str) {
        let subscribers = self.tools("sub").map(|mut tool| Process::spawn(tool.args(["-v", "-C", "3"])));
        let mut page = Command::new("node");
        page.arg(client_script("page.mjs"))
            .arg(address)
            .arg("hikyaku-pub was here")
            .arg(self.folder.join("page.png"));
        let page = Process::spawn(page.env("MQTT_JS", installed("node")));
        let subscribed = self.logs(" subscribes to test/topic ", 3);
        let (shown, errors) = (page.stdout.text(), page.stderr.text());
        assert!(subscribed, "not all subscribe; the page:\n{shown}{errors}{}", self.broker.stderr.text());
        for (mut tool, name) in self.tools("pub").into_iter().zip(["mosquitto_pub", "hikyaku-pub"]) {
            let end = Process::spawn(tool.args(["-m", &format!("{name} was here")])).wait();
            assert_eq!((end.code, end.stderr.as_str()), (0, ""));
        }
        let page = page.wait();
        assert_eq!(page.code, 0, "{page:#?}\n{}", self.broker.stderr.text());
        assert_eq!(page.stdout, "shown hikyaku-pub was here\nshown a page says hello\n");
        for subscriber in subscribers {
            let lines = ["mosquitto_pub was here", "hikyaku-pub was here", "a page says hello"];
            assert_eq!(subscriber.wait().stdout, lines.map(|line| format!("test/topic {line}\n")).concat());
        }
        // The last listener, which 'protocol' is about, takes no MQTT outside of a WebSocket.
        let port = self.tls.to_string();
        let [mut plain, _] = self.tools("pub");
        assert_ne!(Process::spawn(plain.args(["-p", &port, "-m", "x"])).wait().code, 0);
        let [_, mut websocket] = self.tools("pub");
        assert_eq!(Process::spawn(websocket.args(["--ws", "-p", &port, "-m", "x"])).wait().code, 0);
    }

    /// Debian's tool and ours.
    fn tools(&self, tool: &str) -> [Command; 2] {
        let mut debians = Command::new("stdbuf");
        debians.arg("-oL").arg(format!("mosquitto_{tool}"));
        [debians, Command::new(tool_binary(&format!("hikyaku-{tool}")))].map(|mut command| {
            command.args(["-h", "localhost", "-p", &self.mqtt.to_string(), "-t", "test/topic"]);
            command.env("XDG_CONFIG_HOME", "/nonexistent");
            command
        })
    }

    /// Waits until the broker has logged this so many times.
    fn logs(&self, needle: &str, count: usize) -> bool {
        // A browser takes its time on a busy machine.
        self.broker.stderr.wait_until(3 * PATIENCE, |text| text.matches(needle).count() >= count)
    }
}

impl Drop for Tutorial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies a file of `tests/tutorial`, with each of these in it replaced.
fn copy<'a>(name: &str, folder: &Path, replaced: impl IntoIterator<Item = (&'a String, &'a String)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tutorial").join(name);
    let mut text = fs::read_to_string(path).unwrap();
    for (old, new) in replaced {
        assert!(text.contains(old), "{name} does not have {old:?}");
        text = text.replace(old, new);
    }
    fs::write(folder.join(name), text).unwrap();
}
