//! mqttrs: borrowed packets of 3.1.1. It does not say how long a packet was.

use super::{ALL_3_1_1, BATCH, Case};
use divan::{Bencher, black_box};
use mqttrs::{decode_slice, encode_slice};

#[divan::bench(args = ALL_3_1_1)]
fn decode(bencher: Bencher<'_, '_>, case: Case) {
    let batch = case.batch();
    let len = case.packet().len();
    bencher.bench_local(|| {
        for packet in black_box(&batch[..]).chunks_exact(len) {
            black_box(decode_slice(packet).as_ref().unwrap());
        }
    });
}

#[divan::bench(args = ALL_3_1_1)]
fn encode(bencher: Bencher<'_, '_>, case: Case) {
    let bytes = case.packet();
    let packet = decode_slice(&bytes).unwrap().unwrap();
    bencher.with_inputs(|| vec![0; bytes.len() * BATCH]).bench_local_refs(|out| {
        let mut at = 0;
        for _ in 0..BATCH {
            at += encode_slice(black_box(&packet), &mut out[at..]).unwrap();
        }
    });
}
