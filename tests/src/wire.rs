//! A client that speaks the bytes it is given, and builders for the packets that many tests need.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::PATIENCE;
use crate::matrix::V5;

/// One raw connection to the broker.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

/// A packet as it came: the first byte and all after the Remaining Length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Packet type and flags.
    pub first: u8,
    /// The variable header and the payload.
    pub body: Vec<u8>,
}

impl Wire {
    /// Opens a connection to 127.0.0.1 without sending anything.
    pub fn open(port: u16) -> Self {
        Self::open_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Opens a connection to an address without sending anything.
    pub fn open_at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Opens a connection, sends [`connect`] and takes the CONNACK, which must accept.
    pub fn connected(port: u16, version: u8, client_id: &str) -> Self {
        let mut wire = Self::open(port);
        wire.send(connect(version, client_id, 0));
        wire.expect_accepted();
        wire
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the broker reads");
    }

    /// Sends bytes to a broker that may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Reads exactly these bytes.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut got = vec![0; expected.len()];
        let mut count = 0;
        while count < got.len() && got[..count] == expected[..count] {
            match self.stream.read(&mut got[count..]) {
                Ok(0) => panic!("closed after {:02x?} of {expected:02x?}", &got[..count]),
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error} after {:02x?} of {expected:02x?}", &got[..count]),
            }
        }
        assert_eq!(got, expected, "got {got:02x?}, expected {expected:02x?}");
    }

    /// Reads a CONNACK that accepts, whatever its properties.
    #[track_caller]
    pub fn expect_accepted(&mut self) {
        let packet = self.packet().expect("a CONNACK, not the end");
        assert_eq!((packet.first, packet.body.get(1)), (0x20, Some(&0)), "{packet:02x?}");
    }

    /// Reads packets until the end of the connection and returns them.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.packet()).collect()
    }

    /// Reads one packet; `None` when the broker has closed.
    #[track_caller]
    pub fn packet(&mut self) -> Option<Packet> {
        let first = self.byte()?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the rest of a packet");
        Some(Packet { first, body })
    }

    /// Reads one packet if one begins within this time. An end counts as no packet.
    pub fn packet_within(&mut self, time: Duration) -> Option<Packet> {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let arrived = matches!(self.stream.peek(&mut [0]), Ok(1));
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if arrived { self.packet() } else { None }
    }

    #[track_caller]
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            // A close with unread input is a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.byte(),
            Err(error) => panic!("{error} while waiting for a packet or the end"),
        }
    }
}

/// Bytes from hexadecimal digits; white space is ignored.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("hex") as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// CONNECT with a clean session (start) and no properties.
pub fn connect(version: u8, client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend([version, 0x02]);
    body.extend(keep_alive_s.to_be_bytes());
    no_properties(version, &mut body);
    body.extend(string(client_id));
    packet(0x10, &body)
}

/// SUBSCRIBE to one filter.
pub fn subscribe(version: u8, packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    no_properties(version, &mut body);
    body.extend(string(filter));
    body.push(qos);
    packet(0x82, &body)
}

/// PUBLISH of QoS 1 without properties.
pub fn publish_1(version: u8, packet_id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    body.extend(packet_id.to_be_bytes());
    no_properties(version, &mut body);
    body.extend(payload);
    packet(0x32, &body)
}

/// PUBACK with reason 0.
pub fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

/// A packet of at most 127 bytes from its first byte and what follows the Remaining Length.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 0x80);
    let mut bytes = vec![first, length.expect("a small packet")];
    bytes.extend(body);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes
}

fn no_properties(version: u8, body: &mut Vec<u8>) {
    if version == V5 {
        body.push(0);
    }
}
