//! The crates that read from and write to a `BytesMut`: mqttbytes, and what became of it in rumqttc.

macro_rules! peer {
    ($name:ident, $v4:ident: $read_v4:expr, $write_v4:expr, $v5:ident: $read_v5:expr, $write_v5:expr) => {
        pub mod $name {
            use super::super::{ALL, BATCH, Case};
            use bytes::BytesMut;
            use divan::{Bencher, black_box};

            #[divan::bench(args = ALL)]
            fn decode(bencher: Bencher<'_, '_>, case: Case) {
                let batch = case.batch();
                bencher.with_inputs(|| BytesMut::from(&batch[..])).bench_local_refs(|input| {
                    while !input.is_empty() {
                        if case.version.is_v5() {
                            black_box($read_v5(input).as_ref().unwrap());
                        } else {
                            black_box($read_v4(input).as_ref().unwrap());
                        }
                    }
                });
            }

            #[divan::bench(args = ALL)]
            fn encode(bencher: Bencher<'_, '_>, case: Case) {
                let bytes = case.packet();
                let room = || BytesMut::with_capacity(bytes.len() * BATCH);
                if case.version.is_v5() {
                    let packet = $read_v5(&mut BytesMut::from(&bytes[..])).unwrap();
                    bencher.with_inputs(room).bench_local_refs(|out| {
                        for _ in 0..BATCH {
                            $write_v5(black_box(&packet), out);
                        }
                    });
                } else {
                    let packet = $read_v4(&mut BytesMut::from(&bytes[..])).unwrap();
                    bencher.with_inputs(room).bench_local_refs(|out| {
                        for _ in 0..BATCH {
                            $write_v4(black_box(&packet), out);
                        }
                    });
                }
            }
        }
    };
}

/// mqttbytes has a `write` for each packet, and none for all.
macro_rules! write_mqttbytes {
    ($version:ident, $packet:expr, $out:expr) => {
        match $packet {
            mqttbytes::$version::Packet::Publish(packet) => packet.write($out),
            mqttbytes::$version::Packet::Connect(packet) => packet.write($out),
            mqttbytes::$version::Packet::Subscribe(packet) => packet.write($out),
            mqttbytes::$version::Packet::PubAck(packet) => packet.write($out),
            packet => panic!("{packet:?}"),
        }
        .unwrap()
    };
}

peer!(
    mqttbytes,
    v4: |input: &mut BytesMut| ::mqttbytes::v4::read(input, usize::MAX),
    |packet: &::mqttbytes::v4::Packet, out: &mut BytesMut| write_mqttbytes!(v4, packet, out),
    v5: |input: &mut BytesMut| ::mqttbytes::v5::read(input, usize::MAX),
    |packet: &::mqttbytes::v5::Packet, out: &mut BytesMut| write_mqttbytes!(v5, packet, out)
);

peer!(
    rumqttc,
    v4: |input: &mut BytesMut| ::rumqttc::mqttbytes::v4::Packet::read(input, usize::MAX),
    |packet: &::rumqttc::mqttbytes::v4::Packet, out: &mut BytesMut| packet.write(out, usize::MAX).unwrap(),
    v5: |input: &mut BytesMut| ::rumqttc::v5::mqttbytes::v5::Packet::read(input, None),
    |packet: &::rumqttc::v5::mqttbytes::v5::Packet, out: &mut BytesMut| packet.write(out, None).unwrap()
);
