//! Files, and what is said of them.

use super::settings::{Endpoint, LogDestination, LogTypes, Protocol, Settings, Severity, TlsVersion};
use super::{Problem, read};
use hikyaku_proto::broker::{AcceptedVersions, Authentication};
use hikyaku_proto::codec::QoS;
use std::path::{Path, PathBuf};

/// A directory that ends with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let dir = std::env::temp_dir().join(format!("hikyaku-config-{:x}", u64::from_ne_bytes(name)));
        std::fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn read_text(text: impl AsRef<[u8]>, ports: &[u16]) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let dir = Dir::new();
    read(&dir.write("x.conf", text), ports)
}

fn settings(text: &str) -> Settings {
    read_text(text, &[]).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).0
}

/// What is said of a text: `LINE:COLUMN: KIND: MESSAGE`.
fn said(text: impl AsRef<[u8]>) -> Vec<String> {
    let dir = Dir::new();
    let file = dir.write("x.conf", text);
    let problems = match read(&file, &[]) {
        Ok((_, problems)) | Err(problems) => problems,
    };
    let file = format!("{}:", file.display());
    problems.iter().map(|p| p.to_string().replace(&file, "")).collect()
}

fn endpoints(settings: &Settings) -> Vec<String> {
    settings.listeners.iter().map(|l| l.endpoint.to_string()).collect()
}

