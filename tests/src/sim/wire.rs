//! A second reading of MQTT, independent of the product's codec: just enough to see what both sides said.

/// A PUBLISH.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    pub id: u16,
    pub alias: Option<u16>,
    pub expiry: Option<u32>,
    pub ids: Vec<u32>,
    pub user: Option<String>,
    pub payload: Vec<u8>,
    /// The length of the whole packet.
    pub size: usize,
}

/// A will, in CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub delay_s: u32,
    pub expiry: Option<u32>,
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub v5: bool,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub expiry_s: u32,
    pub receive_maximum: u16,
    pub max_packet: u32,
    pub alias_maximum: u16,
    pub client_id: String,
    pub will: Option<Will>,
}

/// A CONNACK.
#[derive(Clone, Debug)]
pub(crate) struct ConnAck {
    pub present: bool,
    pub code: u8,
    pub receive_maximum: u16,
    pub max_packet: u32,
    pub alias_maximum: u16,
    pub keep_alive_s: Option<u16>,
    pub expiry_s: Option<u32>,
}

/// Any packet.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Connect(Connect),
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16),
    PubComp(u16),
    Subscribe { id: u16, subscription: u32, filters: Vec<(String, u8)> },
    SubAck(u16, Vec<u8>),
    Unsubscribe(u16, Vec<String>),
    UnsubAck(u16, Vec<u8>),
    PingReq,
    PingResp,
    Disconnect { code: u8, expiry_s: Option<u32> },
}

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    rest: Vec<u8>,
    pub v5: bool,
}

impl Splitter {
    pub fn new(v5: bool) -> Splitter {
        Splitter { rest: Vec::new(), v5 }
    }

    /// How many of these bytes complete a packet; all, if they do not.
    pub fn first_packet(&self, bytes: &[u8]) -> usize {
        let known = [&self.rest, bytes].concat();
        match packet_size(&known) {
            Ok(Some(size)) => bytes.len().min(size - self.rest.len()),
            _ => bytes.len(),
        }
    }

    /// All packets that are complete with these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Packet>, String> {
        self.rest.extend_from_slice(bytes);
        let mut all = Vec::new();
        let mut at = 0;
        while let Some(size) = packet_size(&self.rest[at..])? {
            if self.rest.len() - at < size {
                break;
            }
            let packet = decode(&self.rest[at..at + size], &mut self.v5)
                .ok_or_else(|| format!("not a packet: {:02x?}", &self.rest[at..at + size.min(200)]))?;
            all.push(packet);
            at += size;
        }
        self.rest.drain(..at);
        Ok(all)
    }
}

/// The size of the packet that begins here, if enough is there to tell.
fn packet_size(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut len = 0;
    for i in 0..4 {
        let Some(&byte) = bytes.get(1 + i) else { return Ok(None) };
        len |= usize::from(byte & 127) << (7 * i);
        if byte < 128 {
            return Ok(Some(2 + i + len));
        }
    }
    Err("a Remaining Length of more than four bytes".into())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (now, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(now)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn data(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.data()?).ok()?.to_owned())
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for i in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 127) << (7 * i);
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn properties(&mut self, v5: bool) -> Option<Properties> {
        let mut found = Properties::default();
        if !v5 {
            return Some(found);
        }
        let len = self.varint()? as usize;
        let mut inner = Reader(self.take(len)?);
        while !inner.0.is_empty() {
            let id = inner.u8()?;
            match id {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => found.numbers.push((id, inner.u8()?.into())),
                19 | 33 | 34 | 35 => found.numbers.push((id, inner.u16()?.into())),
                2 | 17 | 24 | 39 => found.numbers.push((id, inner.u32()?)),
                11 => found.numbers.push((id, inner.varint()?)),
                3 | 8 | 18 | 21 | 26 | 28 | 31 => drop(inner.text()?),
                9 | 22 => drop(inner.data()?),
                38 => {
                    inner.text()?;
                    found.user = Some(inner.text()?);
                }
                _ => return None,
            }
        }
        Some(found)
    }
}

#[derive(Default)]
struct Properties {
    numbers: Vec<(u8, u32)>,
    user: Option<String>,
}

impl Properties {
    fn number(&self, id: u8) -> Option<u32> {
        self.numbers.iter().find(|(known, _)| *known == id).map(|(_, number)| *number)
    }
}

