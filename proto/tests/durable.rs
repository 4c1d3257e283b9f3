//! What survives a crash of the broker, and what leaves before it would.

mod common;

use common::{Rig, quiet};
use hikyaku_proto::broker::Config;

fn kept() -> Rig {
    Rig::kept(1, 0, quiet())
}

/// A rig whose store does not sync by itself.
fn slow() -> Rig {
    let mut rig = kept();
    rig.syncs = false;
    rig
}

fn sync(rig: &mut Rig) {
    rig.sync(rig.disk.unsynced());
    rig.settle();
}

fn crash(rig: &mut Rig) {
    rig.crash(0, 1);
    rig.settle();
    for name in rig.names.keys().cloned().collect::<Vec<_>>() {
        rig.pipe(&name).news.clear();
    }
}

#[test]
fn what_was_acknowledged_survives() {
    for shards in [1, 3] {
        let mut rig = Rig::kept(1, 0, quiet());
        rig.run(
            "s> CONNECT s v5 expiry=1000; SUBSCRIBE id=1 t/#:2:rap sid=7\n s< CONNACK 0; SUBACK 1 2
             p> CONNECT p v5 expiry=1000; PUBLISH t/a x q1 id=1 r; PUBLISH t/b y q2 id=2 up=u; PUBLISH t/c z
             p< CONNACK 0; PUBACK 1; PUBREC 2
             s< PUBLISH t/a x q1 id=1 r sid=7; PUBLISH t/c z sid=7; PUBLISH t/b y q2 id=2 up=u sid=7",
        );
        rig.crash(0, shards);
        rig.run(
            "s< CLOSED\n p< CLOSED
             p> CONNECT p v5 expiry=1000; PUBLISH t/b y q2 id=2 dup; PUBREL 2
             p< CONNACK 0 present; PUBREC 2; PUBCOMP 2
             s> CONNECT s v5 expiry=1000
             s< CONNACK 0 present; PUBLISH t/a x q1 id=1 r dup sid=7; PUBLISH t/b y q2 id=2 dup up=u sid=7
             s> PUBACK 1; PUBREC 2
             s< PUBREL 2",
        );
        rig.crash(0, 1);
        rig.run(
            "s< CLOSED\n p< CLOSED
             s> CONNECT s v5 expiry=1000\n s< CONNACK 0 present; PUBREL 2
             s> PUBCOMP 2
             n> CONNECT n v5; SUBSCRIBE id=1 #\n n< CONNACK 0; SUBACK 1 0; PUBLISH t/a x r
             p> CONNECT p v5 clean; PUBLISH t/a q1 id=1 r\n p< CONNACK 0; PUBACK 1
             s< PUBLISH t/a q1 id=3 r sid=7\n n< PUBLISH t/a
             s> PUBACK 3; UNSUBSCRIBE id=9 t/#; DISCONNECT expiry=0\n s< UNSUBACK 9 0; CLOSED
             p> DISCONNECT\n p< CLOSED\n n> DISCONNECT\n n< CLOSED",
        );
        assert_eq!(rig.disk.len(), (0, 0), "nothing is left behind");
    }
}

#[test]
fn promises_wait_for_the_disk() {
    let mut rig = slow();
    rig.run("s> CONNECT s; SUBSCRIBE id=1 t:2; PINGREQ\n s<");
    sync(&mut rig);
    rig.run("s< CONNACK 0; PINGRESP");
    sync(&mut rig);
    rig.run("s< SUBACK 1 2\n c> CONNECT c clean; SUBSCRIBE id=1 t; PUBLISH t 0\n c< CONNACK 0; SUBACK 1 0; PUBLISH t 0\n s< PUBLISH t 0");
    rig.send(
        "p",
        "CONNECT p clean; PUBLISH t a q1 id=1; PUBLISH t b q2 id=2; PUBLISH t c; PUBLISH u d q1 id=3",
    );
    rig.settle();
    rig.run("p< CONNACK 0\n c< PUBLISH t a; PUBLISH t b; PUBLISH t c\n s< PUBLISH t a q1 id=1; PUBLISH t c");
    sync(&mut rig);
    rig.run("p< PUBACK 1; PUBREC 2; PUBACK 3\n s< PUBLISH t b q2 id=2");
    rig.run("s> PUBREC 2\n s<");
    sync(&mut rig);
    rig.run("s< PUBREL 2");
    rig.run("s> PUBLISH x y q2 id=8\n s<");
    sync(&mut rig);
    rig.run("s< PUBREC 8\n s> PUBREL 8\n s<");
    sync(&mut rig);
    rig.run("s< PUBCOMP 8\n s> UNSUBSCRIBE id=4 t\n s<");
    sync(&mut rig);
    rig.run("s< UNSUBACK 4");
}

