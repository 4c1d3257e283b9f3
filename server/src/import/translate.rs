//! What mosquitto kept, as changes of the store.
//!
//! What mosquitto does at PUBREL, hikyaku does at PUBLISH: it gives a QoS 2 message to those who subscribe. So one that
//! mosquitto has received, and not passed on, becomes a message between shards, which the next start delivers, and its packet
//! id one that is known.

use super::chunk::{Chunk, Chunks, Client, ClientMessage, Damage, StoredMessage, Subscription, state};
use super::summary::Summary;
use hikyaku_proto::broker::store::record::Clock;
use hikyaku_proto::broker::store::{BodyId, RETAINED, SessionId, SessionState, StoreOp, StoredSubscription};
use hikyaku_proto::broker::{Placement, ShardId};
use hikyaku_proto::codec::{
    PacketType, Properties, Property, PropertyContext, QoS, SubscribeOptions, VARINT_MAX, read_varint,
};
use hikyaku_proto::message::{Message, MessageId, Publication, Publisher};
use hikyaku_proto::session::{Delivery, SubscriptionIds};
use hikyaku_proto::time::Instant;
use hikyaku_proto::topic::{TopicFilter, TopicName, separators};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A whole file, read and checked.
#[derive(Debug)]
pub(super) struct Database<'a> {
    version: u32,
    at_end: bool,
    messages: HashMap<u64, StoredMessage<'a>>,
    clients: Vec<Kept<'a>>,
    retained: Vec<u64>,
    /// Subscriptions and messages of sessions that are not there.
    strays: [u64; 2],
    /// How often each message is named.
    named: HashMap<u64, u32>,
}

/// A session with all that is its own.
#[derive(Debug)]
struct Kept<'a> {
    client: Client<'a>,
    subscriptions: Vec<Subscription<'a>>,
    messages: Vec<ClientMessage<'a>>,
}

/// What it is to be made of.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub placement: &'a Placement,
    /// The run that messages and sessions are counted in.
    pub run: u32,
    pub clock: Clock,
    /// The ports of the listeners, in their order.
    pub ports: &'a [Option<u16>],
    /// How long a session without connection lasts at most.
    pub expiry_s_max: u32,
    /// Whether retained messages are kept.
    pub retained: bool,
    /// How many separators a topic may have.
    pub separators_max: u16,
}

