//! ntex-mqtt: its codecs take packets by value.

use super::{ALL, BATCH, Case};
use divan::{Bencher, black_box};
use ntex_bytes::{BytePageSize, BytePages, BytesMut};
use ntex_codec::{Decoder, Encoder};
use ntex_mqtt::{v3, v5};

#[divan::bench(args = ALL)]
fn decode(bencher: Bencher<'_, '_>, case: Case) {
    let batch = case.batch();
    let bencher = bencher.with_inputs(|| BytesMut::from(&batch[..]));
    if case.version.is_v5() {
        let codec = v5::codec::Codec::new();
        bencher.bench_local_refs(|input| {
            for _ in 0..BATCH {
                black_box(codec.decode(input).as_ref().unwrap());
            }
        });
    } else {
        let codec = v3::codec::Codec::new();
        bencher.bench_local_refs(|input| {
            for _ in 0..BATCH {
                black_box(codec.decode(input).as_ref().unwrap());
            }
        });
    }
}

#[divan::bench(args = ALL)]
fn encode(bencher: Bencher<'_, '_>, case: Case) {
    let bytes = case.packet();
    let pages = || BytePages::new(BytePageSize::Size16);
    if case.version.is_v5() {
        let codec = v5::codec::Codec::new();
        let item = match codec.decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap() {
            v5::codec::Decoded::Packet(packet, _) => v5::codec::Encoded::Packet(packet),
            v5::codec::Decoded::Publish(packet, payload, _) => {
                v5::codec::Encoded::Publish(packet, Some(payload))
            }
            v5::codec::Decoded::PayloadChunk(..) => panic!("a whole packet"),
        };
        bencher.with_inputs(|| (vec![item.clone(); BATCH], pages())).bench_local_refs(|(items, out)| {
            for item in items.drain(..) {
                codec.encodev(item, out).unwrap();
            }
        });
    } else {
        let codec = v3::codec::Codec::new();
        let item = match codec.decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap() {
            v3::codec::Decoded::Packet(packet, _) => v3::codec::Encoded::Packet(packet),
            v3::codec::Decoded::Publish(packet, payload, _) => {
                v3::codec::Encoded::Publish(packet, Some(payload))
            }
            v3::codec::Decoded::PayloadChunk(..) => panic!("a whole packet"),
        };
        bencher.with_inputs(|| (vec![item.clone(); BATCH], pages())).bench_local_refs(|(items, out)| {
            for item in items.drain(..) {
                codec.encodev(item, out).unwrap();
            }
        });
    }
}