#[test]
fn mistakes_are_told_word_for_word_with_their_place() {
    let long = format!("listener 1\nlistener_auto_id_prefix {}", "a".repeat(51));
    for (text, message) in [
        ("allow_anonymous", "1:16: Error: Empty 'allow_anonymous' value in configuration."),
        ("allow_anonymous # yes", "1:17: Error: Empty 'allow_anonymous' value in configuration."),
        (
            "allow_anonymous falst",
            "1:17: Error: Invalid 'allow_anonymous' value (falst). It can be true or false.",
        ),
        (
            "allow_anonymous yes",
            "1:17: Error: Invalid 'allow_anonymous' value (yes). It can be true or false.",
        ),
        (
            "listener=1883",
            "1:1: Error: Unknown configuration variable 'listener=1883'. There is a blank between name and value: \
             listener 1883",
        ),
        (
            "listener = 1883",
            "1:10: Error: 'listener port' value not a number. There is a blank between name and value, and no '='.",
        ),
        ("listener 1\n\0", "2:1: Error: This is not a text file: there is a zero byte in it."),
        ("max_keepalive 65536", "1:15: Error: Invalid 'max_keepalive' value (65536). It can be 0 to 65535."),
        ("max_keepalive -1", "1:15: Error: Invalid 'max_keepalive' value (-1). It can be 0 to 65535."),
        ("autosave_interval string", "1:19: Error: 'autosave_interval' value not a number."),
        ("autosave_interval", "1:18: Error: Empty 'autosave_interval' value in configuration."),
        ("sys_interval 99999999999999999999", "1:14: Error: 'sys_interval' value out of range."),
        ("user", "1:5: Error: Empty 'user' value in configuration."),
        ("user  ", "1:5: Error: Empty 'user' value in configuration."),
        ("user \u{fffd}", "1:6: Error: Malformed UTF-8 in configuration."),
        (
            "\n\tmax_conections 3",
            "2:2: Error: Unknown configuration variable 'max_conections'. Did you mean 'max_connections'?",
        ),
        ("unknown_option unknown", "1:1: Error: Unknown configuration variable 'unknown_option'."),
        (
            "accept_protocol_versions 3",
            "1:1: Error: The 'accept_protocol_versions' option requires a listener to be defined first.",
        ),
        (
            "listener 1\naccept_protocol_versions",
            "2:25: Error: Empty 'accept_protocol_versions' value in configuration.",
        ),
        ("listener", "1:9: Error: Empty 'listener port' value in configuration."),
        ("listener 100000", "1:10: Error: Invalid 'port' value (100000)."),
        (
            "listener 0",
            "1:10: Error: A listener with port 0 must provide a Unix socket path. Write: listener 0 \
             /run/hikyaku/mqtt.sock",
        ),
        ("mount_point x/", "1:1: Error: The 'mount_point' option requires a listener to be defined first."),
        (
            "listener 1\nmount_point x/+/",
            "2:13: Error: Invalid 'mount_point' value (x/+/). Does it contain a wildcard character?",
        ),
        ("listener 1\nprotocol", "2:9: Error: Empty 'protocol' value in configuration."),
        (
            "listener 1\nprotocol test",
            "2:10: Error: Invalid 'protocol' value (test). It can be mqtt or websockets; without it a listener \
             takes both.",
        ),
        ("maximum_qos 3", "1:13: Error: 'max_qos' must be between 0 and 2 inclusive."),
        ("max_inflight_messages 65536", "1:23: Error: 'max_inflight_messages' must be <= 65535."),
        ("max_packet_size 19", "1:17: Error: 'max_packet_size' must be >= 20."),
        (
            "message_size_limit 556000000",
            "1:20: Error: Invalid 'message_size_limit' value (556000000). It can be 0 to 268435455.",
        ),
        (
            "listener 1\nmax_topic_alias 65536",
            "2:17: Error: Invalid 'max_topic_alias' value in configuration.",
        ),
        (&long, "2:25: Error: 'listener_auto_id_prefix' length must be <= 50."),
        (
            "websockets_headers_size -1",
            "1:25: Error: Packet buffer size must be between 0 and 65535 inclusive.",
        ),
        (
            "persistent_client_expiration 3",
            "1:30: Error: Invalid 'persistent_client_expiration' duration in configuration. It is a number and one of s, h, d, w, m, y: 14d is two weeks.",
        ),
        (
            "log_dest file",
            "1:10: Error: Empty \"log_dest file\" value in configuration. Write the file's name behind it.",
        ),
        (
            "log_type loud",
            "1:10: Error: Invalid 'log_type' value (loud). It can be error, warning, notice, information, debug, subscribe, unsubscribe, websockets, all or none.",
        ),
        ("connection", "1:11: Error: Empty 'connection' value in configuration."),
        (
            "bridge_insecure true",
            "1:1: Error: The 'bridge_insecure' option requires a bridge to be defined first.",
        ),
        ("password x", "1:1: Error: The 'password' option requires a bridge to be defined first."),
        (
            "plugin_opt_x y",
            "1:1: Error: The 'plugin_opt_x' option requires plugin/global_plugin/plugin_load to be defined first.",
        ),
        ("workers 65", "1:9: Error: Invalid 'workers' value (65). It can be 1 to 64."),
        (
            "include_dir /nowhere",
            "1:1: Error: Unable to open include_dir '/nowhere'. No such file or directory (os error 2).",
        ),
        (
            "password_file /nowhere",
            "1:1: Error: Unable to open password_file '/nowhere'. No such file or directory (os error 2).",
        ),
        (
            "psk_file x",
            "1:10: Error: 'psk_file' is not supported. Keys shared in advance are not supported. Give the listener a certificate ('certfile', 'keyfile') and users a password or a certificate of their own.",
        ),
    ] {
        assert_eq!(said(text).first().map(String::as_str), Some(message), "{text}");
    }
    let said_of = |text: &str| said(text).join("\n");
    assert!(
        said_of("pid_file /a\npid_file /b")
            .contains("2:1: Error: Duplicate 'pid_file' value in configuration.")
    );
    assert!(
        said_of("connection a")
            .contains("1:1: Error: Invalid bridge configuration: no remote addresses defined.")
    );
    assert!(said_of("connection a\naddress b").contains("Invalid bridge configuration: no topics defined."));
    assert!(said_of("connection a\naddress b\ntopic c\nbridge_psk d").contains("missing bridge_identity."));
    assert!(said_of("plugin a\nplugin_opt_ b").contains("Invalid 'plugin_opt_' config option."));
    assert!(said_of("plugin a\nplugin_opt_test").contains("Error: Empty 'test' value in configuration."));
}