#[test]
fn what_was_not_synced_was_not_promised() {
    let mut rig = slow();
    rig.run("s> CONNECT s; SUBSCRIBE id=1 t:2");
    sync(&mut rig);
    sync(&mut rig);
    rig.run("s< CONNACK 0; SUBACK 1 2\n p> CONNECT p; ");
    sync(&mut rig);
    rig.run("p< CONNACK 0\n p> PUBLISH t a q2 id=1; PUBLISH t b q1 id=2\n p<\n s<");
    crash(&mut rig);
    rig.run("p> CONNECT p; PUBLISH t a q2 id=1 dup");
    sync(&mut rig);
    sync(&mut rig);
    rig.run("p< CONNACK 0 present; PUBREC 1\n s> CONNECT s");
    sync(&mut rig);
    rig.run("s< CONNACK 0 present; PUBLISH t a q2 id=1");
}

#[test]
fn a_store_that_fails_promises_nothing() {
    let mut rig = kept();
    rig.run(
        "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1
         p> CONNECT p v5 clean\n p< CONNACK 0
         o> CONNECT o clean; SUBSCRIBE id=1 t\n o< CONNACK 0; SUBACK 1 0",
    );
    rig.syncs = false;
    rig.run("p> PUBLISH t a q1 id=1\n p<\n s< PUBLISH t a q1 id=1\n o< PUBLISH t a");
    rig.store_failed(true);
    rig.run(
        "p> PUBLISH t b q1 id=2; PUBLISH t c q2 id=3; PUBLISH t d\n p<
         s< PUBLISH t d\n o< PUBLISH t d
         s> SUBSCRIBE id=2 u\n s< SUBACK 2 0x83
         o> PUBLISH t e q1 id=1\n o< CLOSED
         n> CONNECT n v5 expiry=9\n n< CONNACK 0x88; CLOSED
         m> CONNECT m\n m< CONNACK 3; CLOSED
         c> CONNECT c clean; SUBSCRIBE id=1 t:2\n c< CONNACK 0; SUBACK 1 2",
    );
    rig.store_failed(false);
    sync(&mut rig);
    rig.run("p< PUBACK 1; PUBACK 2 0x83; PUBREC 3 0x83\n p> PUBLISH t f q1 id=4\n c< PUBLISH t f q1 id=1\n s< PUBLISH t f q1 id=2");
    sync(&mut rig);
    rig.run("p< PUBACK 4");
}

#[test]
fn a_will_alone_waits_for_no_store_that_fails() {
    for shards in [1, 3] {
        let mut rig = Rig::kept(shards, 0, quiet());
        rig.run(
            "s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 w:1\n s< CONNACK 0; SUBACK 1 1
             k> CONNECT k v5 expiry=100; DISCONNECT\n k< CONNACK 0; CLOSED",
        );
        rig.syncs = false;
        // One came before anybody knew; one has wiped a session that a restart would find.
        rig.run("a> CONNECT a v5 clean will=w,a,q1\n a<\n k> CONNECT k v5 clean will=w,k,q1\n k<");
        rig.store_failed(true);
        rig.run(
            "a< CONNACK 0\n k<
             b> CONNECT b v5 clean will=v,b,q1\n b< CONNACK 0
             o> CONNECT o clean will=w,o,q1\n o< CONNACK 0
             c> CONNECT b v5 clean will=w,c,q1\n b< DISCONNECT 0x8e; CLOSED\n c< CONNACK 0
             d> CONNECT d v5 expiry=9 will=w,d,q1\n d< CONNACK 0x88; CLOSED",
        );
        rig.store_failed(false);
        sync(&mut rig);
        rig.run("k< CONNACK 0");
        sync(&mut rig);
        // It is kept now.
        rig.syncs = true;
        crash(&mut rig);
        rig.run("+1s");
        rig.send("s", "CONNECT s v5 expiry=100");
        let wills = rig.news("s");
        assert!(["w a", "w c", "w k", "w o"].iter().all(|will| wills.contains(will)), "{wills}");
    }
}

