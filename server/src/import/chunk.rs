//! mosquitto's database file, read: its chunks in their order, as they stand there.
//!
//! A head of 23 bytes (15 that name the format, a checksum that is always 0, the version) is followed by chunks up to the end of
//! the file. There is no count of them and no sum over them, so a file that was cut between two is not known from a whole one.
//!
//! | version | mosquitto | head of a chunk | its fields |
//! |---|---|---|---|
//! | 2, 3, 4 | up to 1.5 | kind (2 bytes), length (4) | one after the other, texts with their length before them |
//! | 5, 6 | 1.6 and later | kind (4), length (4) | a C structure of 64-bit machines, then the texts, then properties as MQTT 5.0 has them |
//!
//! Numbers of up to 4 bytes are big-endian. Those of 8 are as the machine had them that wrote the file: ids of messages,
//! for which that is no matter, and times.
//!
//! Texts are bytes here: old versions have not looked whether they are UTF-8.

use std::fmt;

/// What is wrong with a file, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub at: usize,
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.what)
    }
}

/// What the file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether mosquitto wrote it at its end.
    pub at_end: bool,
}

/// A message, whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredMessage<'a> {
    pub id: u64,
    /// The client id of its publisher; empty if no client published it.
    pub source: &'a [u8],
    /// Empty if there is none, or the version has none.
    pub username: &'a [u8],
    /// Of the listener that the publisher came by.
    pub listener_port: u16,
    pub topic: &'a [u8],
    pub payload: &'a [u8],
    /// With their length before them; empty if there are none.
    pub properties: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    /// Seconds since 1970, 0 for never.
    pub expires_at: i64,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client<'a> {
    pub client_id: &'a [u8],
    /// Empty if there is none, or the version has none.
    pub username: &'a [u8],
    pub listener_port: u16,
    /// Session Expiry Interval in seconds, `u32::MAX` for never; `None` in versions before there was one.
    pub expiry_s: Option<u32>,
    /// When it ends, in seconds since 1970; 0 if nobody has said.
    pub expires_at: i64,
    /// When its client went, in seconds since 1970; 0 if nobody has said.
    pub gone_at: i64,
}

/// A message of a session: on its way to the client or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientMessage<'a> {
    pub client_id: &'a [u8],
    pub message: u64,
    pub packet_id: u16,
    pub qos: u8,
    pub retain: bool,
    pub outgoing: bool,
    pub state: u8,
    /// With their length before them: at most a subscription identifier is of interest.
    pub properties: &'a [u8],
}

/// The states of a message, of those that there are.
pub(super) mod state {
    /// Up to this one, and if it is [`QUEUED`], a message has no packet id that anybody knows.
    pub const PUBLISH_QOS_0: u8 = 1;
    /// PUBREC has come and PUBCOMP has not, as with [`WAIT_FOR_PUBCOMP`].
    pub const RESEND_PUBREL: u8 = 6;
    /// PUBREL has come.
    pub const RESEND_PUBCOMP: u8 = 8;
    pub const WAIT_FOR_PUBCOMP: u8 = 9;
    pub const QUEUED: u8 = 11;
    pub const MAX: u8 = QUEUED;
}