#[test]
fn all_problems_are_told_at_once_and_nothing_applies() {
    let problems = read_text("portt 1\nallow_anonymous maybe\nsys_interval 5\n", &[]).unwrap_err();
    let lines: Vec<_> = problems.iter().map(|p| p.at.as_ref().unwrap().line).collect();
    assert_eq!(lines, [1, 2]);
    let missing = read(Path::new("/nowhere/x.conf"), &[]).unwrap_err();
    assert_eq!(
        missing[0].to_string(),
        "Error: Unable to open config file '/nowhere/x.conf'.\nNo such file or directory (os error 2)."
    );
    let directory = read(Path::new("/"), &[]).unwrap_err();
    assert_eq!(directory[0].to_string(), "Error: Config file '/' is a directory.");
}

#[test]
fn line_ends_tabs_and_comments_are_no_hindrance() {
    let text = "\u{feff}listener\t1884\t127.0.0.1 # here\r\n  protocol mqtt#only\r\n\r\n# x\r\nmax_connections \t 7\t# few\r\n\
        allow_anonymous 1 # yes\r\nlog_dest file /a b";
    let settings = settings(text);
    let listener = &settings.listeners[0];
    assert_eq!(listener.endpoint.to_string(), "127.0.0.1:1884");
    assert_eq!((listener.protocol, listener.max_connections), (Some(Protocol::Mqtt), Some(7)));
    assert!(listener.allows_anonymous());
    assert_eq!(settings.log.destinations, [LogDestination::File("/a b".into())]);
    // Where a value can hold a '#', it is part of it.
    let text = "pid_file /run/x # y\nlistener 1884 127.0.0.1\nallow_anonymous true yes";
    assert_eq!(self::settings(text).pid_file, Some("/run/x # y".into()));
    assert_eq!(
        said(text),
        [
            "1:10: Warning: The value of 'pid_file' is '/run/x # y', '#' included: it may hold one. A comment needs \
             a line of its own.",
            "3:22: Warning: 'yes' after the value of 'allow_anonymous' is ignored.",
        ]
    );
    assert!(
        said("log_dest file /a # b")[0]
            .starts_with("1:15: Warning: The value of 'log_dest file' is '/a # b'")
    );
}

#[test]
fn without_a_listener_only_this_machine_gets_in() {
    for (text, ports, expected) in [
        ("", &[][..], &["127.0.0.1:1883, [::1]:1883"][..]),
        ("sys_interval 0", &[7, 8], &["127.0.0.1:7, [::1]:7", "127.0.0.1:8, [::1]:8"]),
        ("max_connections 3", &[7], &["127.0.0.1:7, [::1]:7"]),
    ] {
        let settings = read_text(text, ports).unwrap().0;
        assert_eq!(endpoints(&settings), expected);
        let listener = &settings.listeners[0];
        assert!(listener.local_only_default && listener.allows_anonymous() && listener.is_local());
        assert_eq!(settings.core.listeners[0].authentication, Authentication::None);
        assert_eq!(listener.max_connections, text.starts_with("max").then_some(3));
    }
    let refused = settings("allow_anonymous false");
    assert!(!refused.listeners[0].allows_anonymous());
    assert_eq!(endpoints(&Settings::without_file(&[9])), ["127.0.0.1:9, [::1]:9"]);
}