#[test]
fn a_suback_waits_for_no_records_but_its_own() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    for shards in [1, 2, 3] {
        let mut rig = Rig::kept(shards, 0, quiet());
        for name in NAMES {
            rig.run(&format!(
                "q{name}> CONNECT q{name}; SUBSCRIBE id=1 t:1\n q{name}< CONNACK 0; SUBACK 1 1\n q{name}!
                 k{name}> CONNECT k{name} v5 expiry=9\n k{name}< CONNACK 0
                 w{name}> CONNECT w{name} v5 clean will=w,w\n w{name}< CONNACK 0"
            ));
        }
        rig.run("p> CONNECT p clean\n p< CONNACK 0");
        rig.syncs = false;
        // Every shard has something that is not kept yet.
        rig.run("p> PUBLISH t x q1 id=1\n p<");
        for name in NAMES {
            rig.run(&format!("k{name}> SUBSCRIBE id=1 u{name}/+\n k{name}<"));
        }
        for failed in [false, true] {
            rig.store_failed(failed);
            for name in NAMES {
                let by = if failed { "v" } else { "w" };
                let connect = if failed { "CONNECT {} clean; " } else { "" };
                let connack = if failed { "CONNACK 0; " } else { "" };
                rig.run(&format!(
                    "{by}{name}> {}SUBSCRIBE id=1 $share/{name}/v u{name}/#\n {by}{name}< {connack}SUBACK 1 0 0",
                    connect.replace("{}", &format!("v{name}")),
                ));
            }
        }
        rig.run("p> PUBLISH ua/x y\n wa< PUBLISH ua/x y\n va< PUBLISH ua/x y\n ka< PUBLISH ua/x y");
        rig.store_failed(false);
        sync(&mut rig);
        let news = NAMES.map(|name| rig.news(&format!("k{name}")));
        assert_eq!(news, NAMES.map(|_| "SUBACK 1 0"));
        sync(&mut rig);
        rig.run("p< PUBACK 1");
    }
}

#[test]
fn subscriptions_that_cannot_be_kept_are_refused() {
    for shards in [1, 3] {
        let mut rig = Rig::kept(shards, 0, quiet());
        rig.run(
            "a> CONNECT a v5 expiry=9; SUBSCRIBE id=1 t:1\n a< CONNACK 0; SUBACK 1 1
             b> CONNECT b; SUBSCRIBE id=1 t:1\n b< CONNACK 0; SUBACK 1 1
             c> CONNECT c; SUBSCRIBE id=1 t:1\n c< CONNACK 0; SUBACK 1 1
             w> CONNECT w v5 clean will=w,w; SUBSCRIBE id=1 t:1\n w< CONNACK 0; SUBACK 1 1",
        );
        rig.syncs = false;
        rig.store_failed(true);
        rig.run(
            "a> SUBSCRIBE id=2 u; UNSUBSCRIBE id=3 t t\n a< SUBACK 2 0x83; UNSUBACK 3 0x83 0x83
             b> SUBSCRIBE id=2 u\n b< CLOSED
             c> UNSUBSCRIBE id=2 t\n c< CLOSED
             w> SUBSCRIBE id=2 u\n w< SUBACK 2 0\n w> UNSUBSCRIBE id=3 t\n w< UNSUBACK 3 0
             w> PUBLISH t x; PUBLISH u x\n w< PUBLISH u x\n a< PUBLISH t x",
        );
    }
}

