//! An application message as it is kept: encoded once, shared by everyone who waits for it.

use crate::codec::{PacketType, Properties, PropertyContext, QoS};
use crate::time::Instant;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Which message this is: the shard it entered by, and a count there, which goes on after a restart of a broker
/// that keeps things.
///
/// Of two messages with one origin the later has the larger count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The shard by which the message entered.
    pub origin: u16,
    /// Which message of that shard.
    pub count: u64,
}

/// A message on its way, borrowed from wherever it is: what routing works on.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The topic name: a checked one.
    pub topic: &'a str,
    /// The quality of service it was published with.
    pub qos: QoS,
    /// Whether it was published to be retained.
    pub retain: bool,
    /// The encoded properties that travel with the message, without their length: all but Topic Alias,
    /// Subscription Identifier and Message Expiry Interval.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// When it is no longer worth delivering; [`Instant::NEVER`] without Message Expiry Interval.
    pub expires_at: Instant,
    /// Which message it is.
    pub id: MessageId,
}

/// The client that published a message, as far as its rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher<'a> {
    /// The listener it came by.
    pub listener: u16,
    /// Its client id.
    pub client_id: &'a str,
    /// Its user name, if it has one.
    pub username: Option<&'a str>,
}

impl Publication<'_> {
    /// Makes a copy that can be kept: one allocation. `scratch` is only a place to build it in.
    pub fn to_message(&self, scratch: &mut Vec<u8>) -> Message {
        self.to_message_of(None, scratch)
    }

    /// [`Publication::to_message`], with its publisher if there is one to be remembered.
    pub fn to_message_of(&self, publisher: Option<Publisher<'_>>, scratch: &mut Vec<u8>) -> Message {
        self.encode(publisher, scratch);
        Message::from_block(scratch)
    }

    /// Builds the block of a message.
    pub(crate) fn encode(&self, publisher: Option<Publisher<'_>>, scratch: &mut Vec<u8>) {
        scratch.clear();
        scratch.reserve(HEAD + self.topic.len() + self.properties.len() + self.payload.len());
        scratch.extend_from_slice(&self.expires_at.micros().to_le_bytes());
        scratch.extend_from_slice(&self.id.count.to_le_bytes());
        scratch.extend_from_slice(&self.id.origin.to_le_bytes());
        scratch.extend_from_slice(&(self.topic.len() as u16).to_le_bytes());
        scratch.extend_from_slice(&(self.properties.len() as u32).to_le_bytes());
        let mut flags = if self.retain { RETAIN } else { 0 };
        if publisher.is_some() {
            flags |= PUBLISHER;
        }
        scratch.push(self.qos as u8 | flags);
        scratch.extend_from_slice(self.topic.as_bytes());
        scratch.extend_from_slice(self.properties);
        if let Some(Publisher { listener, client_id, username }) = publisher {
            let name = username.unwrap_or_default();
            scratch.extend_from_slice(&listener.to_le_bytes());
            scratch.extend_from_slice(&(client_id.len() as u16).to_le_bytes());
            scratch.extend_from_slice(&(name.len() as u16).to_le_bytes());
            scratch.push(u8::from(username.is_some()));
            scratch.extend_from_slice(client_id.as_bytes());
            scratch.extend_from_slice(name.as_bytes());
        }
        scratch.extend_from_slice(self.payload);
    }
}

const HEAD: usize = 25;
/// Flags of its last byte, beside the QoS.
const RETAIN: u8 = 4;
/// Between properties and payload stands who published it.
const PUBLISHER: u8 = 8;
/// What precedes the names of a publisher.
const PUBLISHER_HEAD: usize = 7;

/// A message that is kept. Cloning it counts a reference.
///
/// Everything is in one block, head first, so that a message costs one allocation and each place that
/// waits for it two words.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<[u8]>);

impl Message {
    /// A message of its own for `topic`, outside any connection.
    pub fn new(topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Message {
        Publication {
            topic,
            qos,
            retain,
            properties: &[],
            payload,
            expires_at: Instant::NEVER,
            id: MessageId::default(),
        }
        .to_message(&mut Vec::new())
    }

    pub(crate) fn from_block(block: &[u8]) -> Message {
        Message(Arc::from(block))
    }

    /// Whether nobody else has it.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Makes another message of it, of the same size. False if somebody else has it.
    pub(crate) fn replace(&mut self, block: &[u8]) -> bool {
        let own = Arc::get_mut(&mut self.0).filter(|own| own.len() == block.len());
        own.map(|own| own.copy_from_slice(block)).is_some()
    }

    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    /// When the message is no longer worth delivering.
    pub fn expires_at(&self) -> Instant {
        Instant::from_micros(u64::from_le_bytes(self.number(0)))
    }

    /// Which message it is.
    pub fn id(&self) -> MessageId {
        MessageId { count: u64::from_le_bytes(self.number(8)), origin: u16::from_le_bytes(self.number(16)) }
    }

    fn properties_at(&self) -> usize {
        HEAD + usize::from(u16::from_le_bytes(self.number(18)))
    }

    fn properties_end(&self) -> usize {
        self.properties_at() + u32::from_le_bytes(self.number(20)) as usize
    }

    /// Where the payload begins in [`Message::bytes`].
    pub fn payload_at(&self) -> usize {
        let at = self.properties_end();
        if self.0[24] & PUBLISHER == 0 {
            return at;
        }
        let len = |field| usize::from(u16::from_le_bytes(self.number(at + field)));
        at + PUBLISHER_HEAD + len(2) + len(4)
    }

    /// The listener by which its publisher came, where that is remembered.
    pub fn listener(&self) -> Option<u16> {
        let known = self.0[24] & PUBLISHER != 0;
        known.then(|| u16::from_le_bytes(self.number(self.properties_end())))
    }

    /// Who published it, where that is remembered.
    pub fn publisher(&self) -> Option<Publisher<'_>> {
        let listener = self.listener()?;
        let at = self.properties_end();
        let names = core::str::from_utf8(self.0.get(at + PUBLISHER_HEAD..self.payload_at())?).ok()?;
        let (client_id, name) = names.split_at_checked(u16::from_le_bytes(self.number(at + 2)).into())?;
        let username = (self.0[at + 6] == 1).then_some(name);
        Some(Publisher { listener, client_id, username })
    }

