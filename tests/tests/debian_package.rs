//! The Debian package: installed, run as its unit runs it, removed and purged.
//!
//! `./tests/run` builds the package and runs this, on a Debian machine on which it may install it: as root, or
//! with `sudo`.
#![cfg(feature = "real-clients")]

use hikyaku_tests::PATIENCE;
use hikyaku_tests::process::{Process, free_port, package};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

const UNIT: &str = "hikyaku.service";

/// A command of root's.
fn root(program: &str) -> Command {
    static IS_ROOT: LazyLock<bool> = LazyLock::new(|| {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let may = is_root || Command::new("sudo").args(["-n", "true"]).status().is_ok_and(|s| s.success());
        assert!(may, "installing a package needs root, or sudo without a password");
        is_root
    });
    if *IS_ROOT {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", program]);
    sudo
}

/// Runs a command that has to succeed; what it wrote.
fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let end = Process::spawn(command).wait();
    assert_eq!(end.code, 0, "{shown}:\n{}{}", end.stdout, end.stderr);
    end.stdout
}

fn dpkg(args: &[&str]) {
    run(root("dpkg").args(args));
}

/// The installed package; purged when the test is over, however it ends.
struct Installed;

impl Installed {
    fn install() -> Installed {
        for path in ["/etc/hikyaku", "/var/lib/hikyaku", "/usr/bin/hikyaku"] {
            assert!(!Path::new(path).exists(), "{path} exists: this test wants a machine without hikyaku");
        }
        let installed = Installed;
        dpkg(&["-i", package().to_str().unwrap()]);
        installed
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = root("dpkg").args(["--purge", "hikyaku"]).output();
    }
}

/// Owner, group and mode of a file, as in `root:root 644`.
fn owner(path: &str) -> String {
    run(root("stat").args(["-c", "%U:%G %a", path])).trim().to_owned()
}

/// What the unit says behind `key=`.
fn of_unit(unit: &str, key: &str) -> String {
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit has no {key}")).to_owned()
}

#[test]
fn the_package_installs_serves_and_goes() {
    let installed = Installed::install();

    let user = run(Command::new("getent").args(["passwd", "hikyaku"]));
    assert!(user.ends_with(":/var/lib/hikyaku:/usr/sbin/nologin\n"), "{user}");
    let ids: Vec<u32> = user.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    assert!(ids[0] < 1000, "not a system user: {user}");
    assert_eq!(run(Command::new("id").args(["-gn", "hikyaku"])), "hikyaku\n");
    for (path, expected) in [
        ("/usr/bin/hikyaku", "root:root 755"),
        ("/usr/bin/hikyaku-passwd", "root:root 755"),
        ("/usr/bin/hikyaku-pub", "root:root 755"),
        ("/usr/bin/hikyaku-sub", "root:root 755"),
        ("/usr/bin/hikyaku-rr", "root:root 755"),
        ("/usr/bin/hikyaku-bench", "root:root 755"),
        ("/etc/hikyaku", "root:root 755"),
        ("/etc/hikyaku/conf.d", "root:root 755"),
        ("/etc/hikyaku/hikyaku.conf", "root:root 644"),
        ("/var/lib/hikyaku", "hikyaku:hikyaku 750"),
        ("/usr/share/doc/hikyaku/copyright", "root:root 644"),
        ("/usr/share/doc/hikyaku/tutorial.md", "root:root 644"),
        ("/usr/share/doc/hikyaku/examples/hikyaku.socket", "root:root 644"),
    ] {
        assert_eq!(owner(path), expected, "{path}");
    }
    for tool in ["hikyaku", "hikyaku-passwd", "hikyaku-pub", "hikyaku-sub", "hikyaku-rr", "hikyaku-bench"] {
        let bytes = fs::metadata(format!("/usr/bin/{tool}")).unwrap().len();
        assert!(bytes < 8 << 20, "{tool} has {bytes} bytes: is it stripped?");
    }
    let conffiles = run(Command::new("dpkg-query").args(["-W", "-f", "${Conffiles}", "hikyaku"]));
    assert!(
        conffiles.contains("/etc/hikyaku/hikyaku.conf ") && conffiles.contains("/conf.d/README "),
        "{conffiles}"
    );
    let files = run(Command::new("dpkg").args(["-L", "hikyaku"]));
    let unit = files.lines().find(|file| file.ends_with(UNIT)).expect("there is a unit").to_owned();
    for page in ["man8/hikyaku.8.gz", "man1/hikyaku-bench.1.gz"] {
        assert!(files.lines().any(|file| file == format!("/usr/share/man/{page}")), "{files}");
    }

    the_unit_is_right(&unit);
    the_defaults_are_for_this_machine();
    it_serves_as_the_unit_says(&fs::read_to_string(&unit).unwrap());

    // The configuration, and what the broker keeps, outlast the package.
    write_as_root("/var/lib/hikyaku/state", "x");
    dpkg(&["--remove", "hikyaku"]);
    assert!(!Path::new("/usr/bin/hikyaku").exists() && !Path::new(&unit).exists());
    assert_eq!(owner("/etc/hikyaku/hikyaku.conf"), "root:root 644");
    run(root("test").args(["-e", "/var/lib/hikyaku/state"]));
    run(root("rm").arg("/etc/hikyaku/conf.d/test.conf"));
    dpkg(&["--purge", "hikyaku"]);
    for path in ["/etc/hikyaku", "/var/lib/hikyaku", "/var/log/hikyaku"] {
        assert!(!Path::new(path).exists(), "{path} is left");
    }
    std::mem::forget(installed);
}