impl<'a> Database<'a> {
    /// Reads all of a file.
    pub fn read(bytes: &'a [u8]) -> Result<Database<'a>, Damage> {
        let mut chunks = Chunks::new(bytes)?;
        let version = chunks.version();
        let (messages, clients, retained) = Default::default();
        let mut db = Database {
            version,
            at_end: false,
            messages,
            clients,
            retained,
            strays: [0; 2],
            named: HashMap::new(),
        };
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        let (mut subscriptions, mut waiting) = (Vec::new(), Vec::new());
        const LENGTH: &str = "the length of its properties is wrong";
        for chunk in &mut chunks {
            let (at, chunk) = chunk?;
            let damage = |what| Damage { at, what };
            match chunk {
                Chunk::Head(head) => db.at_end = head.at_end,
                Chunk::Message(message) => {
                    encoded(message.properties).ok_or(damage(LENGTH))?;
                    if db.messages.insert(message.id, message).is_some() {
                        return Err(damage("there is another message with the id of this one"));
                    }
                }
                Chunk::ClientMessage(message) => {
                    encoded(message.properties).ok_or(damage(LENGTH))?;
                    waiting.push(message);
                }
                Chunk::Retained(id) => db.retained.push(id),
                Chunk::Subscription(subscription) if subscription.id > VARINT_MAX => {
                    return Err(damage("there is no such subscription identifier"));
                }
                Chunk::Subscription(subscription) => subscriptions.push(subscription),
                Chunk::Client(client) => {
                    if places.insert(client.client_id, db.clients.len()).is_some() {
                        return Err(damage("there is another session of this client id"));
                    }
                    db.clients.push(Kept { client, subscriptions: Vec::new(), messages: Vec::new() });
                }
            }
        }
        for id in waiting.iter().map(|m| m.message).chain(db.retained.iter().copied()) {
            *db.named.entry(id).or_default() += 1;
        }
        for subscription in subscriptions {
            match places.get(subscription.client_id) {
                Some(&place) => db.clients[place].subscriptions.push(subscription),
                None => db.strays[0] += 1,
            }
        }
        for message in waiting {
            match places.get(message.client_id) {
                Some(&place) => db.clients[place].messages.push(message),
                None => db.strays[1] += 1,
            }
        }
        Ok(db)
    }

    /// Says all of it as changes of an empty store.
    pub fn translate<E>(
        &self,
        terms: &Terms<'_>,
        put: impl FnMut(StoreOp) -> Result<(), E>,
    ) -> Result<Summary, E> {
        let summary = Summary::new(self.version, self.at_end);
        let count = u64::from(terms.run) << 40;
        let (bodies, forwards, scratch) = (HashMap::new(), [0; 2], Vec::new());
        let mut work = Translator { db: self, terms, put, summary, count, bodies, forwards, scratch };
        work.summary.skip_many(self.strays[0], "subscription", "of a session that is not in the file");
        work.summary.skip_many(self.strays[1], "message", "of a session that is not in the file");
        let mut users = Users::default();
        for kept in &self.clients {
            let username = users.owner(kept.client.username);
            work.session(kept, username)?;
        }
        work.summary.unsure_owners = users.unsure;
        self.retained.iter().try_for_each(|&id| work.retained(id))?;
        let nobodys = self.messages.keys().filter(|id| !self.named.contains_key(id)).count() as u64;
        work.summary.skip_many(nobodys, "message", "for nobody whose session mosquitto keeps");
        Ok(work.summary)
    }
}

/// Takes the length off encoded properties. What they say is for [`properties`] to look at.
fn encoded(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.is_empty() {
        return Some(bytes);
    }
    let (len, at) = read_varint(bytes).ok()??;
    bytes.get(at..).filter(|rest| rest.len() == len as usize)
}

/// Reads properties with their length before them; `None` if they are not what we let in, which is less than what mosquitto does.
fn properties(bytes: &[u8]) -> Option<Properties<'_>> {
    Properties::validate(encoded(bytes)?, PropertyContext::Packet(PacketType::Publish)).ok()
}

/// Who sessions belong to.
///
/// mosquitto 1.6.11 to 2.0.15 writes something for a session without a user name that follows one with a name: that length in the
/// wrong order of bytes with what happens to lie in memory behind the name, and for the next such session the name
/// itself. Such names are none: whoever was bound to one could not connect any more.
#[derive(Debug, Default)]
struct Users<'a> {
    /// The last name.
    last: &'a [u8],
    /// Whether what came after it was none.
    stale: bool,
    /// How many may or may not have had the last name.
    unsure: u64,
}

impl<'a> Users<'a> {
    fn owner(&mut self, username: &'a [u8]) -> Option<&'a str> {
        if username.contains(&0) {
            self.stale = true;
            return None;
        }
        let stale = std::mem::take(&mut self.stale) && username == self.last;
        if stale {
            self.unsure += 1;
            return None;
        }
        self.last = username;
        std::str::from_utf8(username).ok().filter(|name| !name.is_empty())
    }
}

struct Translator<'d, 'a, F> {
    db: &'d Database<'a>,
    terms: &'d Terms<'d>,
    put: F,
    summary: Summary,
    /// The last message or session.
    count: u64,
    /// Messages that are named several times, once they were asked for.
    bodies: HashMap<u64, Body>,
    /// How many messages are to be delivered, and to be retained.
    forwards: [u64; 2],
    scratch: Vec<u8>,
}

#[derive(Clone)]
struct Body {
    message: Message,
    expired: bool,
}

const NOT_THERE: &str = "not in the file (mosquitto leaves some of $SYS out)";
const EXPIRED: &str = "expired";
const BAD_TOPIC: &str = "topic name not valid";
const BAD_PROPERTIES: &str = "properties not valid";

impl<'a, E, F: FnMut(StoreOp) -> Result<(), E>> Translator<'_, 'a, F> {
    fn put(&mut self, op: StoreOp) -> Result<(), E> {
        (self.put)(op)
    }