/// A subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription<'a> {
    pub client_id: &'a [u8],
    pub filter: &'a [u8],
    pub qos: u8,
    /// The other bits of the subscription options.
    pub options: u8,
    /// The subscription identifier, 0 for none.
    pub id: u32,
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk<'a> {
    Head(Head),
    Message(StoredMessage<'a>),
    ClientMessage(ClientMessage<'a>),
    /// The retained message of its topic.
    Retained(u64),
    Subscription(Subscription<'a>),
    Client(Client<'a>),
}

/// The chunks of a file, each with the place where it begins. Ends after the first error.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
    version: u32,
    first: bool,
}

const MAGIC: [u8; 15] = *b"\0\xb5\0mosquitto db";
/// What a chunk of versions 5 and 6 is filled up to.
const CLIENT_5: usize = 16;
const CLIENT_6: usize = 24;
/// Where 8 bytes need not stand at a multiple of 8.
const CLIENT_6_SHORT: usize = 20;
const CLIENT_MESSAGE: usize = 16;
const MESSAGE: usize = 32;
const SUBSCRIPTION: usize = 12;
const PAYLOAD_MAX: usize = 268_435_455;

type Result<T> = std::result::Result<T, Damage>;

impl<'a> Chunks<'a> {
    /// Looks at the head of a file.
    pub fn new(bytes: &'a [u8]) -> Result<Chunks<'a>> {
        let mut fields = Fields { bytes, at: 0, end: bytes.len() };
        if bytes.is_empty() {
            return Err(fields.damage("the file is empty"));
        }
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
            return Err(fields.damage("this is not a database of mosquitto"));
        }
        fields.take(MAGIC.len() + 4)?;
        let at = fields.at;
        let version = fields.u32()?;
        if !(2..=6).contains(&version) {
            return Err(Damage { at, what: "the version of the format is not one of 2 to 6" });
        }
        Ok(Chunks { bytes, at: fields.at, version, first: true })
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    fn read(&mut self) -> Result<Chunk<'a>> {
        let start = self.at;
        let mut head = Fields { bytes: self.bytes, at: start, end: self.bytes.len() };
        let kind = if self.version < 5 { head.u16()?.into() } else { head.u32()? };
        let length = head.u32()? as usize;
        let end = head.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let (at, what) = (start, "the file ends within this chunk");
        let end = end.ok_or(Damage { at, what })?;
        if (kind == 1) != self.first {
            let what = if self.first { "the first chunk is another" } else { "there is another first chunk" };
            return Err(Damage { at, what });
        }
        self.first = false;
        let mut fields = Fields { bytes: self.bytes, at: head.at, end };
        let old = self.version < 5;
        let chunk = match kind {
            1 => Chunk::Head(fields.head(old)?),
            2 if old => {
                // Of 1.5.6 and 1.5.7 the length has the client id in it twice: the end is where the fields say.
                fields.end = self.bytes.len();
                let message = fields.old_message(self.version)?;
                if fields.at != end && fields.at.checked_add(message.source.len()) != Some(end) {
                    return Err(Damage { at, what: "the length of this chunk is not that of what is in it" });
                }
                fields.end = fields.at;
                Chunk::Message(message)
            }
            2 => Chunk::Message(fields.message()?),
            3 if old => Chunk::ClientMessage(fields.old_client_message()?),
            3 => Chunk::ClientMessage(fields.client_message()?),
            4 => Chunk::Retained(fields.u64()?),
            5 if old => Chunk::Subscription(fields.old_subscription()?),
            5 => Chunk::Subscription(fields.subscription()?),
            6 if old => Chunk::Client(fields.old_client(self.version)?),
            6 => Chunk::Client(fields.client(self.version)?),
            _ => return Err(Damage { at, what: "there is no such kind of chunk" }),
        };
        if fields.at != fields.end {
            return Err(Damage { at, what: "this chunk is longer than what is in it" });
        }
        self.at = fields.end;
        Ok(chunk)
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<(usize, Chunk<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        if start >= self.bytes.len() {
            let what = "the file ends before its first chunk";
            return std::mem::take(&mut self.first).then_some(Err(Damage { at: start, what }));
        }
        let chunk = self.read();
        if chunk.is_err() {
            (self.at, self.first) = (self.bytes.len(), false);
        }
        Some(chunk.map(|chunk| (start, chunk)))
    }
}

/// The fields of one chunk.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    fn damage(&self, what: &'static str) -> Damage {
        Damage { at: self.at, what }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.end);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(self.damage("something is cut off here"))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let cut = self.damage("something is cut off here");
        self.take(N)?.try_into().map_err(|_| cut)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// As it stands: what matters is only which are equal.
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Seconds since 1970, from a machine of either kind: taken the wrong way round they are not of this aeon.
    fn time(&mut self) -> Result<i64> {
        const LATEST: i64 = 1 << 40;
        let bytes = self.array()?;
        let both = [i64::from_le_bytes(bytes), i64::from_be_bytes(bytes)];
        let time = both.into_iter().find(|time| (0..LATEST).contains(time));
        time.ok_or(Damage { at: self.at - 8, what: "this is not a time" })
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    fn qos(&mut self) -> Result<u8> {
        let what = "there is no such QoS";
        let at = self.at;
        Some(self.u8()?).filter(|qos| *qos <= 2).ok_or(Damage { at, what })
    }

    fn state(&mut self) -> Result<u8> {
        let at = self.at;
        let state = Some(self.u8()?).filter(|state| *state <= state::MAX);
        state.ok_or(Damage { at, what: "there is no such state of a message" })
    }

    fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damage { at: self.at - 1, what: "this is neither yes nor no" }),
        }
    }

    fn rest(&mut self) -> Result<&'a [u8]> {
        self.take(self.end - self.at)
    }

    fn head(&mut self, old: bool) -> Result<Head> {
        if !old {
            // The highest id.
            self.u64()?;
        }
        let at_end = self.flag()?;
        if self.u8()? != 8 {
            return Err(Damage { at: self.at - 1, what: "the ids of messages do not have 8 bytes" });
        }
        if old {
            self.u64()?;
        } else {
            self.rest()?;
        }
        Ok(Head { at_end })
    }

    fn old_message(&mut self, version: u32) -> Result<StoredMessage<'a>> {
        let id = self.u64()?;
        let source = self.text()?;
        let (username, listener_port) =
            if version >= 4 { (self.text()?, self.u16()?) } else { Default::default() };
        self.take(4)?;
        let topic = self.text()?;
        let (qos, retain) = (self.qos()?, self.flag()?);
        let payload = self.payload()?;
        Ok(StoredMessage {
            id,
            source,
            username,
            listener_port,
            topic,
            payload,
            properties: &[],
            qos,
            retain,
            expires_at: 0,
        })
    }

    fn payload(&mut self) -> Result<&'a [u8]> {
        let at = self.at;
        let len = self.u32()? as usize;
        if len > PAYLOAD_MAX {
            return Err(Damage { at, what: "no payload is so long" });
        }
        self.take(len)
    }

    fn message(&mut self) -> Result<StoredMessage<'a>> {
        let mut fixed = Fields { bytes: self.bytes, at: self.at, end: self.end };
        self.take(MESSAGE)?;
        let (id, expires_at) = (fixed.u64()?, fixed.time()?);
        let (payload_len, listener_port) = (fixed.u32()? as usize, fixed.u16()?);
        let (source, username, topic) = (fixed.u16()?, fixed.u16()?, fixed.u16()?);
        fixed.u16()?;
        let (qos, retain) = (fixed.qos()?, fixed.flag()?);
        if payload_len > PAYLOAD_MAX {
            return Err(Damage { at: fixed.at, what: "no payload is so long" });
        }
        let source = self.take(source.into())?;
        let username = self.take(username.into())?;
        let topic = self.take(topic.into())?;
        let payload = self.take(payload_len)?;
        let properties = self.rest()?;
        Ok(StoredMessage {
            id,
            source,
            username,
            listener_port,
            topic,
            payload,
            properties,
            qos,
            retain,
            expires_at,
        })
    }

    fn old_client_message(&mut self) -> Result<ClientMessage<'a>> {
        let client_id = self.text()?;
        let (message, packet_id) = (self.u64()?, self.u16()?);
        let (qos, retain, outgoing) = (self.qos()?, self.flag()?, self.flag()?);
        let state = self.state()?;
        self.flag()?;
        Ok(ClientMessage { client_id, message, packet_id, qos, retain, outgoing, state, properties: &[] })
    }

    fn client_message(&mut self) -> Result<ClientMessage<'a>> {
        let mut fixed = Fields { bytes: self.bytes, at: self.at, end: self.end };
        self.take(CLIENT_MESSAGE)?;
        let (message, packet_id, len) = (fixed.u64()?, fixed.u16()?, fixed.u16()?);
        let (qos, state) = (fixed.qos()?, fixed.state()?);
        let retain = fixed.u8()? & 0xf0 != 0;
        let outgoing = fixed.flag()?;
        let client_id = self.take(len.into())?;
        let properties = self.rest()?;
        Ok(ClientMessage { client_id, message, packet_id, qos, retain, outgoing, state, properties })
    }

    fn old_subscription(&mut self) -> Result<Subscription<'a>> {
        let (client_id, filter) = (self.text()?, self.text()?);
        Ok(Subscription { client_id, filter, qos: self.qos()?, options: 0, id: 0 })
    }

    fn subscription(&mut self) -> Result<Subscription<'a>> {
        let mut fixed = Fields { bytes: self.bytes, at: self.at, end: self.end };
        self.take(SUBSCRIPTION)?;
        let id = fixed.u32()?;
        let (client_id, filter) = (fixed.u16()?, fixed.u16()?);
        let (qos, options) = (fixed.qos()?, fixed.u8()?);
        let client_id = self.take(client_id.into())?;
        Ok(Subscription { client_id, filter: self.take(filter.into())?, qos, options, id })
    }

    fn old_client(&mut self, version: u32) -> Result<Client<'a>> {
        let client_id = self.text()?;
        // The last packet id.
        self.u16()?;
        let gone_at = match (version, self.end - self.at) {
            (2, _) => 0,
            (_, 4) => i64::from(u32::from_le_bytes(self.array()?)),
            _ => self.time()?,
        };
        let nobody =
            Client { client_id, username: &[], listener_port: 0, expiry_s: None, expires_at: 0, gone_at };
        Ok(nobody)
    }

    fn client(&mut self, version: u32) -> Result<Client<'a>> {
        let mut fixed = Fields { bytes: self.bytes, at: self.at, end: self.end };
        let (expires_at, expiry_s) = (fixed.time()?, fixed.u32()?);
        let (_, id_len) = (fixed.u16()?, usize::from(fixed.u16()?));
        let (listener_port, username_len) =
            if version < 6 { (0, 0) } else { (fixed.u16()?, usize::from(fixed.u16()?)) };
        let length = self.end - self.at;
        let texts = id_len + username_len;
        self.take(match version {
            5 => CLIENT_5,
            _ if length == CLIENT_6_SHORT + texts => CLIENT_6_SHORT,
            _ => CLIENT_6,
        })?;
        let client_id = self.take(id_len)?;
        let username = self.take(username_len)?;
        Ok(Client { client_id, username, listener_port, expiry_s: Some(expiry_s), expires_at, gone_at: 0 })
    }
}