#[test]
fn listeners_are_where_they_are_said_to_be() {
    for (text, ports, expected) in [
        ("listener 1884", &[][..], &["0.0.0.0:1884, [::]:1884"][..]),
        ("listener 1884\nsocket_domain ipv4", &[], &["0.0.0.0:1884"]),
        ("listener 1884\nsocket_domain ipv6", &[], &["[::]:1884"]),
        ("listener 1884 [::1]", &[], &["[::1]:1884"]),
        ("listener 0x75c 127.0.0.1", &[], &["127.0.0.1:1884"]),
        ("listener 0 /run/a#b.sock # unix", &[], &["/run/a#b.sock"]),
        ("port 1884", &[], &["0.0.0.0:1884, [::]:1884"]),
        ("bind_address 127.0.0.1", &[], &["127.0.0.1:1883"]),
        ("port 1884\nbind_address 127.0.0.1", &[], &["127.0.0.1:1884"]),
        ("port 1884\nlistener 1885 ::1", &[], &["0.0.0.0:1884, [::]:1884", "[::1]:1885"]),
        ("listener 1884 127.0.0.1", &[1884], &["127.0.0.1:1884"]),
        ("listener 1884 127.0.0.1", &[1885], &["127.0.0.1:1884", "127.0.0.1:1885, [::1]:1885"]),
    ] {
        let settings = read_text(text, ports).unwrap_or_else(|p| panic!("{text}: {p:?}")).0;
        assert_eq!(endpoints(&settings), expected, "{text}");
        assert!(settings.listeners.iter().all(|l| !l.local_only_default && !l.allows_anonymous()));
        assert_eq!(settings.core.listeners.len(), settings.listeners.len());
        assert_eq!(settings.core.listeners[0].authentication, Authentication::Ask);
    }
    let unix = settings("listener 0 /a");
    assert_eq!(unix.listeners[0].endpoint, Endpoint::Unix("/a".into()));
    let twins = said("listener 1884\nlistener 1884 127.0.0.1");
    let message = "2:1: Error: 127.0.0.1:1884 is already listened on by the listener at 1:1.";
    assert!(twins.iter().any(|s| s == message), "{twins:#?}");
    settings("listener 1884\nsocket_domain ipv4\nlistener 1884 ::1");
    assert!(
        said("listener 1884 no.such.host.invalid")
            .iter()
            .any(|p| p.starts_with("1:1: Error: Error resolving"))
    );
}

#[test]
fn security_is_shared_or_of_each_listener() {
    let dir = Dir::new();
    let passwords = dir.write("passwd", "");
    let passwords = passwords.display();
    let text = format!(
        "listener 1\nlistener_allow_anonymous true\nlistener_auto_id_prefix one-\nlistener 2\npassword_file \
         {passwords}\nallow_zero_length_clientid false\nclientid_prefixes x"
    );
    let shared = settings(&text);
    let [one, two] = &shared.listeners[..] else { panic!() };
    assert!(one.allows_anonymous() && !two.allows_anonymous());
    assert!(one.security.password_file.is_some() && two.security.password_file.is_some());
    assert_eq!(one.security.auto_id_prefix.as_deref(), Some("one-"));
    assert_eq!((&two.security.auto_id_prefix, two.security.clientid_prefixes.as_deref()), (&None, Some("x")));
    assert!(shared.core.listeners.iter().all(|l| !l.limits.allow_zero_length_clientid));
    let own = settings(&format!("per_listener_settings true\n{text}"));
    let [one, two] = &own.listeners[..] else { panic!() };
    assert!(own.per_listener_settings && one.security.password_file.is_none());
    assert!(two.security.password_file.is_some() && !two.allows_anonymous());
    assert!(own.core.listeners[0].limits.allow_zero_length_clientid);
    assert!(!own.core.listeners[1].limits.allow_zero_length_clientid);
    for (text, message) in [
        (
            "per_listener_settings true\nallow_anonymous true",
            "2:1: Error: The 'allow_anonymous' option requires a listener to be defined first.",
        ),
        (
            "allow_anonymous true\nper_listener_settings true",
            "2:1: Error: per_listener_settings must be set before any other security settings. Move it to the first line.",
        ),
    ] {
        assert_eq!(said(text)[0], message);
    }
}

