//! Rights, listeners' settings and mount points, against bare shards.
#![allow(missing_docs)]

#[path = "common/logged.rs"]
mod logged;

use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{
    Authentication, Config, ConnId, Input, Listener, Output, Placement, Revoked, Shard, Verdict,
};
use hikyaku_proto::codec::{QoS, ReasonCode};
use hikyaku_proto::message::Message;
use hikyaku_proto::time::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A broker of some shards, all connections of which are opened on the first.
struct Broker {
    shards: Vec<Shard>,
    placement: Arc<Placement>,
    config: Arc<Config>,
    conns: u32,
    homes: BTreeMap<u32, usize>,
    got: BTreeMap<u32, Vec<u8>>,
    questions: Vec<String>,
    closed: Vec<u32>,
}

fn id(index: u32) -> ConnId {
    ConnId { index, generation: 0 }
}

impl Broker {
    fn new(shards: u16, listeners: Vec<Listener>) -> Broker {
        let config = Arc::new(Config { listeners, sys_interval_s: 0, ..Config::default() });
        let placement = Arc::new(Placement::new(1, shards));
        let shard = |i| Shard::new(i, shards, 2, config.clone(), placement.clone(), Instant::ZERO);
        Broker {
            shards: (0..shards).map(shard).collect(),
            placement,
            config: config.clone(),
            conns: 0,
            homes: BTreeMap::new(),
            got: BTreeMap::new(),
            questions: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn input(&mut self, shard: usize, input: Input<'_>) {
        self.shards[shard].handle(Instant::ZERO, input);
        let mut busy = VecDeque::from_iter(0..self.shards.len());
        while let Some(at) = busy.pop_front() {
            match self.shards[at].poll_output(Instant::ZERO) {
                Output::Timeout(Some(Instant::ZERO)) => {
                    self.shards[at].handle(Instant::ZERO, Input::Timeout);
                }
                Output::Timeout(_) => continue,
                Output::Transmit(conn) => {
                    let bytes: Vec<u8> =
                        self.shards[at].outbox(conn).unwrap().chunks().flatten().copied().collect();
                    self.shards[at].handle(Instant::ZERO, Input::Written { conn, bytes: bytes.len() });
                    self.got.entry(conn.index).or_default().extend(bytes);
                }
                Output::Close { conn, last } => {
                    self.got.entry(conn.index).or_default().extend(last.chunks().flatten());
                    self.closed.push(conn.index);
                }
                Output::Peer { to, message } => {
                    let from = at as u16;
                    self.shards[usize::from(to)].handle(Instant::ZERO, Input::Peer { from, message });
                    busy.push_back(usize::from(to));
                }
                Output::Authenticate(question) => {
                    self.questions.push(format!("{:?} {}", question.username, question.client_id));
                }
                Output::PauseReads(_) | Output::ResumeReads(_) | Output::Watch { .. } => {}
                Output::Store { .. } => unreachable!("nothing is kept"),
            }
            busy.push_front(at);
        }
    }

    /// Opens a connection with this CONNECT; the answer is to be found in `got`.
    fn open(&mut self, listener: u16, identity: Option<&str>, connect: &[u8]) -> u32 {
        let (conn, entropy) = (self.conns, [self.conns as u8; 16]);
        self.conns += 1;
        let home = match self.config.home(&self.placement, listener, identity, &entropy, connect) {
            hikyaku_proto::broker::Home::At(home) => usize::from(home),
            _ => 0,
        };
        self.homes.insert(conn, home);
        self.input(home, Input::Opened { conn: id(conn), listener, peer: None, identity, entropy });
        self.send(conn, connect);
        conn
    }

    /// A client that has been let in.
    fn client(&mut self, listener: u16, name: &str, username: Option<&str>) -> u32 {
        let conn = self.open(listener, None, &connect(4, 2, name, username, None));
        assert_eq!(self.take(conn), [0x20, 2, 0, 0], "{name}");
        conn
    }

    fn send(&mut self, conn: u32, bytes: &[u8]) {
        self.input(self.homes[&conn], Input::Received { conn: id(conn), bytes });
    }

    fn take(&mut self, conn: u32) -> Vec<u8> {
        self.got.remove(&conn).unwrap_or_default()
    }

    fn subscribe(&mut self, conn: u32, filter: &str) -> u8 {
        self.send(conn, &packet(0x82, &[&[0, 9][..], &string(filter), &[1]].concat()));
        let answer = self.take(conn);
        assert_eq!(answer[..4], [0x90, 3, 0, 9]);
        if answer.len() > 5 {
            self.got.insert(conn, answer[5..].to_vec());
        }
        answer[4]
    }

    fn configure(&mut self, listeners: Vec<Listener>) {
        self.configure_with(Config { listeners, sys_interval_s: 0, ..Config::default() });
    }

    fn configure_with(&mut self, config: Config) {
        self.config = Arc::new(config);
        for shard in 0..self.shards.len() {
            self.input(shard, Input::Configured(self.config.clone()));
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8][..], body].concat()
}

/// CONNECT of version `level`, with `flags` beside those of the arguments.
fn connect(level: u8, flags: u8, name: &str, username: Option<&str>, will: Option<&str>) -> Vec<u8> {
    let mut body = b"\0\x04MQTT".to_vec();
    let flags = flags | if username.is_some() { 0x80 } else { 0 } | if will.is_some() { 4 } else { 0 };
    body.extend([level, flags, 0, 0]);
    body.extend((level == 5).then_some(0));
    body.extend(string(name));
    if let Some(topic) = will {
        body.extend((level == 5).then_some(0));
        body.extend([string(topic), string("gone")].concat());
    }
    body.extend(username.map(string).unwrap_or_default());
    packet(0x10, &body)
}

fn publish(first: u8, topic: &str, payload: &str) -> Vec<u8> {
    packet(first, &[&string(topic)[..], payload.as_bytes()].concat())
}

fn rule(who: Who, access: Access, filter: &str) -> Rule {
    Rule { who, access, filter: filter.into(), line: 1 }
}

fn with_rights(rules: Vec<Rule>) -> Listener {
    Listener { rights: Arc::new(Rights::Rules(Rules::new(Some("acl"), rules))), ..Listener::default() }
}

fn mounted(point: &str) -> Listener {
    Listener { mount_point: Some(point.into()), ..Listener::default() }
}

fn user(name: &str) -> Who {
    Who::User(name.into())
}

#[test]
fn rights_filter_publish_delivery_replay_and_shares() {
    for shards in [1, 3] {
        let rules = vec![
            rule(user("ann"), Access::ReadWrite, "a/#"),
            rule(user("ann"), Access::Deny, "a/no/#"),
            rule(user("bob"), Access::Write, "#"),
        ];
        let mut broker = Broker::new(shards, vec![with_rights(rules)]);
        let ann = broker.client(0, "ann", Some("ann"));
        let bob = broker.client(0, "bob", Some("bob"));
        broker.send(bob, &publish(0x31, "a/kept", "1"));
        broker.send(bob, &publish(0x31, "b/kept", "2"));
        assert_eq!(broker.subscribe(ann, "b/#"), 0x80, "nothing permitted can match");
        assert_eq!(broker.subscribe(ann, "a/no/+"), 0x80, "a denial covers it");
        assert_eq!(broker.subscribe(ann, "$share/g/b/#"), 0x80);
        assert_eq!(broker.subscribe(bob, "a/x"), 0x80, "may only write");
        assert_eq!(broker.subscribe(ann, "#"), 1, "what it may have of it");
        assert_eq!(broker.take(ann), publish(0x31, "a/kept", "1"), "replay is filtered");
        for topic in ["a/x", "a/no/x", "b/x", "a/y"] {
            broker.send(bob, &publish(0x30, topic, "live"));
        }
        assert_eq!(broker.take(ann), [publish(0x30, "a/x", "live"), publish(0x30, "a/y", "live")].concat());
        broker.send(ann, &publish(0x30, "b/x", "denied"));
        broker.send(ann, &publish(0x30, "a/own", "allowed"));
        assert_eq!(broker.take(ann), publish(0x30, "a/own", "allowed"));
        // Shared: the group is asked as well.
        let other = broker.client(0, "other", Some("ann"));
        assert_eq!(broker.subscribe(other, "$share/g/#"), 1);
        broker.send(bob, &publish(0x30, "b/x", "denied"));
        assert_eq!(broker.take(other), []);
        broker.send(bob, &publish(0x30, "a/s", "1"));
        assert_eq!(broker.take(other), publish(0x30, "a/s", "1"));
    }
}

#[test]
fn what_is_retained_is_sent_while_its_publisher_may_publish_it() {
    let rules = |access| {
        let own = vec![rule(Who::Pattern, access, "t/%c"), rule(user("ann"), access, "u/#")];
        vec![with_rights(own), with_rights(vec![rule(Who::Pattern, Access::Read, "#")])]
    };
    for shards in [1, 3] {
        for check in [true, false] {
            let mut broker = Broker::new(shards, rules(Access::ReadWrite));
            let configure = |broker: &mut Broker, access| {
                broker.configure_with(Config {
                    listeners: rules(access),
                    check_retain_source: check,
                    sys_interval_s: 0,
                    ..Config::default()
                });
            };
            configure(&mut broker, Access::ReadWrite);
            let ann = broker.client(0, "a", Some("ann"));
            broker.send(ann, &publish(0x31, "t/a", "1"));
            broker.send(ann, &publish(0x31, "u/a", "2"));
            // The broker's own word needs no right.
            let message = Message::new("x", b"3", QoS::AtMostOnce, true);
            broker.input(0, Input::Publish { message });
            let seen = |broker: &mut Broker, name: &str| {
                let reader = broker.client(1, name, None);
                ["t/+", "u/a", "x"].map(|filter| {
                    assert_eq!(broker.subscribe(reader, filter), 1);
                    broker.take(reader)
                })
            };
            let all = [publish(0x31, "t/a", "1"), publish(0x31, "u/a", "2"), publish(0x31, "x", "3")];
            assert_eq!(seen(&mut broker, "early"), all);
            // Gone, and its rights with it: by client id and by user name alike.
            broker.send(ann, &[0xE0, 0]);
            configure(&mut broker, Access::Read);
            let [t, u, x] = all.clone();
            assert_eq!(
                seen(&mut broker, "late"),
                if check { [vec![], vec![], x] } else { [t, u, x] },
                "{shards} shards, checked: {check}"
            );
            // Nothing is lost: the right comes back.
            configure(&mut broker, Access::ReadWrite);
            assert_eq!(seen(&mut broker, "again"), all);
        }
    }
}

#[test]
fn a_will_needs_the_right_at_connect_and_when_it_is_sent() {
    let rules = |access| vec![with_rights(vec![rule(Who::Pattern, access, "w/%c")]), Listener::default()];
    let mut broker = Broker::new(1, rules(Access::ReadWrite));
    let refused = broker.open(0, None, &connect(4, 2, "c", Some("ann"), Some("other")));
    assert_eq!(broker.take(refused), [0x20, 2, 0, 5]);
    let refused = broker.open(0, None, &connect(5, 2, "c", Some("ann"), Some("other")));
    assert_eq!(broker.take(refused), [0x20, 3, 0, 0x87, 0]);
    let hearer = broker.client(1, "hearer", None);
    assert_eq!(broker.subscribe(hearer, "w/#"), 1);
    for (access, sent) in [(Access::ReadWrite, publish(0x30, "w/c", "gone")), (Access::Read, vec![])] {
        broker.configure(rules(Access::ReadWrite));
        let dying = broker.open(0, None, &connect(4, 2, "c", Some("ann"), Some("w/c")));
        assert_eq!(broker.take(dying), [0x20, 2, 0, 0]);
        broker.configure(rules(access));
        broker.input(0, Input::Closed { conn: id(dying) });
        assert_eq!(broker.take(hearer), sent);
    }
    // An assigned id is what the pattern means, not the empty one.
    let assigned = broker.open(0, None, &connect(4, 2, "", Some("ann"), Some("w/")));
    assert_eq!(broker.take(assigned), [0x20, 2, 0, 5]);
}

#[test]
fn a_revoked_right_holds_for_what_is_queued() {
    let rules = |access| {
        vec![with_rights(vec![rule(Who::Pattern, access, "t/#"), rule(Who::Pattern, Access::ReadWrite, "u")])]
    };
    let mut broker = Broker::new(1, rules(Access::ReadWrite));
    let reader = broker.open(0, None, &connect(4, 0, "reader", None, None));
    broker.take(reader);
    assert_eq!((broker.subscribe(reader, "t/1"), broker.subscribe(reader, "u")), (1, 1));
    broker.send(reader, &[0xE0, 0]);
    let writer = broker.client(0, "writer", None);
    for topic in ["t/1", "u"] {
        broker.send(writer, &packet(0x32, &[&string(topic)[..], &[0, 1], b"x"].concat()));
    }
    broker.configure(rules(Access::Write));
    let reader = broker.open(0, None, &connect(4, 0, "reader", None, None));
    let got = broker.take(reader);
    assert_eq!(got[..4], [0x20, 2, 1, 0]);
    assert_eq!((got[4], &got[6..9]), (0x32, &string("u")[..]), "{got:02x?}");
    assert_eq!(got.len(), 4 + 2 + 3 + 2 + 1, "only that");
    // Routes that were found under the old rights are not used either.
    broker.send(writer, &publish(0x30, "t/1", "y"));
    assert_eq!(broker.take(reader), []);
}

#[test]
fn rights_are_those_of_the_listener() {
    let closed = with_rights(vec![rule(Who::Anonymous, Access::Read, "a")]);
    let mut broker = Broker::new(2, vec![Listener::default(), closed]);
    let free = broker.client(0, "free", None);
    let bound = broker.client(1, "bound", None);
    assert_eq!((broker.subscribe(free, "b"), broker.subscribe(bound, "b")), (1, 0x80));
    assert_eq!(broker.subscribe(bound, "+"), 1);
    broker.send(bound, &publish(0x30, "b", "no"));
    assert_eq!(broker.take(free), []);
    broker.send(free, &publish(0x30, "a", "yes"));
    broker.send(free, &publish(0x30, "c", "no"));
    assert_eq!(broker.take(bound), publish(0x30, "a", "yes"));
}

#[test]
fn a_mount_point_is_put_on_and_taken_off() {
    for shards in [1, 2] {
        let mut broker = Broker::new(shards, vec![Listener::default(), mounted("m/")]);
        let outside = broker.client(0, "outside", None);
        let inside = broker.client(1, "inside", None);
        let shared = broker.client(1, "shared", None);
        assert_eq!(broker.subscribe(outside, "#"), 1);
        assert_eq!(broker.subscribe(shared, "$share/g/s"), 1);
        broker.send(inside, &publish(0x31, "kept", "1"));
        assert_eq!(broker.take(outside), publish(0x30, "m/kept", "1"));
        assert_eq!(broker.subscribe(inside, "#"), 1);
        assert_eq!(broker.take(inside), publish(0x31, "kept", "1"), "replay");
        broker.send(outside, &publish(0x30, "x", "not for inside"));
        broker.send(outside, &publish(0x30, "m/x", "for inside"));
        assert_eq!(broker.take(inside), publish(0x30, "x", "for inside"));
        broker.take(outside);
        broker.send(outside, &publish(0x30, "m/s", "share"));
        assert_eq!(broker.take(shared), publish(0x30, "s", "share"));
        broker.take(outside);
        broker.take(inside);
        // QoS 1 goes by another way.
        broker.send(outside, &packet(0x32, &[&string("m/q")[..], &[0, 1], b"x"].concat()));
        assert_eq!(broker.take(inside), packet(0x32, &[&string("q")[..], &[0, 1], b"x"].concat()));
        broker.take(outside);
        // Wills, and unsubscribing.
        let dying = broker.open(1, None, &connect(4, 2, "dying", None, Some("will")));
        broker.input(broker.homes[&dying], Input::Closed { conn: id(dying) });
        assert_eq!(broker.take(outside), publish(0x30, "m/will", "gone"));
        assert_eq!(broker.take(inside), publish(0x30, "will", "gone"));
        broker.send(inside, &packet(0xA2, &[&[0, 5][..], &string("#")].concat()));
        assert_eq!(broker.take(inside), [0xB0, 2, 0, 5]);
        broker.send(outside, &publish(0x30, "m/x", "unheard"));
        assert_eq!(broker.take(inside), []);
    }
}

#[test]
fn a_mounted_client_neither_sees_nor_writes_reports() {
    let mut broker = Broker::new(1, vec![Listener::default(), mounted("$SYS/")]);
    let outside = broker.client(0, "outside", None);
    let inside = broker.client(1, "inside", None);
    assert_eq!(broker.subscribe(outside, "$SYS/#"), 1);
    broker.send(inside, &publish(0x30, "broker/version", "mine"));
    assert_eq!(broker.take(outside), []);
}

#[test]
fn client_ids_are_prefixed_assigned_and_replaced() {
    let wanted = Listener { clientid_prefixes: Some("dev-".into()), ..Listener::default() };
    let named = Listener { use_username_as_clientid: true, ..Listener::default() };
    let assigned = Listener { auto_id_prefix: Some("mine-".into()), ..Listener::default() };
    let mut broker = Broker::new(3, vec![wanted, named, assigned]);
    broker.client(0, "dev-1", None);
    let refused = broker.open(0, None, &connect(4, 2, "x", None, None));
    assert_eq!(broker.take(refused), [0x20, 2, 0, 2]);
    let refused = broker.open(0, None, &connect(5, 2, "x", None, None));
    assert_eq!(broker.take(refused), [0x20, 3, 0, 0x85, 0]);
    let conn = broker.open(2, None, &connect(5, 2, "", None, None));
    assert!(broker.take(conn).windows(5).any(|w| w == b"mine-"));
    // The name decides which session it is, and where that lives.
    let first = broker.client(1, "a", Some("ann"));
    broker.client(1, "b", Some("ann"));
    assert_eq!(broker.closed.last(), Some(&first), "taken over");
    let refused = broker.open(1, None, &connect(4, 2, "a", None, None));
    assert_eq!(broker.take(refused), [0x20, 2, 0, 5]);
}

#[test]
fn who_a_certificate_names_is_not_asked() {
    let ask = Listener { authentication: Authentication::Ask, ..Listener::default() };
    let named = Listener { identity_required: true, ..ask.clone() };
    let mut broker = Broker::new(1, vec![ask, named]);
    let conn = broker.open(0, Some("cert"), &connect(4, 2, "c", Some("other"), None));
    assert_eq!((broker.take(conn), broker.questions.len()), (vec![0x20, 2, 0, 0], 0));
    let conn = broker.open(1, None, &connect(4, 2, "d", Some("cert"), None));
    assert_eq!((broker.take(conn), broker.questions.len()), (vec![0x20, 2, 0, 4], 0));
    let conn = broker.open(1, None, &connect(5, 2, "d", Some("cert"), None));
    assert_eq!((broker.take(conn), broker.questions.len()), (vec![0x20, 3, 0, 0x86, 0], 0));
    let conn = broker.open(0, None, &connect(4, 2, "e", Some("ann"), None));
    assert_eq!((broker.take(conn), broker.questions.len()), (vec![], 1));
    let verdict = Verdict::Failure(ReasonCode::ServerBusy);
    broker.input(0, Input::Authenticated { conn: id(conn), verdict });
    assert_eq!(broker.take(conn), [0x20, 2, 0, 3]);
}

/// A session belongs to the user who made it.
#[test]
fn another_user_neither_resumes_nor_wipes_a_session() {
    let mut broker = Broker::new(1, vec![Listener::default()]);
    let open = |broker: &mut Broker, level, flags, user| {
        let conn = broker.open(0, None, &connect(level, flags, "c", user, None));
        (conn, broker.take(conn))
    };
    let (ann, answer) = open(&mut broker, 4, 0, Some("ann"));
    assert_eq!(answer, [0x20, 2, 0, 0]);
    for user in [Some("bob"), None] {
        for flags in [0, 2] {
            assert_eq!(open(&mut broker, 4, flags, user).1, [0x20, 2, 0, 5]);
            assert_eq!(open(&mut broker, 5, flags, user).1, [0x20, 3, 0, 0x87, 0]);
        }
    }
    assert!(!broker.closed.contains(&ann), "nor is the client disturbed");
    assert_eq!(open(&mut broker, 4, 0, Some("ann")).1, [0x20, 2, 1, 0]);
    // One made without a user belongs to the first who comes.
    let nameless = broker.open(0, None, &connect(4, 0, "n", None, None));
    broker.send(nameless, &[0xE0, 0]);
    for (user, answer) in [("bob", [0x20, 2, 1, 0]), ("ann", [0x20, 2, 0, 5])] {
        let conn = broker.open(0, None, &connect(4, 0, "n", Some(user), None));
        assert!(broker.take(conn).ends_with(&answer));
    }
}

#[test]
fn who_is_not_let_in_any_more_is_closed_and_nobody_else() {
    let mut broker = Broker::new(1, vec![Listener::default(), Listener::default()]);
    let ann = broker.open(0, None, &connect(5, 2, "ann", Some("ann"), Some("w")));
    let bob = broker.client(0, "bob", Some("bob"));
    let nameless = broker.client(0, "nameless", None);
    let elsewhere = broker.client(1, "elsewhere", Some("ann"));
    let certified = broker.open(0, Some("ann"), &connect(4, 2, "certified", None, None));
    assert_eq!(broker.subscribe(bob, "w"), 1);
    broker.take(ann);
    let revoked = Revoked { users: Some(["ann".into()].into()), ..Revoked::default() };
    broker.input(0, Input::Revoked(Arc::new(revoked)));
    assert_eq!((broker.take(ann), &broker.closed[..]), (vec![0xE0, 1, 0x98], &[ann][..]));
    assert_eq!(broker.take(bob), publish(0x30, "w", "gone"));
    let revoked = Revoked { anonymous: true, users: Some([].into()), ..Revoked::default() };
    broker.input(0, Input::Revoked(Arc::new(revoked)));
    assert_eq!(broker.closed, [ann, nameless]);
    broker.input(0, Input::Revoked(Arc::new(Revoked::default())));
    assert_eq!(broker.closed, [ann, nameless, bob]);
    for conn in [elsewhere, certified] {
        broker.take(conn);
        broker.send(conn, &[0xC0, 0]);
        assert_eq!(broker.take(conn), [0xD0, 0]);
    }
    let revoked = Revoked { users: Some([].into()), certified: true, ..Revoked::default() };
    broker.input(0, Input::Revoked(Arc::new(revoked)));
    assert_eq!(broker.closed, [ann, nameless, bob, certified]);
}

/// What this thread has logged since the last call, that holds `text`.
fn lines(text: &str) -> Vec<String> {
    logged::lines().into_iter().filter(|line| line.contains(text)).collect()
}

#[test]
fn denials_are_logged_once_a_second_with_their_rule() {
    lines("");
    let rules = vec![
        rule(Who::Anonymous, Access::ReadWrite, "a/#"),
        Rule { line: 12, ..rule(Who::Anonymous, Access::Deny, "a/no") },
    ];
    let mut broker = Broker::new(1, vec![with_rights(rules)]);
    let conn = broker.client(0, "c\u{200b}", None);
    for topic in ["a/no", "a/no", "other", "$SYS/x"] {
        broker.send(conn, &publish(0x30, topic, ""));
    }
    broker.subscribe(conn, "b/\u{200b}");
    broker.open(0, None, &connect(4, 2, "dying", None, Some("other")));
    assert_eq!(
        lines("may not"),
        [
            r"INFO Client c\u{200b} may not publish to a/no: acl:12: topic deny a/no.",
            r"INFO Client c\u{200b} may not subscribe to b/\u{200b}: no rule in acl allows it.",
            "INFO Client dying may not publish its will to other: no rule in acl allows it.",
        ]
    );
    let later = Instant::from_secs(1);
    broker.shards[0].handle(later, Input::Received { conn: id(conn), bytes: &publish(0x30, "$SYS/x", "") });
    let own = r"INFO Client c\u{200b} may not publish to $SYS/x: no rule in acl allows it.";
    assert_eq!(lines(""), [own, "INFO Denials to publish that were not logged: 3."]);
}

#[test]
fn how_many_denials_were_not_logged_is_said_though_no_other_comes() {
    lines("");
    let mut broker = Broker::new(1, vec![with_rights(vec![])]);
    let conn = broker.client(0, "c", None);
    for _ in 0..4 {
        broker.send(conn, &publish(0x30, "t", ""));
    }
    assert_eq!(lines("may not").len(), 1);
    for (at, said) in
        [(999, vec![]), (1000, vec!["INFO Denials to publish that were not logged: 3."]), (3000, vec![])]
    {
        broker.shards[0].handle(Instant::from_micros(at * 1000), Input::Timeout);
        assert_eq!(lines(""), said, "{at}");
    }
}

#[test]
fn refusals_are_logged_with_who_where_and_why() {
    lines("");
    let asks = |name: &str| Listener {
        name: name.into(),
        authentication: Authentication::Ask,
        ..Listener::default()
    };
    let prefixed = Listener { clientid_prefixes: Some("ok-".into()), ..Listener::default() };
    let certified = Listener { identity_required: true, ..Listener::default() };
    let closed = Listener { closed: true, ..Listener::default() };
    let named = Listener { use_username_as_clientid: true, ..Listener::default() };
    let listeners =
        || vec![asks("port 1"), prefixed.clone(), certified.clone(), named.clone(), closed.clone()];
    let refused = |listener, verdict: Option<ReasonCode>, connect: &[u8]| {
        let mut broker = Broker::new(1, listeners());
        let peer = Some(([192, 0, 2, 7], 4000).into());
        let opened = Input::Opened { conn: id(0), listener, peer, identity: None, entropy: [0; 16] };
        broker.input(0, opened);
        broker.homes.insert(0, 0);
        broker.send(0, connect);
        if let Some(reason) = verdict {
            broker.input(0, Input::Authenticated { conn: id(0), verdict: Verdict::Failure(reason) });
        }
        assert_eq!(broker.closed, [0]);
        lines(" refused").concat()
    };
    let no = Some(ReasonCode::NotAuthorized);
    let long = "x".repeat(100);
    for (line, found) in [
        (
            r"Client c (u'an\'n\u{200b}') from 192.0.2.7:4000 refused at port 1: the user name or the password is wrong",
            refused(0, no, &connect(4, 2, "c", Some("an'n\u{200b}"), None)),
        ),
        (
            "Client c from 192.0.2.7:4000 refused at port 1: it gives no user name, and has to",
            refused(0, no, &connect(5, 2, "c", None, None)),
        ),
        (
            "Client c (u'a') from 192.0.2.7:4000 refused at port 1: its password could not be checked now, it may try again",
            refused(0, Some(ReasonCode::ServerBusy), &connect(5, 2, "c", Some("a"), None)),
        ),
        (
            &format!(
                "Client {long} from 192.0.2.7:4000 refused: the client id does not begin as clientid_prefixes wants"
            ),
            refused(1, None, &connect(4, 2, &long, None, None)),
        ),
        (
            "Client c from 192.0.2.7:4000 refused: no certificate that names the client",
            refused(2, None, &connect(4, 2, "c", None, None)),
        ),
        (
            "Client c from 192.0.2.7:4000 refused: this listener is not configured any more",
            refused(4, None, &connect(4, 2, "c", None, None)),
        ),
        (
            "refused: no user name to take for the client id",
            refused(3, None, &connect(4, 2, "c", None, None)),
        ),
        (
            "A client from 192.0.2.7:4000 refused at port 1: ",
            refused(0, None, &connect(9, 2, "c", None, None)),
        ),
        (
            "A client from 192.0.2.7:4000 refused at port 1: ",
            refused(0, None, &connect(4, 0, "", None, None)),
        ),
        (
            "A client from 192.0.2.7:4000 refused at port 1: the first packet is not a CONNECT",
            refused(0, None, b"GET"),
        ),
    ] {
        assert!(found.contains(line), "{found}");
    }
}