#[test]
fn a_long_queue_is_left_in_the_store() {
    let mut rig = Rig::kept(1, 0, Config { max_queued_messages: 1000, ..quiet() });
    rig.run("s> CONNECT s; SUBSCRIBE id=1 t:1\n s< CONNACK 0; SUBACK 1 1\n s!\n p> CONNECT p clean\n p< CONNACK 0");
    for n in 0..500 {
        rig.run(&format!("p> PUBLISH t {n} q1 id=1\n p< PUBACK 1"));
    }
    for crash in [false, true] {
        if crash {
            rig.crash(0, 1);
            rig.pipe("p").news.clear();
        }
        rig.send("s", "CONNECT s");
        rig.pipe("s").answers = crash;
        rig.settle();
        let news = rig.news("s");
        let got: Vec<&str> = news.split("; ").filter_map(|p| p.strip_prefix("PUBLISH t ")).collect();
        let most = if crash { 500 } else { 20 };
        assert_eq!(got.len(), most);
        assert!(got.iter().enumerate().all(|(n, p)| p.starts_with(&format!("{n} "))), "{got:?}");
        rig.cut("s");
    }
    rig.settle();
    rig.run("s> CONNECT s\n s< CONNACK 0 present");
    assert_eq!(rig.disk.len().1, 0);
}

#[test]
fn time_counts_through_a_restart() {
    let mut rig = kept();
    rig.run(
        "w> CONNECT w v5 expiry=1000; SUBSCRIBE id=1 #:1\n w< CONNACK 0; SUBACK 1 1\n w!
         a> CONNECT a v5 expiry=50\n a< CONNACK 0\n a!
         b> CONNECT b v5 expiry=100 will=w/b,gone,q1,delay30\n b< CONNACK 0
         c> CONNECT c v5 clean will=w/c,gone,q1\n c< CONNACK 0
         p> CONNECT p v5 clean; PUBLISH t short q1 id=1 exp=40; PUBLISH t long q1 id=2 exp=400 r\n p< CONNACK 0; PUBACK 1; PUBACK 2
         +20s",
    );
    crash(&mut rig);
    rig.run("+25s\n w> CONNECT w v5 expiry=1000\n w< CONNACK 0 present; PUBLISH t long q1 id=2 exp=355; PUBLISH w/c gone q1 id=3\n w> PUBACK 2; PUBACK 3");
    rig.run("+6s\n w< PUBLISH w/b gone q1 id=4\n w> PUBACK 4");
    rig.run("a> CONNECT a v5 expiry=50\n a< CONNACK 0\n n> CONNECT n v5; SUBSCRIBE id=1 t\n n< CONNACK 0; SUBACK 1 0; PUBLISH t long r exp=349");
}

#[test]
fn what_an_ended_member_left_in_the_store_goes_to_others() {
    for crash_after in [false, true] {
        let mut rig = Rig::kept(1, 0, quiet());
        rig.run(
            "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 $share/g/t:2 own:1\n a< CONNACK 0; SUBACK 1 2 1\n a!
             p> CONNECT p clean v5\n p< CONNACK 0",
        );
        for n in 0..200 {
            rig.run(&format!("p> PUBLISH t {n} q2 id=1; PUBLISH own {n} q1 id=2\n p< PUBREC 1; PUBACK 2\n p> PUBREL 1\n p< PUBCOMP 1"));
        }
        rig.run("b> CONNECT b v5 expiry=1000; SUBSCRIBE id=1 $share/g/t:2\n b< CONNACK 0; SUBACK 1 2\n b!");
        rig.syncs = !crash_after;
        rig.run("+101s");
        if crash_after {
            // With the first steps of it.
            let survive = rig.disk.unsynced();
            rig.crash(survive, 3);
            rig.syncs = true;
            rig.pipe("p").news.clear();
            rig.run("+1s");
        }
        rig.send("b", "CONNECT b v5 expiry=1000");
        rig.pipe("b").answers = true;
        rig.settle();
        let news = rig.news("b");
        let mut got: Vec<u32> = news
            .split("; ")
            .filter_map(|p| p.strip_prefix("PUBLISH t ")?.split(' ').next()?.parse().ok())
            .collect();
        got.sort_unstable();
        assert_eq!(got, (0..200).collect::<Vec<_>>());
        rig.run("b> DISCONNECT expiry=0\n b< CLOSED");
        assert_eq!(rig.disk.len().1, 0, "bodies are left");
    }
}