#[test]
fn values_arrive() {
    let text = "workers 3\nuser nobody\nmax_packet_size 3000\nmax_inflight_messages 0\nmax_queued_messages 0\n\
        max_inflight_bytes 16\nmax_queued_bytes 0\nmax_keepalive 60\ntcp_user_timeout 61\nsys_interval 0\nretain_available false\nupgrade_outgoing_qos true\n\
        persistent_client_expiration 2w\nset_tcp_nodelay false\nwebsockets_headers_size 4096\nmax_topic_separators 9\nmax_user_properties 11\n\
        max_subscriptions 8\nconnect_timeout 7\nmax_connect_size 2000\noutput_soft_limit 5000\noutput_hard_limit 6000\n\
        output_stall_timeout 5\nlog_type error\nlog_type debug\nlog_dest stdout\nlog_dest syslog\nlog_facility 5\n\
        log_timestamp_format %H:%M\nconnection_messages false\nmessage_size_limit 1000\nlog_timestamp false\n\
        listener 1884 127.0.0.1\nmax_qos 1\nmax_topic_alias 3\nmax_topic_alias_broker 4\naccept_protocol_versions 4,5\n\
        mount_point a/b/\nuse_username_as_clientid true\nwebsockets_origin http://a\nwebsockets_origin http://b\n\
        max_connections -1\nallow_anonymous true\nallow_plaintext true";
    let s = settings(text);
    let core = &s.core;
    assert_eq!((s.workers, s.user.as_deref()), (Some(3), Some("nobody")));
    assert_eq!((core.max_packet_size, core.max_inflight_messages), (3000, 65535));
    assert_eq!(core.max_inflight_bytes, 16);
    assert_eq!((core.max_queued_messages, core.max_queued_bytes), (u32::MAX, i64::MAX as u64));
    assert_eq!((core.max_keepalive_s, core.sys_interval_s, core.retain_available), (60, 0, false));
    assert_eq!((core.unreachable_s, core.max_user_properties), (61, 11));
    assert_eq!((core.upgrade_outgoing_qos, core.max_session_expiry_s), (true, 14 * 86400));
    assert_eq!((core.max_topic_separators, core.max_subscriptions, core.connect_timeout_s), (9, 8, 7));
    assert_eq!((core.connect_bytes_max, core.output_soft_bytes, core.output_hard_bytes), (2000, 5000, 6000));
    assert_eq!((core.output_stall_s, core.message_size_limit), (5, 1000));
    let log = &s.log;
    assert_eq!(log.destinations, [LogDestination::Stdout, LogDestination::Syslog { facility: 21 }]);
    let types = LogTypes { error: true, warning: false, notice: false, information: false, debug: true };
    assert_eq!((log.types, log.timestamp, log.connection_messages), (types, false, false));
    assert_eq!(log.timestamp_format.as_deref(), Some("%H:%M"));
    let (listener, limits) = (&s.listeners[0], &core.listeners[0].limits);
    assert_eq!((listener.tcp_nodelay, listener.websockets_headers_size), (false, 4096));
    assert_eq!((listener.mount_point.as_deref(), listener.use_username_as_clientid), (Some("a/b/"), true));
    assert_eq!(listener.websockets_origins, ["http://a", "http://b"]);
    assert_eq!((listener.max_connections, listener.allow_plaintext), (None, true));
    assert_eq!((limits.max_qos, limits.max_topic_alias), (QoS::AtLeastOnce, Some(3)));
    assert_eq!(limits.max_topic_alias_broker, Some(4));
    assert_eq!(limits.versions, AcceptedVersions { v3_1: false, v3_1_1: true, v5: true });
    let any = settings("tcp_user_timeout 0\nmax_user_properties 0").core;
    assert_eq!((any.unreachable_s, any.max_user_properties), (0, u32::MAX));
    let large = settings("max_packet_size 10000000");
    assert_eq!(large.core.output_hard_bytes, 20_000_000);
}

#[test]
fn tls_needs_all_its_files() {
    let dir = Dir::new();
    let file = dir.write("a.pem", "").display().to_string();
    let tls = |more: &str| {
        format!("listener 8883 127.0.0.1\nallow_anonymous true\n{}", more.replace("FILE", &file))
    };
    let good = settings(&tls(
        "certfile FILE\nkeyfile FILE\ncafile FILE\nrequire_certificate true\ntls_version tlsv1.3\n\
         use_identity_as_username true",
    ));
    let tls_settings = good.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls_settings.certfile, Path::new(&file));
    assert!(tls_settings.require_certificate && tls_settings.use_identity_as_username);
    assert_eq!((tls_settings.tls_version, tls_settings.at.line), (Some(TlsVersion::V1_3), 3));
    for (more, message) in [
        (
            "certfile FILE",
            "3:1: Error: Both certfile and keyfile must be provided to enable a TLS listener: 'keyfile' is missing.",
        ),
        ("cafile FILE", "3:1: Error: cafile specified without certfile and keyfile."),
        (
            "require_certificate true",
            "3:1: Error: require_certificate specified without certfile and keyfile.",
        ),
        (
            "certfile FILE\nkeyfile FILE\nrequire_certificate true",
            "5:1: Error: 'require_certificate' needs 'cafile' or 'capath': whose certificates are good?",
        ),
        (
            "certfile /nowhere\nkeyfile FILE",
            "3:1: Error: Unable to open certfile '/nowhere'. No such file or directory (os error 2).",
        ),
        (
            "tls_version tlsv1.1",
            "3:13: Error: Invalid 'tls_version' value (tlsv1.1). It is broken; use tlsv1.2 or tlsv1.3.",
        ),
    ] {
        assert_eq!(said(tls(more))[0], message);
    }
}