    fn next(&mut self) -> MessageId {
        self.count += 1;
        MessageId { origin: 0, count: self.count }
    }

    fn wall_s(&self) -> i64 {
        (self.terms.clock.wall_us / 1_000_000) as i64
    }

    /// The moment that is so many seconds after 1970; now if it has passed.
    fn moment(&self, wall_s: i64) -> Instant {
        let left_us = u64::try_from(wall_s).unwrap_or(0).saturating_mul(1_000_000);
        self.terms.clock.now + Duration::from_micros(left_us.saturating_sub(self.terms.clock.wall_us))
    }

    fn is_deep(&self, topic: &str) -> bool {
        separators(topic) > self.terms.separators_max.into()
    }

    /// The listener with a port, or else the first.
    fn listener(&self, port: u16) -> u16 {
        self.terms.ports.iter().position(|p| *p == Some(port)).unwrap_or(0) as u16
    }

    fn slot(&self, name: &str) -> u16 {
        self.terms.placement.slot(name.as_bytes()) as u16
    }

    fn session(&mut self, kept: &Kept<'a>, username: Option<&str>) -> Result<(), E> {
        let Kept { client, subscriptions, messages } = kept;
        let why = match std::str::from_utf8(client.client_id) {
            Err(_) => "client id not valid",
            Ok(id) if id.is_empty() || id.chars().any(char::is_control) => "client id not valid",
            Ok(client_id) => match self.expiry(client) {
                Some((expiry_s, expires_at)) => {
                    let name = self.next();
                    let id = SessionId { slot: self.slot(client_id), origin: name.origin, count: name.count };
                    let state = Box::new(SessionState {
                        client_id: client_id.into(),
                        username: username.map(Box::from),
                        listener: self.listener(client.listener_port),
                        expiry_s,
                        expires_at,
                        will: None,
                        will_at: Instant::NEVER,
                    });
                    self.put(StoreOp::Session { id, state })?;
                    self.summary.sessions += 1;
                    self.summary.local += u64::from(client_id.starts_with("local."));
                    self.subscriptions(id, subscriptions)?;
                    return self.messages(id, messages);
                }
                None => EXPIRED,
            },
        };
        self.summary.skip("session", why);
        self.summary.skip_many(subscriptions.len() as u64, "subscription", "of a session that is not taken");
        // What the client has sent is no matter of its own session: others wait for it.
        let waiting = messages.iter().filter(|m| m.outgoing).count() as u64;
        self.summary.skip_many(waiting, "message", "of a session that is not taken");
        let mut received = messages.iter().filter(|m| !m.outgoing && m.qos == 2);
        received.try_for_each(|m| self.deliver(m.message))
    }

    /// How long a session lasts without connection, and when it ends; `None` if it has ended.
    fn expiry(&self, client: &Client<'_>) -> Option<(u32, Instant)> {
        let wall_s = self.wall_s();
        let expiry_s = client.expiry_s.unwrap_or(u32::MAX).min(self.terms.expiry_s_max);
        if expiry_s == 0 {
            return None;
        }
        if expiry_s == u32::MAX {
            return Some((expiry_s, Instant::NEVER));
        }
        let gone_at = if client.gone_at > 0 { client.gone_at.min(wall_s) } else { wall_s };
        let latest = gone_at.saturating_add(expiry_s.into());
        let said = Some(client.expires_at).filter(|at| *at > 0);
        let at = said.map_or(latest, |said| said.min(latest));
        (at > wall_s).then(|| (expiry_s, self.moment(at)))
    }

