//! SUBSCRIBE, UNSUBSCRIBE, shared subscriptions and rights.

mod common;

use common::{Rig, both, one, quiet};
use hikyaku_proto::broker::rights::{Access, Rights, Rule, Rules, Who};
use hikyaku_proto::broker::{Config, Listener};
use std::sync::Arc;

#[test]
fn overlapping_subscriptions_are_one_copy_with_all_identifiers() {
    let mut rig = one();
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 sid=1 a/+:0; SUBSCRIBE id=2 sid=300 a/#:2; SUBSCRIBE id=3 a/b:1
         s< CONNACK 0; SUBACK 1 0; SUBACK 2 2; SUBACK 3 1",
    );
    rig.send("p", "CONNECT p clean; PUBLISH a/b x q2 id=1; PUBLISH a/c/d y q1 id=2");
    let news = rig.news("s");
    let (first, second) = news.split_once("; ").unwrap();
    assert!(
        first.starts_with("PUBLISH a/b x q2 id=1") && first.contains("sid=1") && first.contains("sid=300")
    );
    assert_eq!(second, "PUBLISH a/c/d y q1 id=2 sid=300");
}

#[test]
fn no_local() {
    one().run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 t:nl u
         s< CONNACK 0; SUBACK 1 0 0
         o> CONNECT o clean; SUBSCRIBE id=1 t
         o< CONNACK 0; SUBACK 1 0
         s> PUBLISH t 1; PUBLISH u 2; PUBLISH t 3 q1 id=1
         s< PUBLISH u 2; PUBACK 1
         o< PUBLISH t 1; PUBLISH t 3
         o> PUBLISH t 4
         o< PUBLISH t 4
         s< PUBLISH t 4
         s> SUBSCRIBE id=2 $share/g/t:nl
         s< DISCONNECT 0x82; CLOSED",
    );
}

#[test]
fn topics_with_a_dollar_are_out_of_sight_for_wildcards() {
    both(
        &quiet(),
        "s> CONNECT s clean {5}; SUBSCRIBE id=1 +/a #; SUBSCRIBE id=2 $x/#
         s< CONNACK 0; SUBACK 1 0 0; SUBACK 2 0
         p> CONNECT p clean {5}; PUBLISH $x/a 1; PUBLISH $y/a 2; PUBLISH y/a 3
         p< CONNACK 0
         s< PUBLISH $x/a 1; PUBLISH y/a 3",
    );
}

#[test]
fn unsubscribe() {
    both(
        &quiet(),
        "s> CONNECT s clean {5}; SUBSCRIBE id=1 a b; UNSUBSCRIBE id=2 a c; PUBLISH a x; PUBLISH b x; UNSUBSCRIBE id=3 b
         s< CONNACK 0; SUBACK 1 0 0; UNSUBACK 2{5: 0 0x11}; PUBLISH b x; UNSUBACK 3{5: 0}
         s> PUBLISH b y
         s<",
    );
}

#[test]
fn wrong_filters_change_nothing() {
    for (filter, v5) in [
        ("a/#/b", "0x8f"),
        ("a+", "0x8f"),
        ("$share/g", "0x82"),
        ("$share//t", "0x82"),
        ("$share/+/t", "0x82"),
    ] {
        let mut rig = one();
        rig.run(&format!(
            "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 fine {filter}
             s< CONNACK 0; DISCONNECT {v5}; CLOSED"
        ));
        assert_eq!(rig.sum(|c| c.subscriptions), 0);
        rig.run(&format!("o> CONNECT o; SUBSCRIBE id=1 fine {filter}\n o< CONNACK 0; CLOSED"));
    }
}

#[test]
fn wrong_options() {
    // SUBSCRIBE id 1, filter t, options byte.
    for byte in ["40", "03", "30"] {
        one().run(&format!(
            "a> CONNECT a clean v5; RAW 82 07 00 01 00 00 01 74 {byte}
             a< CONNACK 0; DISCONNECT 0x81; CLOSED
             b> CONNECT b clean; RAW 82 06 00 01 00 01 74 {byte}
             b< CONNACK 0; CLOSED"
        ));
    }
    one().run("b> CONNECT b clean; RAW 82 06 00 01 00 01 74 04\n b< CONNACK 0; CLOSED");
}

#[test]
fn a_limit_of_subscriptions() {
    let config = Config { max_subscriptions: 2, ..quiet() };
    Rig::new(1, 0, config)
        .run("a> CONNECT a clean v5; SUBSCRIBE id=1 a b c\n a< CONNACK 0; SUBACK 1 0 0 0x97");
}

#[test]
fn shared_in_turn() {
    both(
        &quiet(),
        "a> CONNECT a clean {5}; SUBSCRIBE id=1 $share/g/t:1
         a< CONNACK 0; SUBACK 1 1
         b> CONNECT b clean {5}; SUBSCRIBE id=1 $share/g/t:0
         b< CONNACK 0; SUBACK 1 0
         p> CONNECT p clean {5}; PUBLISH t 1; PUBLISH t 2; PUBLISH t 3 q1 id=1; PUBLISH t 4 q1 id=2 r
         p< CONNACK 0; PUBACK 1; PUBACK 2
         a< PUBLISH t 1; PUBLISH t 3 q1 id=1
         b< PUBLISH t 2; PUBLISH t 4
         b> UNSUBSCRIBE id=2 $share/g/t; UNSUBSCRIBE id=3 $share/g/t
         b< UNSUBACK 2{5: 0}; UNSUBACK 3{5: 0x11}
         p> PUBLISH t 5; PUBLISH t 6
         a< PUBLISH t 5; PUBLISH t 6
         a!
         p> PUBLISH t 7 q1 id=3
         p< PUBACK 3{5: 0x10}",
    );
}