fn decode(bytes: &[u8], v5: &mut bool) -> Option<Packet> {
    let size = bytes.len();
    let mut r = Reader(bytes);
    let first = r.u8()?;
    r.varint()?;
    let flags = first & 15;
    let wanted = match first >> 4 {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != wanted {
        return None;
    }
    let packet = match first >> 4 {
        1 => connect(&mut r, v5)?,
        2 => {
            let (present, code) = (r.u8()?, r.u8()?);
            let p = r.properties(*v5)?;
            Packet::ConnAck(ConnAck {
                present: present == 1,
                code,
                receive_maximum: p.number(33).map_or(u16::MAX, |n| n as u16),
                max_packet: p.number(39).unwrap_or(u32::MAX),
                alias_maximum: p.number(34).unwrap_or(0) as u16,
                keep_alive_s: p.number(19).map(|n| n as u16),
                expiry_s: p.number(17),
            })
        }
        3 => {
            let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
            if qos == 3 {
                return None;
            }
            let topic = r.text()?;
            let id = if qos > 0 { r.u16()? } else { 0 };
            let p = r.properties(*v5)?;
            let ids = p.numbers.iter().filter(|(id, _)| *id == 11).map(|(_, n)| *n).collect();
            let alias = p.number(35).map(|n| n as u16);
            let payload = r.take(r.0.len())?.to_vec();
            Packet::Publish(Publish {
                dup,
                qos,
                retain,
                topic,
                id,
                alias,
                expiry: p.number(2),
                ids,
                user: p.user,
                payload,
                size,
            })
        }
        kind @ 4..=7 => {
            let id = r.u16()?;
            let code = if *v5 && !r.0.is_empty() { r.u8()? } else { 0 };
            if *v5 && !r.0.is_empty() {
                r.properties(true)?;
            }
            match kind {
                4 => Packet::PubAck(id, code),
                5 => Packet::PubRec(id, code),
                6 => Packet::PubRel(id),
                _ => Packet::PubComp(id),
            }
        }
        8 => {
            let id = r.u16()?;
            let subscription = r.properties(*v5)?.number(11).unwrap_or(0);
            let mut filters = Vec::new();
            while !r.0.is_empty() {
                filters.push((r.text()?, r.u8()?));
            }
            Packet::Subscribe { id, subscription, filters }
        }
        9 => {
            let id = r.u16()?;
            r.properties(*v5)?;
            Packet::SubAck(id, r.take(r.0.len())?.to_vec())
        }
        10 => {
            let id = r.u16()?;
            r.properties(*v5)?;
            let mut filters = Vec::new();
            while !r.0.is_empty() {
                filters.push(r.text()?);
            }
            Packet::Unsubscribe(id, filters)
        }
        11 => {
            let id = r.u16()?;
            r.properties(*v5)?;
            Packet::UnsubAck(id, r.take(r.0.len())?.to_vec())
        }
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => {
            let code = if r.0.is_empty() { 0 } else { r.u8()? };
            let expiry_s = if r.0.is_empty() { None } else { r.properties(*v5)?.number(17) };
            Packet::Disconnect { code, expiry_s }
        }
        _ => return None,
    };
    r.0.is_empty().then_some(packet)
}

fn connect(r: &mut Reader<'_>, v5: &mut bool) -> Option<Packet> {
    if r.text()? != "MQTT" {
        return None;
    }
    *v5 = r.u8()? == 5;
    let flags = r.u8()?;
    let keep_alive_s = r.u16()?;
    let p = r.properties(*v5)?;
    let client_id = r.text()?;
    let clean = flags & 2 != 0;
    let mut will = None;
    if flags & 4 != 0 {
        let w = r.properties(*v5)?;
        let (topic, payload) = (r.text()?, r.data()?.to_vec());
        let (qos, retain) = (flags >> 3 & 3, flags & 32 != 0);
        let (delay_s, expiry) = (w.number(24).unwrap_or(0), w.number(2));
        will = Some(Will { topic, payload, qos, retain, delay_s, expiry });
    }
    let expiry_s = match (*v5, clean) {
        (true, _) => p.number(17).unwrap_or(0),
        (false, true) => 0,
        (false, false) => u32::MAX,
    };
    Some(Packet::Connect(Connect {
        v5: *v5,
        clean,
        keep_alive_s,
        expiry_s,
        receive_maximum: p.number(33).map_or(u16::MAX, |n| n as u16),
        max_packet: p.number(39).unwrap_or(u32::MAX),
        alias_maximum: p.number(34).unwrap_or(0) as u16,
        client_id,
        will,
    }))
}