#[test]
fn of_many_problems_some_are_told() {
    let told = said("nonsense\n".repeat(5000));
    assert_eq!(told.len(), 21);
    assert!(told[20].ends_with("and 980 more errors; it was not read further"), "{}", told[20]);
}

#[test]
fn what_is_surely_not_meant_is_warned_about() {
    // The options of a tutorial: 'protocol' was meant for the listener in the middle.
    let text = "listener 1883               # MQTT (needed for connections from outside)\n\
        listener 9001               # WebSocket (optional)\n\
        listener 8883               # TLS\u{63a5}\u{7d9a} (optional)\n\
        protocol websockets\n\nallow_anonymous true \t\t# without passwords\n";
    let settings = settings(text);
    let protocols: Vec<_> = settings.listeners.iter().map(|l| l.protocol).collect();
    assert_eq!(protocols, [None, None, Some(Protocol::Websockets)]);
    assert!(settings.listeners.iter().all(|l| l.allows_anonymous()));
    let said_of = said(text);
    assert_eq!(said_of.len(), 4, "{said_of:#?}");
    assert!(said_of[1..].iter().chain(&said_of[..1]).all(|w| w.contains("Warning: ")));
    let tls = said_of.iter().find(|w| w.starts_with("3:1: Warning: Port 8883 is meant for TLS")).unwrap();
    assert!(
        tls.contains("\n    certfile /etc/")
            && tls.contains("\n    keyfile /etc/")
            && tls.contains("(line 4)")
    );
    let open = "Anyone who reaches this listener may connect, and read and write everything";
    assert_eq!(said_of.iter().filter(|w| w.contains(open)).count(), 3);
    for (text, expected) in [
        ("listener 1884", "1:1: Warning: Nobody can connect here: there is no 'password_file'"),
        ("listener 8883 127.0.0.1\nallow_anonymous true", "1:1: Warning: Port 8883 is meant for TLS"),
        ("max_connections 3\nlistener 1884 ::1", "1:1: Warning: This option stands before any 'listener'"),
        (
            "listener 1884\nallow_anonymous true\nmount_point a",
            "3:1: Warning: 'mount_point a' does not end with '/'",
        ),
        ("sys_interval 3\nsys_interval 4", "2:1: Warning: 'sys_interval' replaces the value given at 1:1."),
        ("max_packet_size 5000000", "1:1: Warning: 'max_packet_size' (5000000) is above 'max_queued_bytes'"),
        (
            "output_hard_limit 1000",
            "1:1: Warning: 'output_soft_limit' (1048576) is above 'output_hard_limit'",
        ),
        (
            "ciphers HIGH:!aNULL",
            "1:1: Warning: The list has no effect: kinds of ciphers ('HIGH') are not resolved.",
        ),
        (
            "ciphers AES256-SHA:ECDHE-RSA-AES256-GCM-SHA384",
            "1:1: Warning: There is no AES256-SHA here; the others are offered.",
        ),
        ("ciphers_tls1.3 AES256-SHA", "1:16: Error: None of these ciphers is spoken here. There are TLS_"),
        (
            "autosave_interval 3",
            "1:1: Warning: 'autosave_interval' has no effect: with 'persistence true' each change",
        ),
        (
            "persistence_durability none",
            "1:24: Error: 'persistence_durability' is one of disk, os and memory.",
        ),
        ("log_dest topic", "1:1: Warning: 'log_dest topic' has no effect yet"),
    ] {
        let said = said(text);
        assert!(said.iter().any(|s| s.starts_with(expected)), "{text}: {said:#?}");
    }
    for silent in
        ["", "persistence false", "listener 1 127.0.0.1\nallow_anonymous true", "allow_anonymous true"]
    {
        assert_eq!(said(silent), Vec::<String>::new(), "{silent}");
    }
}

