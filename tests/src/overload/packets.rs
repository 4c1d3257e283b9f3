//! Packets of MQTT 3.1.1, of any length.

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Clean,
    Kept,
}

pub(crate) fn connect(id: &str, session: Session, will: Option<&str>) -> Vec<u8> {
    let clean = u8::from(session == Session::Clean) << 1;
    let flags = clean | u8::from(will.is_some()) << 2;
    let mut body = [b"\0\x04MQTT\x04", &[flags, 0, 0][..], &string(id)].concat();
    if let Some(topic) = will {
        body.extend([string(topic), string("gone")].concat());
    }
    packet(0x10, &body)
}

pub(crate) fn subscribe(
    packet_id: u16,
    filters: impl IntoIterator<Item = impl AsRef<str>>,
    qos: u8,
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for filter in filters {
        body.extend(string(filter.as_ref()));
        body.push(qos);
    }
    packet(0x82, &body)
}

/// A message of QoS 0.
pub(crate) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic), payload].concat())
}

pub(crate) fn publish_retained(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x31, &[&string(topic), payload].concat())
}

/// A message of QoS 1.
pub(crate) fn publish_1(packet_id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[&string(topic), &packet_id.to_be_bytes()[..], payload].concat())
}

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    while rest > 127 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// How long the packet is that begins here, if its first bytes say so.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * at);
        if *byte < 128 {
            return Some(2 + at + length);
        }
    }
    None
}