    fn subscriptions(&mut self, id: SessionId, subscriptions: &[Subscription<'a>]) -> Result<(), E> {
        let mut shares = 0;
        for subscription in subscriptions {
            let filter = std::str::from_utf8(subscription.filter).ok();
            let filter = filter.and_then(|filter| TopicFilter::parse(filter).ok());
            let Some(filter) = filter.filter(|filter| !self.is_deep(filter.as_str())) else {
                self.summary.skip("subscription", "topic filter not valid");
                continue;
            };
            let shared = filter.share().is_some();
            shares += u32::from(shared);
            let options = SubscribeOptions {
                // [MQTT-3.8.3-4]
                no_local: subscription.options & 4 != 0 && !shared,
                retain_as_published: subscription.options & 8 != 0,
                ..SubscribeOptions::new(qos(subscription.qos))
            };
            let share = if shared { shares } else { 0 };
            let subscription = StoredSubscription { options, id: subscription.id, share };
            self.put(StoreOp::Subscribe { id, filter: filter.as_str().into(), subscription })?;
            self.summary.subscriptions += 1;
        }
        Ok(())
    }

    fn messages(&mut self, id: SessionId, messages: &[ClientMessage<'a>]) -> Result<(), E> {
        let mut received = HashSet::new();
        for message in messages.iter().filter(|m| !m.outgoing) {
            if message.qos < 2 {
                self.summary.skip("message", "not acknowledged to its sender, which sends it again");
            } else if message.state != state::RESEND_PUBCOMP {
                if message.packet_id > 0 && received.insert(message.packet_id) {
                    self.put(StoreOp::Received { id, packet_id: message.packet_id })?;
                }
                self.deliver(message.message)?;
            }
        }
        let unknown = |m: &ClientMessage<'_>| m.state <= state::PUBLISH_QOS_0 || m.state == state::QUEUED;
        // What is in flight comes first, whatever the file says.
        let outgoing = || messages.iter().filter(|m| m.outgoing);
        let (mut seq, mut used) = (0, HashSet::new());
        for message in outgoing().filter(|m| !unknown(m)).chain(outgoing().filter(|m| unknown(m))) {
            if message.qos == 0 {
                self.summary.skip("message", "QoS 0, of which hikyaku keeps none for clients that are away");
                continue;
            }
            let in_flight = !unknown(message) && message.packet_id > 0 && used.insert(message.packet_id);
            let packet_id = message.packet_id;
            if in_flight && matches!(message.state, state::RESEND_PUBREL | state::WAIT_FOR_PUBCOMP) {
                seq += 1;
                self.put(StoreOp::Released { id, seq, packet_id, body: BodyId::default() })?;
                self.summary.in_flight += 1;
                continue;
            }
            let body = match self.body(message.message) {
                // One that was sent before never expires [MQTT-4.3.3-7].
                Ok(body) if in_flight || !body.expired => body,
                Ok(_) => {
                    self.summary.skip("message", EXPIRED);
                    continue;
                }
                Err(why) => {
                    self.summary.skip("message", why);
                    continue;
                }
            };
            seq += 1;
            let mut ids = SubscriptionIds::None;
            let sent = properties(message.properties).unwrap_or_default();
            sent.subscription_identifiers().for_each(|id| ids.push(id));
            let (qos, retain) = (qos(message.qos), message.retain);
            let delivery = Delivery { message: body.message, qos, retain, ids, share: 0, seq, body: 0 };
            self.put(StoreOp::Enqueue { id, delivery })?;
            if in_flight {
                self.put(StoreOp::Sent { id, seq, packet_id })?;
                self.summary.in_flight += 1;
            } else {
                self.summary.queued += 1;
            }
        }
        Ok(())
    }

    /// Has a message delivered by the next start.
    fn deliver(&mut self, id: u64) -> Result<(), E> {
        let message = match self.body(id) {
            Ok(Body { message, expired: false }) => message,
            Ok(_) => {
                self.summary.skip("message", EXPIRED);
                return Ok(());
            }
            Err(why) => {
                self.summary.skip("message", why);
                return Ok(());
            }
        };
        self.summary.received += 1;
        if message.retain() {
            self.forwards[1] += 1;
            let (link, number): ((ShardId, ShardId), _) = ((0, RETAINED), self.forwards[1]);
            self.put(StoreOp::Forward { link, number, message: message.clone(), share: None })?;
        }
        self.forwards[0] += 1;
        let number = self.forwards[0];
        self.put(StoreOp::Forward { link: (0, 0), number, message, share: None })
    }

    fn retained(&mut self, id: u64) -> Result<(), E> {
        if !self.terms.retained {
            self.summary.skip("retained message", "'retained_persistence false' is configured");
            return Ok(());
        }
        let why = match self.body(id) {
            Ok(body) if body.expired => EXPIRED,
            Ok(body) if body.message.payload().is_empty() || body.message.topic().starts_with("$SYS/") => {
                "nothing that a broker retains"
            }
            Ok(Body { message, .. }) => {
                let slot = self.slot(message.topic());
                self.summary.retained += 1;
                return self.put(StoreOp::Retain { slot, message });
            }
            Err(why) => why,
        };
        self.summary.skip("retained message", why);
        Ok(())
    }

    /// A message, made when it is first asked for.
    fn body(&mut self, id: u64) -> Result<Body, &'static str> {
        if let Some(body) = self.bodies.get(&id) {
            return Ok(body.clone());
        }
        let body = self.make(self.db.messages.get(&id).ok_or(NOT_THERE)?)?;
        if self.db.named.get(&id).is_some_and(|n| *n > 1) {
            self.bodies.insert(id, body.clone());
        }
        Ok(body)
    }

    fn make(&mut self, stored: &StoredMessage<'a>) -> Result<Body, &'static str> {
        let topic = std::str::from_utf8(stored.topic).map_err(|_| BAD_TOPIC)?;
        TopicName::parse(topic).map_err(|_| BAD_TOPIC)?;
        if self.is_deep(topic) {
            return Err(BAD_TOPIC);
        }
        let mut forward = Vec::new();
        for property in properties(stored.properties).ok_or(BAD_PROPERTIES)?.iter() {
            match property {
                Property::TopicAlias(_)
                | Property::SubscriptionIdentifier(_)
                | Property::MessageExpiryInterval(_) => {}
                other => drop(other.encode(&mut forward)),
            }
        }
        let expires_at = Some(stored.expires_at).filter(|at| *at > 0);
        let expired = expires_at.is_some_and(|at| at <= self.wall_s());
        let publication = Publication {
            topic,
            qos: qos(stored.qos),
            retain: stored.retain,
            properties: &forward,
            payload: stored.payload,
            expires_at: expires_at.map_or(Instant::NEVER, |at| self.moment(at)),
            id: self.next(),
        };
        let message = publication.to_message_of(self.publisher(stored), &mut self.scratch);
        // One very large message need not keep its memory.
        self.scratch.shrink_to(1 << 20);
        Ok(Body { message, expired })
    }

    /// Who published a message that is retained, if that is known.
    fn publisher(&self, stored: &StoredMessage<'a>) -> Option<Publisher<'a>> {
        let client_id =
            std::str::from_utf8(stored.source).ok().filter(|id| stored.retain && !id.is_empty())?;
        let username = std::str::from_utf8(stored.username).ok()?;
        let username = Some(username).filter(|name| !name.is_empty());
        Some(Publisher { listener: self.listener(stored.listener_port), client_id, username })
    }
}

fn qos(bits: u8) -> QoS {
    QoS::from_u8(bits).unwrap_or(QoS::ExactlyOnce)
}
