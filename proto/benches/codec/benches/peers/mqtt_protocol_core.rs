//! mqtt-protocol-core: its builder copies a packet out of the stream, its packets give a new buffer.

use super::{ALL, BATCH, Case, Kind};
use divan::{Bencher, black_box};
use hikyaku_proto::codec::Version;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, v3_1_1, v5_0};

fn parse(case: Case, raw: RawPacket) -> Packet {
    let flags = raw.flags();
    match (case.kind, raw.data) {
        (Kind::Publish | Kind::PublishProperties, PacketData::Publish(data)) => match case.version {
            Version::V5 => v5_0::Publish::parse(flags, data).unwrap().0.into(),
            _ => v3_1_1::Publish::parse(flags, data).unwrap().0.into(),
        },
        (Kind::Connect, PacketData::Normal(data)) => match case.version {
            Version::V5 => v5_0::Connect::parse(&data).unwrap().0.into(),
            _ => v3_1_1::Connect::parse(&data).unwrap().0.into(),
        },
        (Kind::Subscribe, PacketData::Normal(data)) => match case.version {
            Version::V5 => v5_0::Subscribe::parse(&data).unwrap().0.into(),
            _ => v3_1_1::Subscribe::parse(&data).unwrap().0.into(),
        },
        (Kind::PubAck, PacketData::Normal(data)) => match case.version {
            Version::V5 => v5_0::Puback::parse(&data).unwrap().0.into(),
            _ => v3_1_1::Puback::parse(&data).unwrap().0.into(),
        },
        _ => panic!("another packet"),
    }
}

fn next(builder: &mut PacketBuilder, input: &mut Cursor<&[u8]>) -> RawPacket {
    match builder.feed(input) {
        PacketBuildResult::Complete(raw) => raw,
        _ => panic!("a whole packet"),
    }
}

#[divan::bench(args = ALL)]
fn decode(bencher: Bencher<'_, '_>, case: Case) {
    let batch = case.batch();
    bencher.bench_local(|| {
        let mut builder = PacketBuilder::new();
        let mut input = Cursor::new(black_box(&batch[..]));
        for _ in 0..BATCH {
            black_box(&parse(case, next(&mut builder, &mut input)));
        }
    });
}

#[divan::bench(args = ALL)]
fn encode(bencher: Bencher<'_, '_>, case: Case) {
    let bytes = case.packet();
    let packet = parse(case, next(&mut PacketBuilder::new(), &mut Cursor::new(&bytes[..])));
    bencher.bench_local(|| {
        for _ in 0..BATCH {
            black_box(black_box(&packet).to_continuous_buffer());
        }
    });
}