#[test]
fn a_will_due_at_a_restart_reaches_sessions_of_all_shards() {
    for seed in 0..20 {
        let mut rig = Rig::kept(4, seed, quiet());
        for n in 0..8 {
            rig.run(&format!("s{n}> CONNECT s{n}; SUBSCRIBE id=1 w:1\n s{n}< CONNACK 0; SUBACK 1 1"));
        }
        rig.run("c> CONNECT c clean v5 will=w,gone,q1\n c< CONNACK 0");
        rig.crash(0, 4);
        rig.settle();
        for name in rig.names.keys().cloned().collect::<Vec<_>>() {
            rig.pipe(&name).news.clear();
        }
        rig.run("+1s");
        for n in 0..8 {
            rig.run(&format!("s{n}> CONNECT s{n}\n s{n}< CONNACK 0 present; PUBLISH w gone q1 id=1"));
        }
    }
}

#[test]
fn a_message_expires_while_it_waits_for_its_record() {
    for cut in [false, true] {
        let mut rig = slow();
        rig.run("s> CONNECT s v5 expiry=100; SUBSCRIBE id=1 t:2");
        sync(&mut rig);
        sync(&mut rig);
        rig.run("s< CONNACK 0; SUBACK 1 2\n p> CONNECT p clean v5; PUBLISH t a q2 id=1 exp=2; PUBLISH t b q2 id=2\n p< CONNACK 0\n s<");
        if cut {
            rig.cut("s");
        }
        rig.run("+2s");
        if cut {
            rig.send("s", "CONNECT s v5 expiry=100");
        }
        sync(&mut rig);
        sync(&mut rig);
        sync(&mut rig);
        let news = rig.news("s");
        assert!(!news.contains("PUBLISH t a"), "{news}");
        assert!(news.ends_with("PUBLISH t b q2 id=2"), "{news}");
        rig.run("p< PUBREC 1; PUBREC 2\n s> PUBREC 2");
        sync(&mut rig);
        rig.run("s< PUBREL 2\n s> PUBCOMP 2");
        sync(&mut rig);
        sync(&mut rig);
        assert_eq!(rig.disk.len().1, 0, "bodies are left");
    }
}

#[test]
fn what_was_held_back_from_a_member_that_ended_goes_to_others() {
    let mut rig = slow();
    rig.run("a> CONNECT a v5 expiry=5; SUBSCRIBE id=1 $share/g/t:2\n b> CONNECT b v5 expiry=1000; SUBSCRIBE id=1 $share/g/t:2");
    sync(&mut rig);
    sync(&mut rig);
    rig.run(
        "a< CONNACK 0; SUBACK 1 2\n b< CONNACK 0; SUBACK 1 2\n b!\n p> CONNECT p clean v5\n p< CONNACK 0",
    );
    rig.run("p> PUBLISH t x q2 id=1\n p<\n a<\n a!\n +6s");
    for _ in 0..3 {
        sync(&mut rig);
    }
    rig.run("p< PUBREC 1");
    rig.send("b", "CONNECT b v5 expiry=1000");
    rig.settle();
    for _ in 0..3 {
        sync(&mut rig);
    }
    rig.run("b< CONNACK 0 present; PUBLISH t x q2 id=1");
}

#[test]
fn a_message_of_a_shared_subscription_that_is_gone_goes_to_no_other() {
    let mut rig = kept();
    rig.run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=1 $share/g/t:1\n a< CONNACK 0; SUBACK 1 1
         p> CONNECT p clean v5; PUBLISH t x q1 id=1\n p< CONNACK 0; PUBACK 1
         a< PUBLISH t x q1 id=1\n a> UNSUBSCRIBE id=2 $share/g/t\n a< UNSUBACK 2 0",
    );
    crash(&mut rig);
    rig.run(
        "a> CONNECT a v5 expiry=100; SUBSCRIBE id=3 $share/g/u:1\n a< CONNACK 0 present; PUBLISH t x q1 id=1 dup; SUBACK 3 1
         b> CONNECT b v5; SUBSCRIBE id=1 $share/g/u:1\n b< CONNACK 0; SUBACK 1 1
         a> DISCONNECT expiry=0\n a< CLOSED\n b<",
    );
}

