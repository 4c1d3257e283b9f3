//! This crate.

use super::{ALL, BATCH, Case};
use divan::{Bencher, black_box};
use hikyaku_proto::codec::{Frame, Framer, Packet};

#[divan::bench(args = ALL)]
fn decode(bencher: Bencher<'_, '_>, case: Case) {
    let batch = case.batch();
    bencher.bench_local(|| {
        let mut framer = Framer::default();
        let mut rest = black_box(&batch[..]);
        while !rest.is_empty() {
            let step = framer.next(rest, u32::MAX).unwrap();
            let packet = Packet::decode(case.version, step.frame.unwrap());
            black_box(packet.as_ref().unwrap());
            rest = &rest[step.used..];
        }
    });
}

#[divan::bench(args = ALL)]
fn encode(bencher: Bencher<'_, '_>, case: Case) {
    let bytes = case.packet();
    let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
    let packet = Packet::decode(case.version, frame).unwrap();
    let room = || Vec::with_capacity(bytes.len() * BATCH);
    bencher.with_inputs(room).bench_local_refs(|out| {
        for _ in 0..BATCH {
            black_box(&packet).encode(case.version, out).unwrap();
        }
    });
}
