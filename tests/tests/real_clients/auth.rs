//! Users and rights with Debian's clients, its `mosquitto_passwd` and its broker: each option with one who gets
//! in and one who is kept out. The broker under test runs in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, thread};

use hikyaku::auth::{Hash, Scheme, Security};
use hikyaku::config::{Endpoint, ListenerSettings, SecuritySettings};
use hikyaku::{Options, Server};
use hikyaku_proto::broker::Config;
use hikyaku_tests::PATIENCE;
use hikyaku_tests::process::{Finished, Process, free_port, release_binary, tool_binary};

#[test]
fn password_files_of_mosquitto_passwd_are_read() {
    let folder = Folder::new();
    let file = folder.path("users");
    for (args, user) in [("-c -b", "new"), ("-b -H sha512", "old")] {
        let made = run("mosquitto_passwd", &format!("{args} {} {user} secret", file.display()));
        assert_eq!(made.code, 0, "{}", made.stderr);
    }
    let argon = Hash::create(Scheme::Argon2id, b"secret").unwrap();
    fs::write(&file, fs::read_to_string(&file).unwrap() + &format!("argon:{argon}\n")).unwrap();
    let broker = Broker::start([SecuritySettings { password_file: Some(file), ..closed() }]);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for user in ["new", "old", "argon"] {
            broker.lets_in(0, &format!("-V {version} -u {user} -P secret"));
            broker.keeps_out(0, &format!("-V {version} -u {user} -P Secret"));
        }
        broker.keeps_out(0, &format!("-V {version} -u nobody -P secret"));
        broker.lets_in(0, &format!("-V {version} -u old -P secret"));
        broker.keeps_out(0, &format!("-V {version}"));
    }
}

#[test]
fn hikyaku_passwd_and_mosquitto_passwd_work_on_one_file() {
    let folder = Folder::new();
    let (file, ours) = (folder.path("users"), release_binary("hikyaku-passwd"));
    let ours = ours.to_str().unwrap();
    let name = file.display();
    let steps = [
        (ours, format!("-c -b {name} ann first"), "Adding password for user ann\n"),
        ("mosquitto_passwd", format!("-b {name} bob second"), ""),
        (ours, format!("-b -H sha512 {name} cid third"), "Adding password for user cid\n"),
        (ours, format!("-b -I 50 {name} ann changed"), "Updating password for user ann\n"),
        ("mosquitto_passwd", format!("-D {name} cid"), ""),
        (ours, format!("-b {name} dan fourth"), "Adding password for user dan\n"),
        (ours, format!("-b {name} eve fifth"), "Adding password for user eve\n"),
        (ours, format!("-D {name} eve"), ""),
    ];
    for (program, args, said) in steps {
        let finished = run(program, &args);
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{program} {args}");
        if program == ours {
            assert_eq!(finished.stdout, said);
        }
    }
    let again = run(ours, &format!("-D {name} eve"));
    assert_eq!((again.code, &again.stderr[..]), (1, "Warning: User eve not found in password file.\n"));
    // Debian's mosquitto reads it, and so do we.
    let theirs = Mosquitto::start(&folder, &format!("allow_anonymous false\npassword_file {name}\n"));
    let broker = Broker::start([SecuritySettings { password_file: Some(file), ..closed() }]);
    for port in [theirs.port, broker.ports[0]] {
        for (user, password, code) in [
            ("ann", "changed", 0),
            ("bob", "second", 0),
            ("dan", "fourth", 0),
            ("ann", "first", 5),
            ("cid", "third", 5),
            ("eve", "fifth", 5),
        ] {
            let tried = run("mosquitto_pub", &format!("-p {port} -t t -m x -u {user} -P {password}"));
            assert_eq!(tried.code, code, "{port} {user}: {}", tried.stderr);
        }
    }
}

#[test]
fn keys_for_scram_serve_our_tools_and_those_that_send_passwords() {
    let folder = Folder::new();
    let file = folder.path("users");
    let (ours, tool) = (release_binary("hikyaku-passwd"), tool_binary("hikyaku-pub"));
    let made = run(ours.to_str().unwrap(), &format!("-c -b --scram {} ann secret", file.display()));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let broker = Broker::start([SecuritySettings { password_file: Some(file), ..closed() }]);
    for (password, code) in [("secret", 0), ("Secret", 0x87)] {
        let args = format!("-p {} -q 1 -t t -m x -u ann -P {password} --scram", broker.ports[0]);
        let tried = run(tool.to_str().unwrap(), &args);
        assert_eq!(tried.code, code, "{password}: {}", tried.stderr);
    }
    for version in ["mqttv311", "mqttv5"] {
        broker.lets_in(0, &format!("-V {version} -u ann -P secret"));
        broker.keeps_out(0, &format!("-V {version} -u ann -P Secret"));
    }
}

