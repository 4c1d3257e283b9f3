//! CONNECT, keep alive, sessions and their takeover.

mod common;

use common::{both, one, quiet};

#[test]
fn connack_bytes() {
    let mut rig = one();
    rig.send("a", "CONNECT a clean v5");
    rig.settle();
    let expected = b"\x20\x0e\0\0\x0b\x22\0\x0a\x27\0\x1e\x84\x80\x21\0\x14";
    assert_eq!(rig.pipe("a").down, expected);
}

#[test]
fn ping() {
    both(&quiet(), "a> CONNECT a clean {5}\n a< CONNACK 0\n a> PINGREQ; PINGREQ\n a< PINGRESP; PINGRESP");
}
