//! PUBLISH of QoS 0 written out by hand: one function that reads and checks lengths and UTF-8, and no more; one that
//! writes. Nothing that is a codec can be expected to be faster.

use super::{BATCH, Case, PAYLOAD, PUBLISHES, TOPIC};
use divan::{Bencher, black_box};
use hikyaku_proto::codec::Version;

struct Message<'a> {
    topic: &'a str,
    payload: &'a [u8],
}

/// The first message, and what is behind it.
fn read(version: Version, input: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (&first, rest) = input.split_first()?;
    if first >> 4 != 3 || first & 0x06 != 0 {
        return None;
    }
    let (&low, rest) = rest.split_first()?;
    let (len, rest) = if low < 0x80 {
        (usize::from(low), rest)
    } else {
        let (&high, rest) = rest.split_first()?;
        (usize::from(low & 0x7f) | usize::from(high) << 7, rest)
    };
    let (body, behind) = rest.split_at_checked(len)?;
    let (len, body) = body.split_first_chunk::<2>()?;
    let (topic, mut payload) = body.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    if version.is_v5() {
        let (&properties, rest) = payload.split_first()?;
        if properties != 0 {
            return None;
        }
        payload = rest;
    }
    Some((Message { topic: std::str::from_utf8(topic).ok()?, payload }, behind))
}

fn write(version: Version, message: &Message<'_>, out: &mut Vec<u8>) {
    let mut len = 2 + message.topic.len() + message.payload.len();
    len += usize::from(version.is_v5());
    out.reserve(3 + len);
    out.push(0x30);
    if len < 0x80 {
        out.push(len as u8);
    } else {
        out.extend_from_slice(&[len as u8 | 0x80, (len >> 7) as u8]);
    }
    out.extend_from_slice(&(message.topic.len() as u16).to_be_bytes());
    out.extend_from_slice(message.topic.as_bytes());
    if version.is_v5() {
        out.push(0);
    }
    out.extend_from_slice(message.payload);
}

#[divan::bench(args = PUBLISHES)]
fn decode(bencher: Bencher<'_, '_>, case: Case) {
    let batch = case.batch();
    bencher.bench_local(|| {
        let mut rest = black_box(&batch[..]);
        while !rest.is_empty() {
            let read = read(case.version, rest);
            let (message, behind) = read.as_ref().unwrap();
            black_box(message);
            rest = behind;
        }
    });
}

#[divan::bench(args = PUBLISHES)]
fn encode(bencher: Bencher<'_, '_>, case: Case) {
    let message = Message { topic: TOPIC, payload: PAYLOAD };
    let room = || Vec::with_capacity(case.batch().len());
    bencher.with_inputs(room).bench_local_refs(|out| {
        for _ in 0..BATCH {
            write(case.version, black_box(&message), out);
        }
    });
}