#[test]
fn plain_files_are_hashed_and_prompts_are_answered() {
    let folder = Folder::new();
    let file = folder.write("users", "ann:plain\n# kept\n");
    let ours = release_binary("hikyaku-passwd");
    let updated = run(ours.to_str().unwrap(), &format!("-U -H argon2id {}", file.display()));
    assert_eq!((updated.code, updated.stderr.as_str()), (0, ""));
    let ask = |typed: &str| {
        Process::spawn_with_input(Command::new(&ours).arg(&file).arg("bob"), typed.into()).wait()
    };
    assert_eq!(ask("typed\ntyped\n").code, 0);
    let mismatch = ask("typed\ntypo\n");
    assert_eq!((mismatch.code, &mismatch.stderr[..]), (2, "Error: Passwords do not match.\n"));
    let empty = ask("\n");
    assert_eq!((empty.code, &empty.stderr[..]), (1, "Error: Empty password.\n"));
    assert!(fs::read_to_string(&file).unwrap().contains("# kept\n"));
    let broker = Broker::start([SecuritySettings { password_file: Some(file), ..closed() }]);
    broker.lets_in(0, "-u ann -P plain");
    broker.lets_in(0, "-u bob -P typed");
    broker.keeps_out(0, "-u bob -P typo");
}

#[test]
fn a_new_password_file_is_for_its_owner_only_and_keeps_what_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (file, link) = (folder.path("users"), folder.path("link"));
    let ours = release_binary("hikyaku-passwd");
    let ours = ours.to_str().unwrap();
    let missing = run(ours, &format!("-b {} ann x", file.display()));
    let said = format!("Error: Unable to open password file {}. No such file or directory", file.display());
    assert!(missing.code == 1 && missing.stderr.starts_with(&said), "{}", missing.stderr);
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!((run(ours, &format!("-c -b {} ann x", file.display())).code, mode()), (0, 0o600));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!((run(ours, &format!("-b {} bob x", link.display())).code, mode()), (0, 0o640));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn allow_anonymous_by_listener() {
    let open = SecuritySettings { allow_anonymous: Some(true), ..closed() };
    let broker = Broker::start([open, closed()]);
    broker.lets_in(0, "");
    broker.lets_in(0, "-u anyone -P anything");
    broker.keeps_out(1, "");
    broker.keeps_out(1, "-u anyone -P anything");
}

/// The same script against Debian's broker and ours has to give the same.
#[test]
fn acl_files_mean_what_mosquitto_takes_them_for() {
    let folder = Folder::new();
    let acl = folder.write(
        "acl",
        "# anonymous clients\n\
         topic read public/#\n\
         topic read end\n\
         user ann\n\
         topic ann/#\n\
         topic deny ann/private/#\n\
         topic read public/+\n\
         topic write box\n\
         topic read end\n\
         user bob\n\
         topic read ann/+\n\
         topic write #\n\
         topic read end\n\
         user judge\n\
         topic write end\n\
         pattern write id/%c/#\n\
         pattern read name/%u\n",
    );
    let users = folder.path("users");
    for (args, user) in [("-c -b", "ann"), ("-b", "bob"), ("-b", "judge")] {
        assert_eq!(run("mosquitto_passwd", &format!("{args} {} {user} x", users.display())).code, 0);
    }
    let theirs = Mosquitto::start(
        &folder,
        &format!("allow_anonymous true\npassword_file {}\nacl_file {}\n", users.display(), acl.display()),
    );
    let broker = Broker::start([SecuritySettings {
        allow_anonymous: Some(true),
        password_file: Some(users),
        acl_file: Some(acl),
        ..closed()
    }]);
    let topics = ["public/1", "public/1/2", "ann/1", "ann/private/1", "box", "other", "id/w/x", "name/ann"];
    let heard = |port: u16, reader: &str, writer: &str| {
        let subscriber = subscribe(&format!("-p {port} -i r -t # {reader}"));
        for topic in topics {
            let args = format!("-p {port} -i w -q 1 -t {topic} -m x {writer}");
            assert_eq!(run("mosquitto_pub", &args).code, 0);
        }
        // What comes last from one who may write it to all who may read it.
        assert_eq!(run("mosquitto_pub", &format!("-p {port} -t end -m x -u judge -P x")).code, 0);
        let ended = subscriber.stdout.wait_until(PATIENCE, |text| text.lines().any(|l| l == "end"));
        assert!(ended, "{reader}: {}", subscriber.stdout.text());
        let text = subscriber.stdout.text();
        topics.into_iter().filter(|t| text.lines().any(|l| l == *t)).collect::<Vec<_>>()
    };
    let clients = ["", "-u ann -P x", "-u bob -P x"];
    for reader in clients {
        for writer in clients {
            let (theirs, ours) = thread::scope(|scope| {
                let theirs = scope.spawn(|| heard(theirs.port, reader, writer));
                (heard(broker.ports[0], reader, writer), theirs.join().unwrap())
            });
            assert_eq!(theirs, ours, "{writer} to {reader}");
        }
    }
}