fn the_unit_is_right(unit: &str) {
    let end = Process::spawn(Command::new("systemd-analyze").args(["verify", "--man=no", unit])).wait();
    // It says what is wrong with a line that is ignored, too.
    let said: Vec<_> = end.stderr.lines().filter(|line| line.contains("hikyaku")).collect();
    assert!(end.code == 0 && said.is_empty(), "{} {}", end.code, end.stderr);
    let socket = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "/usr/share/doc/hikyaku/examples/hikyaku.socket", unit])
        .output()
        .unwrap();
    assert!(socket.status.success(), "{}", String::from_utf8_lossy(&socket.stderr));
}

fn the_defaults_are_for_this_machine() {
    let said = run(&mut as_user(&[], "/usr/bin/hikyaku --test-config /etc/hikyaku/hikyaku.conf"));
    let expected = "127.0.0.1:1883, [::1]:1883: MQTT and WebSocket; everyone may connect from this machine.\n\
                    Configuration file is OK.\n";
    assert_eq!(said, expected);
}

/// A command line as in a unit, of the package's user, with these variables.
fn as_user(variables: &[&str], line: &str) -> Command {
    let mut command = root("env");
    command.args(variables).args(["setpriv", "--reuid", "hikyaku", "--regid", "hikyaku", "--init-groups"]);
    command.args(["--no-new-privs", "--"]).args(line.split(' '));
    command
}

fn it_serves_as_the_unit_says(unit: &str) {
    let values = ["Type", "User", "Group", "ExecReload"].map(|key| of_unit(unit, key));
    assert_eq!(values, ["notify", "hikyaku", "hikyaku", "/bin/kill -HUP $MAINPID"]);
    let port = free_port();
    let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
    write_as_root("/etc/hikyaku/conf.d/test.conf", &config);

    let name = format!("hikyaku-package-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut message = [0; 1024];
        let n = manager.recv(&mut message).expect("a message for the service manager");
        String::from_utf8_lossy(&message[..n]).into_owned()
    };
    let mut command = as_user(&[&format!("NOTIFY_SOCKET=@{name}")], &of_unit(unit, "ExecStart"));
    let process = Process::spawn(&mut command);
    let ready = format!("READY=1\nSTATUS=Listening on 127.0.0.1:{port}.");
    assert_eq!(hear(), ready);

    let tool = |name: &str, args: &[&str]| {
        let mut command = Command::new(format!("/usr/bin/hikyaku-{name}"));
        command.env("XDG_CONFIG_HOME", "/nonexistent");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", "test/topic"]).args(args);
        command
    };
    run(&mut tool("pub", &["-r", "-q", "1", "-m", "one"]));
    let sub = Process::spawn(&mut tool("sub", &["-q", "1", "-C", "2"]));
    sub.wait_stdout("one\n");
    run(&mut tool("pub", &["-q", "1", "-m", "two"]));
    assert_eq!(sub.wait().stdout, "one\ntwo\n");

    // Not the child's: `sudo` may stand in between.
    let pid = run(Command::new("pgrep").args(["-n", "-u", "hikyaku", "-x", "hikyaku"]));
    let kill = |signal: &str| run(root("kill").args([signal, pid.trim()]));
    kill("-HUP");
    let reloading = hear();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(hear(), ready);
    kill("-TERM");
    assert!(hear().starts_with("STOPPING=1"));
    let end = process.wait();
    assert_eq!(end.code, 0, "{}", end.stderr);
    // The journal writes down the time.
    assert!(end.stderr.starts_with("hikyaku version "), "{}", end.stderr);
}

fn write_as_root(path: &str, content: &str) {
    run(root("sh").args(["-c", &format!("printf '%s' '{content}' > {path}")]));
}