#[test]
fn shared_with_members_that_are_away_and_end() {
    one().run(
        "a> CONNECT a v5 expiry=100 rm=2; SUBSCRIBE id=1 $share/g/t:2
         a< CONNACK 0; SUBACK 1 2
         b> CONNECT b v5 expiry=100; SUBSCRIBE id=1 $share/g/t:2
         b< CONNACK 0; SUBACK 1 2
         b!
         p> CONNECT p clean; PUBLISH t 1 q1 id=1; PUBLISH t 2 q2 id=2; PUBLISH t 3 q1 id=3; PUBLISH t 4 q2 id=4
         p< CONNACK 0; PUBACK 1; PUBREC 2; PUBACK 3; PUBREC 4
         a< PUBLISH t 1 q1 id=1; PUBLISH t 2 q2 id=2
         a> DISCONNECT expiry=0
         a< CLOSED
         b> CONNECT b v5 expiry=100
         b< CONNACK 0 present; PUBLISH t 1 q1 id=1; PUBLISH t 3 q1 id=2; PUBLISH t 4 q2 id=3",
    );
}

#[test]
fn a_message_is_given_back_to_its_own_group_only() {
    one().run(
        "b> CONNECT b v5; SUBSCRIBE id=1 $share/h/other:1
         b< CONNACK 0; SUBACK 1 1
         a> CONNECT a v5; SUBSCRIBE id=1 $share/g/t:1
         a< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean; PUBLISH t 1 q1 id=1
         p< CONNACK 0; PUBACK 1
         a< PUBLISH t 1 q1 id=1
         a> UNSUBSCRIBE id=2 $share/g/t; SUBSCRIBE id=3 $share/h/other:1
         a< UNSUBACK 2 0; SUBACK 3 1
         a!
         b<",
    );
}

fn rights() -> Config {
    with_rights(&rules())
}

fn with_rights(rules: &[Rule]) -> Config {
    let rights = Arc::new(Rights::Rules(Rules::new(None, rules.iter().cloned())));
    Config { listeners: vec![Listener { rights, ..Listener::default() }], ..quiet() }
}

fn rules() -> Vec<Rule> {
    let rule = |who: &str, access, filter: &str| {
        let who = if who.is_empty() { Who::Anonymous } else { Who::User(who.into()) };
        Rule { who, access, filter: filter.into(), line: 0 }
    };
    vec![
        rule("", Access::ReadWrite, "open/#"),
        rule("", Access::Deny, "open/secret"),
        rule("ann", Access::ReadWrite, "#"),
    ]
}

#[test]
fn rights_hold() {
    both(
        &rights(),
        "s> CONNECT s clean {5}; SUBSCRIBE id=1 open/+:1 closed open/secret
         s< CONNACK 0; SUBACK 1 1 {3:0x80 0x80}{5:0x87 0x87}
         a> CONNECT a clean {5} user=ann; PUBLISH open/secret 1 r; PUBLISH open/x 2 r
         a< CONNACK 0
         s< PUBLISH open/x 2
         s> SUBSCRIBE id=2 open/#
         s< SUBACK 2 0; PUBLISH open/x 2 r
         s> PUBLISH open/secret 3; PUBLISH open/secret 4 q1 id=1; PUBLISH open/secret 5 q2 id=2; PUBREL 2
         s< PUBACK 1{5: 0x87}; PUBREC 2{5: 0x87}; PUBCOMP 2
         w> CONNECT w clean {5} will=closed,x
         w< CONNACK {3:5}{5:0x87}; CLOSED",
    );
}

#[test]
fn new_rights_count_at_once() {
    let mut rig = Rig::new(1, 0, rights());
    rig.run(
        "s> CONNECT s clean v5; SUBSCRIBE id=1 open/+
         s< CONNACK 0; SUBACK 1 0
         w> CONNECT w clean v5 will=open/x,bye
         w< CONNACK 0
         p> CONNECT p clean v5; PUBLISH open/x 1 q1 id=1
         p< CONNACK 0; PUBACK 1
         s< PUBLISH open/x 1",
    );
    rig.configure(with_rights(&[]));
    rig.run("p> PUBLISH open/x 2 q1 id=1\n p< PUBACK 1 0x87\n w!\n s<");
    let mut rig = Rig::new(2, 0, rights());
    // Names that live on different shards.
    let names: Vec<String> = (0..20).map(|i| format!("n{i}")).collect();
    let on =
        |rig: &Rig, shard| names.iter().find(|n| rig.placement.shard(n.as_bytes()) == shard).unwrap().clone();
    let (s, p) = (on(&rig, 0), on(&rig, 1));
    rig.run(&format!(
        "s> CONNECT {s} clean v5; SUBSCRIBE id=1 open/+
         s< CONNACK 0; SUBACK 1 0
         p> CONNECT {p} clean v5 user=ann; PUBLISH open/x 1
         p< CONNACK 0
         s< PUBLISH open/x 1"
    ));
    rig.configure(with_rights(&rules()[1..]));
    rig.run("p> PUBLISH open/x 2\n s<");
}

#[test]
fn a_session_resumed_by_a_user_has_that_users_rights() {
    let mut rig = Rig::new(1, 0, rights());
    rig.run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 +/x:1
         s< CONNACK 0; SUBACK 1 1
         a> CONNECT a clean user=ann; PUBLISH closed/x 1
         a< CONNACK 0
         s> CONNECT s v5 expiry=100 user=ann
         s< DISCONNECT 0x82; CLOSED
         s> CONNECT s v5 expiry=100 user=ann
         s< CONNACK 0 present
         a> PUBLISH closed/x 2
         s< PUBLISH closed/x 2",
    );
}