#[test]
fn client_ids() {
    let prefixed = SecuritySettings { clientid_prefixes: Some("dev-".into()), ..open() };
    let assigned = SecuritySettings { auto_id_prefix: Some("mine-".into()), ..open() };
    let mut listeners = [prefixed, assigned, open()].map(listener);
    listeners[2].use_username_as_clientid = true;
    let broker = Broker::start_listeners(&listeners);
    broker.lets_in(0, "-i dev-1");
    let refused = broker.publish(0, "-i other");
    assert_eq!(
        (refused.code, refused.stderr.contains("identifier rejected")),
        (2, true),
        "{}",
        refused.stderr
    );
    assert_eq!(broker.publish(0, "-V mqttv5 -i other").code, 0x85);
    // Debian's clients make an id of their own unless it is 3.1.1 with -c missing: 5.0 leaves it to the broker.
    broker.lets_in(1, "-V mqttv5");
    broker.lets_in(2, "-u ann");
    broker.keeps_out(2, "");
}

#[test]
fn mount_point() {
    let mut listeners = [open(), open()].map(listener);
    listeners[1].mount_point = Some("inner/".into());
    let broker = Broker::start_listeners(&listeners);
    let (outside, inside) = (broker.subscribe(0, "-t # -C 2"), broker.subscribe(1, "-t # -C 1"));
    assert_eq!(broker.publish_to(0, "elsewhere", "").code, 0);
    assert_eq!(broker.publish_to(1, "t", "-r").code, 0);
    assert_eq!(
        outside.wait().stdout.lines().filter(|l| !l.contains(' ')).collect::<Vec<_>>(),
        ["elsewhere", "inner/t"]
    );
    assert!(inside.wait().stdout.lines().any(|l| l == "t"));
    let late = broker.subscribe(1, "-t t -C 1").wait().stdout;
    assert!(late.lines().any(|l| l == "t"));
}

fn closed() -> SecuritySettings {
    SecuritySettings::default()
}

fn open() -> SecuritySettings {
    SecuritySettings { allow_anonymous: Some(true), ..closed() }
}

fn listener(security: SecuritySettings) -> ListenerSettings {
    ListenerSettings { security, ..ListenerSettings::default() }
}

fn run(program: &str, args: &str) -> Finished {
    Process::spawn(Command::new(program).args(args.split_whitespace())).wait()
}

/// A subscriber that prints topics, and has its SUBACK.
fn subscribe(args: &str) -> Process {
    // What -d says tells when it is subscribed; stdbuf brings it out line by line.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "mosquitto_sub", "-d", "-F", "%t"]).args(args.split_whitespace());
    let subscriber = Process::spawn(&mut command);
    subscriber.wait_stdout("Subscribed (mid");
    subscriber
}

/// Our broker in this process, with a port for each listener.
struct Broker {
    _server: Server,
    ports: Vec<u16>,
}

impl Broker {
    fn start<const N: usize>(listeners: [SecuritySettings; N]) -> Self {
        Self::start_listeners(&listeners.map(listener))
    }

    fn start_listeners(listeners: &[ListenerSettings]) -> Self {
        let mut config = Config::default();
        let (security, _) = Security::load(listeners, &mut config).unwrap();
        let endpoint = || Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
        let listeners =
            listeners.iter().map(|l| ListenerSettings { endpoint: endpoint(), ..l.clone() }).collect();
        let options = Options { listeners, workers: 2, config, security, ..Options::default() };
        let server = Server::start(options).unwrap();
        let ports = server.local_addrs().iter().map(SocketAddr::port).collect();
        Self { _server: server, ports }
    }

    fn publish(&self, listener: usize, args: &str) -> Finished {
        self.publish_to(listener, "t", args)
    }

    fn publish_to(&self, listener: usize, topic: &str, args: &str) -> Finished {
        run("mosquitto_pub", &format!("-p {} -q 1 -t {topic} -m x {args}", self.ports[listener]))
    }

    fn subscribe(&self, listener: usize, args: &str) -> Process {
        subscribe(&format!("-p {} -W {} {args}", self.ports[listener], PATIENCE.as_secs()))
    }

    fn lets_in(&self, listener: usize, args: &str) {
        let finished = self.publish(listener, args);
        assert_eq!(finished.code, 0, "{args}: {}", finished.stderr);
    }

    fn keeps_out(&self, listener: usize, args: &str) {
        let finished = self.publish(listener, args);
        let code = if args.contains("mqttv5") { 0x87 } else { 5 };
        assert_eq!(finished.code, code, "{args}: {}", finished.stderr);
    }
}

/// Debian's broker.
struct Mosquitto {
    _process: Process,
    port: u16,
}

impl Mosquitto {
    fn start(folder: &Folder, options: &str) -> Self {
        let port = free_port();
        let options = format!("listener {port} 127.0.0.1\nuser root\n{options}");
        let file = folder.write("mosquitto.conf", &options);
        let process = Process::spawn(Command::new("/usr/sbin/mosquitto").arg("-c").arg(file));
        let running = process.stderr.wait_until(PATIENCE, |log| log.contains("running"));
        assert!(running, "{}", process.stderr.text());
        Self { _process: process, port }
    }
}

/// A folder of files, which goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("hikyaku-auth-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