    /// The quality of service it was published with.
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.0[24] & 3).unwrap_or(QoS::AtMostOnce)
    }

    /// Whether it was published to be retained.
    pub fn retain(&self) -> bool {
        self.0[24] & RETAIN != 0
    }

    /// The whole block: a head of our own, topic, properties, publisher if it is remembered, payload.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// All of it but the moment it expires: what [`Message::from_bytes_after_expiry`] makes one of again.
    pub fn bytes_after_expiry(&self) -> &[u8] {
        &self.0[8..]
    }

    /// A message from what was kept of one; `None` if the bytes are not one.
    pub fn from_bytes_after_expiry(expires_at: Instant, bytes: &[u8]) -> Option<Message> {
        let mut all = Vec::with_capacity(8 + bytes.len());
        all.extend_from_slice(&expires_at.micros().to_le_bytes());
        all.extend_from_slice(bytes);
        if all.len() < HEAD {
            return None;
        }
        let message = Message(Arc::from(all));
        QoS::from_u8(message.0[24] & 3).filter(|_| message.0[24] < 2 * PUBLISHER)?;
        core::str::from_utf8(message.0.get(HEAD..message.properties_at())?).ok()?;
        let properties = message.0.get(message.properties_at()..message.properties_end())?;
        Properties::validate(properties, PropertyContext::Packet(PacketType::Publish)).ok()?;
        if message.0[24] & PUBLISHER != 0 {
            message.0.get(message.properties_end()..message.payload_at())?;
            message.publisher()?;
        }
        Some(message)
    }

    /// The topic name, as bytes of UTF-8.
    pub fn topic_bytes(&self) -> &[u8] {
        &self.0[HEAD..self.properties_at()]
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        core::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    /// The encoded properties, as in [`Publication::properties`].
    pub fn properties(&self) -> &[u8] {
        &self.0[self.properties_at()..self.properties_end()]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.0[self.payload_at()..]
    }

    /// Where its block is: two that live at the same time are one message if it is the same.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// How many bytes the message takes up.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The message as routing sees it.
    pub fn as_publication(&self) -> Publication<'_> {
        Publication {
            topic: self.topic(),
            qos: self.qos(),
            retain: self.retain(),
            properties: self.properties(),
            payload: self.payload(),
            expires_at: self.expires_at(),
            id: self.id(),
        }
    }
}

impl fmt::Debug for Message {
    /// Names the message; payloads are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id())
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_message_gives_back_what_it_was_made_of() {
        let publication = Publication {
            topic: "a/b",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: &[1, 1],
            payload: b"payload",
            expires_at: Instant::from_secs(7),
            id: MessageId { origin: 3, count: 1 << 40 },
        };
        let message = publication.to_message(&mut Vec::new());
        let back = message.as_publication();
        assert_eq!((back.topic, back.qos, back.retain), ("a/b", QoS::ExactlyOnce, true));
        assert_eq!((back.properties, back.payload), (&[1, 1][..], &b"payload"[..]));
        assert_eq!((back.expires_at, back.id), (publication.expires_at, publication.id));
        assert_eq!(message.publisher(), None);
        for username in [None, Some(""), Some("usér")] {
            let publisher = Publisher { listener: 3, client_id: "clïent", username };
            let message = publication.to_message_of(Some(publisher), &mut Vec::new());
            assert_eq!(message.publisher(), Some(publisher));
            let back = message.as_publication();
            assert_eq!((back.topic, back.qos, back.retain), ("a/b", QoS::ExactlyOnce, true));
            assert_eq!((back.properties, back.payload), (&[1, 1][..], &b"payload"[..]));
            let bytes = message.bytes_after_expiry();
            let read =
                Message::from_bytes_after_expiry(Instant::NEVER, bytes).map(|m| m.bytes()[8..].to_vec());
            assert_eq!(read.as_deref(), Some(bytes));
            for end in 0..bytes.len() - publication.payload.len() {
                assert_eq!(Message::from_bytes_after_expiry(Instant::NEVER, &bytes[..end]), None, "{end}");
            }
        }
        let empty = Message::new("t", b"", QoS::AtMostOnce, false);
        assert_eq!((empty.topic(), empty.payload(), empty.properties()), ("t", &[][..], &[][..]));
        assert_eq!(empty.expires_at(), Instant::NEVER);
    }
}