#[test]
fn included_files_are_read_in_order_in_place_of_the_line() {
    let dir = Dir::new();
    for (name, seconds) in [("b", 1), ("A", 2), ("01", 3), ("a", 4), ("B", 5), ("00", 6)] {
        dir.write(&format!("d/{name}.conf"), format!("sys_interval {seconds}"));
    }
    dir.write("d/z.conf~", "nonsense");
    dir.write("d/.conf", "nonsense");
    let main = dir.write("main.conf", format!("include_dir {}", dir.0.join("d").display()));
    let (settings, problems) = read(&main, &[]).unwrap();
    assert_eq!(settings.core.sys_interval_s, 1, "b.conf is the last");
    let order: Vec<_> = problems
        .iter()
        .map(|p| p.at.as_ref().unwrap().file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["01", "A", "B", "a", "b"], "each replaces the one before");
    dir.write("d/c.conf", "include_dir /tmp");
    let problems = read(&main, &[]).unwrap_err();
    let error = problems.iter().find(|p| p.severity == Severity::Error).unwrap().to_string();
    assert!(error.contains("c.conf:1:1: Error: The include_dir option is only valid in the main"), "{error}");
}

#[test]
fn the_usual_file_of_a_distribution_is_fine() {
    let dir = Dir::new();
    let at = dir.0.display();
    dir.write("conf.d/README", "");
    let text = format!(
        "# Place your local configuration in conf.d\n\npid_file {at}/mosquitto.pid\n\npersistence true\n\
         persistence_location {at}/lib/\n\nlog_dest file {at}/mosquitto.log\n\ninclude_dir {at}/conf.d\n"
    );
    let (settings, problems) = read(&dir.write("m.conf", text), &[]).unwrap();
    assert!(settings.listeners[0].local_only_default && settings.persistence.enabled);
    assert_eq!(settings.pid_file, Some(dir.0.join("mosquitto.pid")));
    assert!(problems.iter().all(|p| p.message.contains("nothing is kept on disk yet")), "{problems:?}");
}

#[test]
fn any_bytes_are_read_without_harm() {
    for seed in 0..300_u64 {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        let names: Vec<_> = super::options::names().filter(|n| *n != "include_dir").collect();
        let values =
            ["", " ", " 0", " 1", " -1", " true", " x y", "\t#", " \u{e9}", " 65536", " file", " \"a"];
        let mut text = Vec::new();
        for _ in 0..next() % 20 {
            text.extend_from_slice(names[next() % names.len()].as_bytes());
            text.extend_from_slice(values[next() % values.len()].as_bytes());
            if next() % 8 == 0 {
                text.push(next() as u8);
            }
            text.push(b'\n');
        }
        let _ = read_text(&text, &[]);
    }
}

#[test]
fn a_reload_keeps_the_listeners_that_are_open() {
    let runs = settings("listener 1 ::1\nallow_anonymous true\nlistener 2 ::1\nlistener 3 ::1\nmax_qos 1");
    let mut new = settings(
        "listener 4 ::1\nlistener 3 ::1\nprotocol mqtt\nbind_interface lo\nlistener 1 ::1\nmax_qos 0\nuser x",
    );
    let remarks = new.fit_to(&runs).unwrap();
    assert_eq!(endpoints(&new), endpoints(&runs));
    let limits: Vec<_> = new.core.listeners.iter().map(|l| l.limits.max_qos as u8).collect();
    assert_eq!(limits, [0, 2, 2]);
    assert!(!new.listeners[1].allows_anonymous() && new.listeners[1].closed);
    assert!(!new.listeners[0].closed && new.listeners[2].protocol == Some(Protocol::Mqtt));
    assert_eq!(new.user, None);
    assert_eq!(
        remarks,
        [
            "[::1]:2 is not configured any more: its clients are closed and nobody gets in. The port is free after \
             the next start.",
            "'bind_interface' and 'set_tcp_nodelay' of [::1]:3 change at the next start.",
            "[::1]:4 is opened at the next start.",
            "'user' changes at the next start.",
        ]
    );
}