#[test]
fn what_need_not_be_kept_does_not_overtake_what_waits_for_its_record() {
    let mut rig = kept();
    rig.run(
        "s> CONNECT s v5 expiry=1000 rm=2; SUBSCRIBE id=1 t:2\n s< CONNACK 0; SUBACK 1 2
         p> CONNECT p clean v5; PUBLISH t a q1 id=1; PUBLISH t b q1 id=2; PUBLISH t c q2 id=3\n p< CONNACK 0; PUBACK 1; PUBACK 2; PUBREC 3
         s< PUBLISH t a q1 id=1; PUBLISH t b q1 id=2\n s!
         s> CONNECT s v5 expiry=0 rm=2\n s< CONNACK 0 present; PUBLISH t a q1 id=1 dup; PUBLISH t b q1 id=2 dup
         p> PUBLISH t d q1 id=4\n p< PUBACK 4",
    );
    rig.syncs = false;
    rig.run("s> PUBACK 1; PUBACK 2\n s<");
    rig.syncs = true;
    sync(&mut rig);
    rig.run("s< PUBLISH t c q2 id=3; PUBLISH t d q1 id=4");
}

#[test]
fn a_retained_message_that_went_while_the_store_failed_does_not_come_back() {
    let mut rig = kept();
    rig.run("p> CONNECT p v5 clean; PUBLISH t a q1 id=1 r\n p< CONNACK 0; PUBACK 1 0x10");
    rig.store_failed(true);
    rig.run("p> PUBLISH t r\n p<");
    rig.store_failed(false);
    rig.run("p> PUBLISH t q1 id=2 r\n p< PUBACK 2 0x10");
    crash(&mut rig);
    rig.run("n> CONNECT n v5 clean; SUBSCRIBE id=1 #\n n< CONNACK 0; SUBACK 1 0");
    assert_eq!(rig.disk.len(), (0, 0), "nothing is left behind");
}

#[test]
fn a_message_of_the_next_connection_does_not_overtake_one_that_waits() {
    // Of the client only its will is kept, so its second session is in no store.
    let mut rig = Rig::kept(4, 0, quiet());
    let subscribers = ["s", "t", "u", "v", "w"];
    for name in subscribers {
        rig.run(&format!(
            "{name}> CONNECT {name} v5 expiry=1000; SUBSCRIBE id=1 t:2\n {name}< CONNACK 0; SUBACK 1 2"
        ));
    }
    rig.run("p> CONNECT p clean v5 will=w,x,q0\n p< CONNACK 0");
    rig.syncs = false;
    rig.run("p> PUBLISH t 1 q2 id=1\n p!\n p> CONNECT p clean v5\n p< CONNACK 0\n p> PUBLISH t 2 q2 id=1");
    rig.syncs = true;
    sync(&mut rig);
    let got = subscribers.map(|name| format!("{name}< PUBLISH t 1 q2 id=1; PUBLISH t 2 q2 id=2"));
    rig.run(&format!("p< PUBREC 1\n {}", got.join("\n ")));
}

#[test]
fn a_member_that_ends_with_the_restart_is_given_nothing() {
    for shards in [1, 3] {
        let mut rig = kept();
        rig.run(
            "a> CONNECT a v5 expiry=1000; SUBSCRIBE id=1 $share/g/t:2\n a< CONNACK 0; SUBACK 1 2
             b> CONNECT b v5 expiry=1000; SUBSCRIBE id=1 $share/g/t:2\n b< CONNACK 0; SUBACK 1 2\n b!\n a!
             a> CONNECT a v5 expiry=0\n a< CONNACK 0 present",
        );
        // Its session ends with its connection, and so it does in a moment.
        rig.crash(0, shards);
        rig.run(
            "a< CLOSED\n p> CONNECT p clean v5; PUBLISH t x q1 id=1; PUBLISH t y q1 id=2; PUBLISH t z q2 id=3
             p< CONNACK 0; PUBACK 1; PUBACK 2; PUBREC 3",
        );
        crash(&mut rig);
        rig.run(
            "b> CONNECT b v5 expiry=1000
             b< CONNACK 0 present; PUBLISH t x q1 id=1; PUBLISH t y q1 id=2; PUBLISH t z q2 id=3",
        );
    }
}
