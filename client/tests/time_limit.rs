//! `-W` of the programs against servers that do not get on.

#![cfg(feature = "tools")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SECONDS_10: Duration = Duration::from_secs(10);
const CONNACK: &[u8] = b"\x20\x02\0\0";
const SUBACK: &[u8] = b"\x90\x03\0\x01\0";
const MESSAGE: &[u8] = b"\x30\x04\0\x01tx";

/// What a server sends until its client leaves.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Silence,
    Flood,
}

/// Plays a server for one connection: says these words, each after a packet of the client.
fn serve(words: Vec<&'static [u8]>, rest: Rest) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SECONDS_10 * 2)).unwrap();
        stream.set_write_timeout(Some(SECONDS_10 * 2)).unwrap();
        for words in words {
            packet(&mut stream);
            stream.write_all(words).unwrap();
        }
        match rest {
            Rest::Silence => while stream.read(&mut [0; 100]).is_ok_and(|n| n > 0) {},
            Rest::Flood => while stream.write_all(&MESSAGE.repeat(10_000)).is_ok() {},
        }
    });
    (port, thread)
}

/// Skips a short packet.
fn packet(stream: &mut TcpStream) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    assert!(header[1] < 0x80);
    stream.read_exact(&mut vec![0; usize::from(header[1])]).unwrap();
}

/// Runs a program with `-W 1`, which has to count.
fn limited(program: &str, args: &[&str], words: &[&'static [u8]], rest: Rest) {
    let (port, server) = serve(words.to_vec(), rest);
    let mut command = Command::new(program);
    command.env_clear().env("XDG_CONFIG_HOME", "/nonexistent").args(["-h", "127.0.0.1", "-p", &port]);
    command.args(["-W", "1", "-t", "t"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let output = command.output().unwrap();
    let took = begun.elapsed();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let what = format!("{args:?} {words:?} {rest:?}");
    assert_eq!((output.status.code(), &*told), (Some(27), "Timed out\n"), "{what}");
    assert!((Duration::from_secs(1)..SECONDS_10).contains(&took), "{took:?}: {what}");
    server.join().unwrap();
}

const SUB: &str = env!("CARGO_BIN_EXE_hikyaku-sub");
const RR: &str = env!("CARGO_BIN_EXE_hikyaku-rr");

#[test]
fn silence_ends_with_the_time_limit() {
    for words in [&[][..], &[CONNACK]] {
        limited(SUB, &[], words, Rest::Silence);
    }
    limited(SUB, &["-E"], &[CONNACK], Rest::Silence);
    limited(SUB, &["-U", "u"], &[CONNACK, SUBACK], Rest::Silence);
    limited(SUB, &[], &[CONNACK, SUBACK], Rest::Silence);
    limited(RR, &["-e", "r", "-m", "x", "-V", "311"], &[CONNACK], Rest::Silence);
}

#[test]
fn a_flood_ends_with_the_time_limit() {
    limited(SUB, &["-E"], &[CONNACK], Rest::Flood);
    limited(SUB, &[], &[CONNACK], Rest::Flood);
    limited(SUB, &[], &[CONNACK, SUBACK], Rest::Flood);
    limited(SUB, &["--message-rate"], &[CONNACK, SUBACK], Rest::Flood);
    limited(SUB, &["-t", "u", "-U", "t"], &[CONNACK, b"\x90\x04\0\x01\0\0"], Rest::Flood);
}
