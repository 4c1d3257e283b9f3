//! Wills: when they are sent, when not, and when later.

mod common;

use common::{both, one, quiet};

const WATCHER: &str = "w> CONNECT w clean; SUBSCRIBE id=1 will:1\n w< CONNACK 0; SUBACK 1 1\n";

#[test]
fn sent_on_every_end_but_a_normal_disconnect() {
    for (end, goodbye) in [
        ("a!", ""),
        ("+16s", "a< {5:DISCONNECT 0x8d; }CLOSED"),
        ("a> RAW c1 00", "a< {5:DISCONNECT 0x81; }CLOSED"),
        ("b> CONNECT a clean {5}", "a< {5:DISCONNECT 0x8e; }CLOSED\n b< CONNACK 0"),
    ] {
        both(
            &quiet(),
            &format!(
                "{WATCHER}
                 a> CONNECT a clean {{5}} ka=10 will=will,bye,q1
                 a< CONNACK 0
                 {end}
                 {goodbye}
                 w< PUBLISH will bye q1 id=1"
            ),
        );
    }
    both(
        &quiet(),
        &format!(
            "{WATCHER}
             a> CONNECT a clean {{5}} will=will,bye; DISCONNECT
             a< CONNACK 0; CLOSED
             w<"
        ),
    );
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a clean v5 will=will,bye; DISCONNECT 0x04
         a< CONNACK 0; CLOSED
         w< PUBLISH will bye"
    ));
}

#[test]
fn delayed_and_cancelled_by_return() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=100 will=will,bye,delay10
         a< CONNACK 0
         a!
         +9s
         w<
         a> CONNECT a v5 expiry=100 will=will,bye,delay10
         a< CONNACK 0 present
         +20s
         w<
         a!
         +11s
         w< PUBLISH will bye
         +100s
         w<"
    ));
}

#[test]
fn a_session_that_ends_sends_its_will_at_once() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=5 will=will,one,delay10
         a< CONNACK 0
         a!
         +6s
         w< PUBLISH will one
         a> CONNECT a v5 will=will,two,delay10
         a< CONNACK 0
         a!
         w< PUBLISH will two
         a> CONNECT a v5 expiry=50 will=will,three,delay10
         a< CONNACK 0
         a!
         w<
         a> CONNECT a v5 clean expiry=50
         a< CONNACK 0
         w< PUBLISH will three
         +60s
         w<"
    ));
}

#[test]
fn a_takeover_sends_the_will_that_has_no_delay() {
    one().run(&format!(
        "{WATCHER}
         a> CONNECT a v5 expiry=50 will=will,one
         a< CONNACK 0
         b> CONNECT a v5 expiry=50 will=will,two,delay3
         b< CONNACK 0 present
         a< DISCONNECT 0x8e; CLOSED
         w< PUBLISH will one
         c> CONNECT a v5 expiry=50
         c< CONNACK 0 present
         b< DISCONNECT 0x8e; CLOSED
         +60s
         w<"
    ));
}

#[test]
fn retained_and_expiring() {
    one().run(
        "w> CONNECT w clean v5; SUBSCRIBE id=1 will:1:rap
         w< CONNACK 0; SUBACK 1 1
         a> CONNECT a v5 will=will,bye,q2,r,exp20
         a< CONNACK 0
         +100s
         a!
         w< PUBLISH will bye q1 id=1 r exp=20
         +5s
         x> CONNECT x clean v5; SUBSCRIBE id=1 will:1
         x< CONNACK 0; SUBACK 1 1; PUBLISH will bye q1 id=1 r exp=15",
    );
}

#[test]
fn with_topics_that_are_none() {
    one().run(
        "a> CONNECT a v5 will=a/+,x
         a< CONNACK 0x81; CLOSED",
    );
}