#[test]
fn a_reload_does_not_lock_everyone_out() {
    for (runs, new, stays) in [
        ("", "listener 1883\nprotocol mqtt", true),
        ("listener 1 127.0.0.1", "listener 1 192.0.2.1\nprotocol mqtt", true),
        ("listener 1 192.0.2.1", "listener 1 0.0.0.0\nprotocol mqtt", true),
        // Who is let in at a narrow address is not let in from everywhere.
        ("listener 1", "listener 1 127.0.0.1\nprotocol mqtt", false),
        ("listener 1", "listener 1 0.0.0.0\nprotocol mqtt", false),
        ("listener 1 192.0.2.1", "listener 1 192.0.2.2\nprotocol mqtt", false),
        ("listener 1 192.0.2.1", "listener 1\nbind_interface lo\nprotocol mqtt", false),
        ("listener 1 127.0.0.1", "listener 2 127.0.0.1\nprotocol mqtt", false),
        ("listener 0 /x", "listener 0 /y\nprotocol mqtt", false),
    ] {
        let (runs, mut new) = (settings(runs), settings(new));
        let asked = new.listeners[0].endpoint.to_string();
        match new.fit_to(&runs) {
            Ok(remarks) => {
                assert!(stays, "{asked}");
                assert_eq!(endpoints(&new), endpoints(&runs));
                assert_eq!(new.listeners[0].protocol, Some(Protocol::Mqtt));
                let place = &runs.listeners[0].endpoint;
                let remark = format!(
                    "{place} stays open in place of {asked}, with all that is configured for {asked}; the address \
                     changes at the next start."
                );
                assert_eq!(remarks, [remark]);
            }
            Err(problem) => {
                assert!(
                    !stays && problem.message.contains(&format!("and {asked} can be opened")),
                    "{problem}"
                );
            }
        }
    }
    // What has its own address is no one else's.
    let runs = settings("listener 1 127.0.0.1\nlistener 1 ::1");
    let mut new = settings("listener 1 ::1\nprotocol mqtt\nlistener 1 0.0.0.0\nprotocol websockets");
    new.fit_to(&runs).unwrap();
    let protocols: Vec<_> = new.listeners.iter().map(|l| l.protocol).collect();
    assert_eq!(protocols, [Some(Protocol::Websockets), Some(Protocol::Mqtt)]);
}

#[test]
fn who_may_connect_where_is_said_in_a_line() {
    let dir = Dir::new();
    let file = dir.write("f", "").display().to_string();
    for (text, line) in [
        ("", "127.0.0.1:1883, [::1]:1883: MQTT and WebSocket; everyone may connect from this machine."),
        (
            "listener 1\nallow_anonymous true\nprotocol mqtt",
            "0.0.0.0:1, [::]:1: MQTT; everyone may connect from anywhere.",
        ),
        ("listener 1 ::1", "[::1]:1: MQTT and WebSocket; nobody may connect from this machine."),
        (
            "listener 1 ::1\nprotocol websockets\npassword_file FILE",
            "[::1]:1: WebSocket; users of FILE may connect from this machine.",
        ),
        (
            "listener 1 ::1\ncertfile FILE\nkeyfile FILE\nallow_anonymous true\npassword_file FILE\nallow_plaintext true",
            "[::1]:1: MQTT and WebSocket, with and without TLS; users of FILE, and everyone without a name, may \
             connect from this machine.",
        ),
        (
            "listener 1 ::1\ncertfile FILE\nkeyfile FILE\ncafile FILE\nrequire_certificate 1\nallow_anonymous 1",
            "[::1]:1: MQTT and WebSocket, with TLS; everyone with a certificate may connect from this machine.",
        ),
        (
            "listener 0 /run/x\nallow_anonymous 1",
            "/run/x: MQTT and WebSocket; everyone may connect from this machine.",
        ),
    ] {
        let described = settings(&text.replace("FILE", &file)).listeners[0].describe();
        assert_eq!(described, line.replace("FILE", &file), "{text}");
    }
}
