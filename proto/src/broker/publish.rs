//! PUBLISH: from a connection, a peer or within to everyone who subscribed.
//!
//! What a topic matches is kept per connection as a [`Route`]: as long as a client publishes to the same
//! topic and no subscription, interest or configuration changes, nothing is matched again. What depends on the
//! receiver (version, window, connection) is decided at each delivery.

use super::brake::Brake;
use super::config::Config;
use super::conn::{Flow, NO_SESSION, Pause, conn_at};
use super::denial::Denial;
use super::fan::{Answer, Fan};
use super::io::{ConnId, ShardId};
use super::limits::CROWDED;
use super::memory::Memory;
use super::peer::PeerMessage;
use super::rights::{Rights, Subject};
use super::session::Session;
use super::store::StoreOp;
use super::sys::{Dropped, Refused};
use super::{FAN_SLICE, SLICE, Shard, Work};
use crate::codec::{Frame, PacketType, Property, Publish, QoS, ReasonCode, SubscribeOptions};
use crate::message::{Message, MessageId, Publication};
use crate::session::{Delivery, OutgoingPublish, Payload, Sent, SubscriptionIds};
use crate::time::Instant;
use crate::topic::{TOPIC_BYTES_MAX, separators};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// How many acknowledgements of one connection may wait for gates before it is not read.
pub(super) const PENDING_ACKS_MAX: usize = 1024;

/// What a session chose for one of its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0 for none.
    pub id: u32,
}

impl Subscription {
    pub fn new(options: SubscribeOptions, id: u32) -> Subscription {
        let SubscribeOptions { qos, no_local, retain_as_published, .. } = options;
        Subscription { qos, no_local, retain_as_published, id }
    }
}

/// Sessions and groups share the trie: even numbers are sessions, odd ones groups.
pub(super) fn session_subscriber(index: u32) -> u32 {
    index << 1
}

pub(super) fn group_subscriber(index: u32) -> u32 {
    index << 1 | 1
}

/// Whether a client may publish to a topic. What the broker says of itself nobody else says, and what is a
/// shared subscription is no topic.
pub(super) fn may_publish(rights: &Rights, subject: Subject<'_>, topic: &str) -> bool {
    let reserved = topic.starts_with('$')
        && (topic.starts_with("$SYS/") && !is_bridge_state(topic) || topic.starts_with("$share/"));
    !reserved && rights.may_publish(subject, topic)
}

/// Whether this is where a bridge of mosquitto says that it is there: `$SYS/broker/connection/NAME/state`.
fn is_bridge_state(topic: &str) -> bool {
    let name = topic.strip_prefix("$SYS/broker/connection/").and_then(|t| t.strip_suffix("/state"));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Why a client that has not taken so many bytes does not get a QoS 0 message, if there is a reason.
#[cold]
fn why_drop(
    config: &Config,
    memory: &Memory,
    brake: &mut Brake,
    waiting: usize,
) -> Option<(Dropped, Denial, &'static str)> {
    if waiting > config.output_soft_bytes {
        if config.slow_publishers && waiting <= config.output_hard_bytes {
            brake.pressed = true;
        } else {
            let what = "messages of QoS 0 are dropped, it does not read what it is sent";
            return Some((Dropped::Slow, Denial::Slow, what));
        }
    }
    let what = "messages of QoS 0 are dropped, it is slow, and memory is short";
    memory.is_short().then_some((Dropped::Memory, Denial::Memory, what))
}

/// One receiver of a topic, all its matching subscriptions merged.
#[derive(Clone, Debug)]
pub(super) struct Target {
    session: u32,
    serial: u32,
    qos: QoS,
    retain_as_published: bool,
    ids: SubscriptionIds,
}

/// Everyone a topic goes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    topic: String,
    subscriptions: u64,
    interest: u64,
    targets: Vec<Target>,
    groups: Vec<u32>,
    /// The other shards that may have receivers.
    peers: u64,
    /// Whether the publisher has a subscription that excludes its own messages.
    own: bool,
}

impl Route {
    /// Keeps only those who are meant.
    pub fn keep_where(&mut self, session: impl Fn(u32) -> bool, group: impl Fn(u32) -> bool) {
        self.targets.retain(|t| session(t.session));
        self.groups.retain(|&g| group(g));
    }

    /// How many bytes it takes up.
    pub fn size(&self) -> usize {
        self.topic.capacity() + self.targets.capacity() * size_of::<Target>() + self.groups.capacity() * 4
    }

    /// How many receivers it has: groups, then sessions.
    pub fn len(&self) -> usize {
        self.groups.len() + self.targets.len()
    }
}

/// Where in a route being built a session stands, to merge its subscriptions.
#[derive(Debug, Default)]
pub(super) struct Marks {
    epoch: u32,
    /// By session: the epoch, and the place in the route.
    places: Vec<(u32, u32)>,
}

/// Who brought a message: what waits while it goes out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Conn(ConnId),
    Peer(ShardId),
    Within,
}

/// The bytes of a 3.x QoS 0 PUBLISH as it came in: for a 3.x receiver at QoS 0 they are what goes out.
type Raw<'a> = Option<&'a [u8]>;

/// A message to be delivered at QoS 0, in every form there is of it.
#[derive(Clone, Copy)]
pub(super) struct Qos0<'a> {
    pub publication: &'a Publication<'a>,
    pub raw: Raw<'a>,
    pub kept: Option<&'a Message>,
    /// Whether it was asked for and must not be dropped: the one who sends holds the bounds.
    pub asked: bool,
}

impl Shard {
    pub(super) fn on_publish(&mut self, id: ConnId, frame: Frame<'_>) -> Flow {
        if self.credit_spent() {
            self.credit_wait = true;
            self.pause(id, Pause::Credit);
        }
        if self.config.max_publish_rate > 0 {
            self.meter(id);
        }
        let now = self.now;
        let Shard { conns, properties: forward, .. } = self;
        let Some(conn) = conn_at(conns, id) else {
            return Flow::Closed;
        };
        let max_alias = conn.told.map_or(0, |told| told.topic_alias_maximum);
        let version = conn.link.version;
        let mut publish = match Publish::decode(version, frame) {
            Ok(publish) => publish,
            Err(error) => {
                self.close_for(id, Some(frame), &error);
                return Flow::Closed;
            }
        };
        let mut aliased = String::new();
        let mut expires_at = Instant::NEVER;
        let mut forward = core::mem::take(forward);
        forward.clear();
        let mut properties = publish.properties.raw();
        if !publish.properties.is_empty() {
            let mut alias = None;
            for property in publish.properties.iter() {
                match property {
                    Property::TopicAlias(n) => alias = Some(n),
                    Property::MessageExpiryInterval(s) => expires_at = now + Duration::from_secs(s.into()),
                    // [MQTT-3.3.4-6]
                    Property::SubscriptionIdentifier(_) => {
                        return self.fail(
                            id,
                            ReasonCode::ProtocolError,
                            "PUBLISH with a subscription identifier",
                        );
                    }
                    // As they came and in their order [MQTT-3.3.2-17] [MQTT-3.3.2-18].
                    other => {
                        let _ = other.encode(&mut forward);
                    }
                }
            }
            properties = &forward;
            if let Some(alias) = alias {
                match conn.link.resolve_alias(publish.topic, alias, max_alias) {
                    Ok(topic) if publish.topic.is_empty() => aliased.push_str(topic),
                    Ok(_) => {}
                    Err(reason) if alias > max_alias => {
                        return self.fail_for_limit(id, reason, "a topic alias above 'max_topic_alias'");
                    }
                    Err(reason) => return self.fail(id, reason, "the topic alias is not one"),
                }
            }
        }
        if publish.topic.is_empty() {
            publish.topic = &aliased;
        }
        let mounted = if conn.mount.is_none() { String::new() } else { conn.mount.topic(publish.topic) };
        let mut publication = Publication {
            topic: publish.topic,
            qos: publish.qos,
            retain: publish.retain,
            properties,
            payload: publish.payload,
            expires_at,
            id: MessageId::default(),
        };
        let mut raw = (frame.first == 0x30 && !version.is_v5()).then_some(frame.raw);
        if !conn.mount.is_none() {
            raw = None;
            publication.topic = &mounted;
        }
        let flow = self.accept_publish(id, publish.packet_id, &publication, raw);
        self.properties = forward;
        match flow {
            Flow::Continue if self.conn(id).is_some_and(|c| c.paused != 0) => Flow::Pause,
            other => other,
        }
    }

    /// Checks a PUBLISH against what only the broker knows, routes it and acknowledges it.
    fn accept_publish(
        &mut self,
        id: ConnId,
        packet_id: u16,
        publication: &Publication<'_>,
        raw: Raw<'_>,
    ) -> Flow {
        let qos = publication.qos;
        let kind = if qos == QoS::ExactlyOnce { PacketType::PubRec } else { PacketType::PubAck };
        self.counters.publish_received += 1;
        self.counters.publish_bytes_received += publication.payload.len() as u64;
        let Some(conn) = conn_at(&mut self.conns, id) else { return Flow::Closed };
        let (session, v5) = (conn.session, conn.link.version.is_v5());
        let max_qos = self.config.limits(conn.listener).max_qos;
        if qos > max_qos {
            // [MQTT-3.2.2-11]
            return self.fail_for_limit(id, ReasonCode::QoSNotSupported, "a QoS above the highest allowed");
        }
        let mut route = conn.route.take().unwrap_or_default();
        if qos != QoS::AtMostOnce {
            let incoming = &mut self.sessions[session].incoming;
            let known = qos == QoS::ExactlyOnce && incoming.contains(packet_id);
            // [MQTT-3.3.4-7]; 3.x has no such limit to break. What waits for our gates is not held
            // against the client: that is what `Pause::Gates` is for.
            let is_full = conn.told.is_some_and(|told| conn.link.unreleased >= told.receive_maximum);
            if is_full && !known {
                let what = "more messages in flight than 'max_inflight_messages' allows";
                return self.fail_for_limit(id, ReasonCode::ReceiveMaximumExceeded, what);
            }
            if known {
                // [MQTT-4.3.3-10]: it was routed when it came first, and may still be on its way to other shards.
                conn.route = Some(route);
                let gate = self.gate();
                return self.acknowledge(id, gate, kind, packet_id, ReasonCode::Success);
            }
        }
        if qos != QoS::AtMostOnce && self.keeper.failed {
            // Nothing can be promised; 3.x has no words for that.
            if !v5 {
                return self.fail(id, ReasonCode::ServerUnavailable, "the store fails");
            }
            if let Some(conn) = self.conn(id) {
                conn.route = Some(route);
            }
            return self.acknowledge(id, 0, kind, packet_id, ReasonCode::ImplementationSpecificError);
        }
        if publication.retain && !self.config.retain_available {
            return self.fail(id, ReasonCode::RetainNotSupported, "retained messages are switched off");
        }
        if publication.payload.len() > self.config.message_size_limit as usize {
            self.counters.refuse(Refused::Publish);
            let what = "a message is dropped, its payload is larger than 'message_size_limit' allows";
            self.log_limit(Denial::Limit, session, what);
            let reason = if v5 { ReasonCode::ImplementationSpecificError } else { ReasonCode::Success };
            if let Some(conn) = self.conn(id) {
                conn.route = Some(route);
            }
            return self.acknowledge(id, 0, kind, packet_id, reason);
        }
        if self.config.is_crowded(publication.properties) {
            return self.refuse_publish(id, route, (kind, packet_id), (Denial::Limit, CROWDED));
        }
        if !self.route_holds(&route, publication.topic) {
            if separators(publication.topic) > usize::from(self.config.max_topic_separators) {
                let what = "the topic has more levels than 'max_topic_separators' allows";
                return self.fail_for_limit(id, ReasonCode::MalformedPacket, what);
            }
            if publication.topic.len() > TOPIC_BYTES_MAX {
                return self.fail(
                    id,
                    ReasonCode::TopicNameInvalid,
                    "the topic is too long with its mount point",
                );
            }
            let who = &self.sessions[session];
            if !may_publish(self.config.rights(who.listener), who.subject(), publication.topic) {
                self.log_session_denial(Denial::Publish, session, publication.topic);
                return self.acknowledge(
                    id,
                    0,
                    kind,
                    packet_id,
                    if v5 { ReasonCode::NotAuthorized } else { ReasonCode::Success },
                );
            }
            self.build_route(Arc::make_mut(&mut route), publication.topic, session);
            Arc::make_mut(&mut route).peers = self.interest.shards(publication.topic);
        }
        let somewhere = route.len() > 0 || route.peers != 0;
        let retains = publication.retain && !publication.payload.is_empty();
        if qos != QoS::AtMostOnce && (somewhere || retains) && self.is_short_of_memory() {
            let what = "a message is refused, memory is short ('memory_limit')";
            return self.refuse_publish(id, route, (kind, packet_id), (Denial::Memory, what));
        }
        let emitted = self.keeper.emitted();
        // What was refused above has left no trace: its id names the next message [MQTT-4.3.3-9].
        if qos == QoS::ExactlyOnce {
            self.change_ids(session, |incoming| incoming.begin(packet_id));
            if let Some(conn) = self.conn(id) {
                conn.link.unreleased += 1;
            }
        }
        let publication = Publication { id: self.next_message_id(), ..*publication };
        let nobody = route.len() == 0 && route.peers == 0 && !route.own;
        let mut kept = None;
        let once = qos == QoS::ExactlyOnce && self.sends_once(session);
        let elsewhere = self.send_elsewhere(&publication, session, &route, once, &mut kept);
        let mut gate = if elsewhere && qos != QoS::AtMostOnce { self.gate() } else { 0 };
        let mut ack = (qos != QoS::AtMostOnce).then_some((kind, packet_id));
        // A PUBACK follows the message to its own publisher, a PUBREC precedes it, as clients have it from brokers
        // that deliver at PUBREL. It must not leave before the last of several slices.
        let mut flow = Flow::Continue;
        if qos == QoS::ExactlyOnce && route.len() <= SLICE && !self.keeper.on {
            ack = None;
            flow = self.acknowledge(id, gate, kind, packet_id, ReasonCode::Success);
        }
        if elsewhere && self.config.slow_publishers {
            self.remember_publisher(publication.id, id);
        }
        let done = self.deliver(&publication, &route, 0, raw, &mut kept);
        self.after_delivery(Source::Conn(id), publication.id);
        let is_fan = done < route.len();
        if is_fan {
            let message = kept.unwrap_or_else(|| self.keep(&publication));
            let reason = ReasonCode::Success;
            let answer = ack.map(|(kind, packet_id)| Answer { kind, packet_id, reason, is_new: true });
            self.fan_out(id, answer, message, &route, done);
        }
        if let Some(conn) = self.conn(id) {
            conn.route = Some(route);
        }
        if is_fan {
            return Flow::Pause;
        }
        if qos == QoS::ExactlyOnce {
            // With what came of the message: only both together make it known.
            self.keep_of(session, 1, |id| StoreOp::Received { id, packet_id });
        }
        if qos != QoS::AtMostOnce && self.keeper.emitted() > emitted {
            gate = self.gate();
        }
        let nobody = nobody && v5 && qos == QoS::AtLeastOnce;
        let reason = if nobody { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        match ack {
            Some((kind, packet_id)) => self.acknowledge(id, gate, kind, packet_id, reason),
            None => flow,
        }
    }

    /// Refuses a message for a limit.
    #[cold]
    fn refuse_publish(
        &mut self,
        id: ConnId,
        route: Arc<Route>,
        (kind, packet_id): (PacketType, u16),
        (denial, what): (Denial, &'static str),
    ) -> Flow {
        self.counters.refuse(Refused::Publish);
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        conn.route = Some(route);
        let (session, v5) = (conn.session, conn.link.version.is_v5());
        self.log_limit(denial, session, what);
        // 3.x has no words for that, and an acknowledgement would be a lie.
        if !v5 {
            return self.fail(id, ReasonCode::QuotaExceeded, what);
        }
        self.acknowledge(id, 0, kind, packet_id, ReasonCode::QuotaExceeded)
    }

    /// Acknowledges a PUBLISH, in order, when `gate` opens [MQTT-4.3.2-4] [MQTT-4.3.3-8].
    pub(super) fn acknowledge(
        &mut self,
        id: ConnId,
        gate: u64,
        kind: PacketType,
        packet_id: u16,
        reason: ReasonCode,
    ) -> Flow {
        if packet_id == 0 {
            return Flow::Continue;
        }
        if self.conn(id).is_some_and(|conn| conn.paused & Pause::Fan as u16 != 0)
            && self.answer_after_fan(id, Answer { kind, packet_id, reason, is_new: false })
        {
            return Flow::Pause;
        }
        let Shard { conns, pool, opened, .. } = self;
        let Some(conn) = conn_at(conns, id) else {
            return Flow::Closed;
        };
        if conn.link.acknowledge(pool, gate, *opened, kind, packet_id, reason) {
            self.mark_dirty(id);
            return self.after_answer(id);
        }
        let pending = conn.link.pending_acks();
        if pending == 1 {
            self.wait_for_gate(id);
        } else if pending >= PENDING_ACKS_MAX {
            self.pause(id, Pause::Gates);
            return Flow::Pause;
        }
        Flow::Continue
    }

    /// Publishes what no client brought: a report.
    pub(super) fn publish_from_within(&mut self, message: &Message) {
        self.publish_within(message.as_publication(), NO_SESSION);
    }

    /// As [`Shard::publish_from_within`], for a session: with No Local it does not get its own will.
    pub(super) fn publish_within(&mut self, mut publication: Publication<'_>, publisher: u32) {
        publication.id = self.next_message_id();
        let mut route = self.route.take().unwrap_or_default();
        self.build_route(Arc::make_mut(&mut route), publication.topic, publisher);
        Arc::make_mut(&mut route).peers = self.interest.shards(publication.topic);
        let mut kept = None;
        self.send_elsewhere(&publication, publisher, &route, true, &mut kept);
        self.deliver_or_queue(Source::Within, &publication, route, kept);
        // Others may publish to the topic next.
        if publisher != NO_SESSION {
            self.route = None;
        }
    }

    /// Delivers what another shard sent to this one's subscribers and groups. True if it is done.
    pub(super) fn publish_from_peer(&mut self, from: ShardId, message: Message) -> bool {
        let publication = message.as_publication();
        if publication.expires_at < self.now {
            self.counters.publish_dropped += 1;
            return true; // [MQTT-3.3.2-5]
        }
        let mut route = self.route.take().unwrap_or_default();
        if !self.route_holds(&route, publication.topic) {
            self.build_route(Arc::make_mut(&mut route), publication.topic, NO_SESSION);
        }
        if publication.retain {
            self.retained.saw_live(&publication);
        }
        let done = self.deliver_or_queue(Source::Peer(from), &publication, route, Some(message.clone()));
        self.blocks.give_back(message);
        done
    }

    pub(super) fn deliver_or_queue(
        &mut self,
        source: Source,
        publication: &Publication<'_>,
        route: Arc<Route>,
        mut kept: Option<Message>,
    ) -> bool {
        let done = self.deliver(publication, &route, 0, None, &mut kept);
        self.after_delivery(source, publication.id);
        if done < route.len() {
            let message = kept.unwrap_or_else(|| self.keep(publication));
            self.work.push_back(Work::Fan(Fan::new(source, message, route, done)));
            return false;
        }
        self.route = Some(route);
        true
    }

    fn route_holds(&self, route: &Route, topic: &str) -> bool {
        route.topic == topic
            && route.subscriptions == self.subscriptions.generation()
            && route.interest == self.interest.generation()
    }

    /// Finds out who `topic` goes to here. `publisher` is a session, or [`NO_SESSION`].
    pub(super) fn build_route(&mut self, route: &mut Route, topic: &str, publisher: u32) {
        let Shard { subscriptions, scratch, marks, sessions, config, effort, .. } = self;
        let mut denied = None;
        route.targets.clear();
        route.groups.clear();
        route.own = false;
        marks.epoch = marks.epoch.wrapping_add(1);
        subscriptions.matches(topic, scratch, |subscriber, subscription| {
            *effort += 1;
            if subscriber & 1 == 1 {
                return route.groups.push(subscriber >> 1);
            }
            let index = subscriber >> 1;
            if subscription.no_local && index == publisher {
                route.own = true;
                return; // [MQTT-3.8.3-3]
            }
            if marks.places.len() <= index as usize {
                marks.places.resize(index as usize + 1, (marks.epoch.wrapping_sub(1), 0));
            }
            let mark = &mut marks.places[index as usize];
            if mark.0 == marks.epoch {
                // One copy with the highest QoS and all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4].
                let target = &mut route.targets[mark.1 as usize];
                target.qos = target.qos.max(subscription.qos);
                target.retain_as_published |= subscription.retain_as_published;
                return target.ids.push(subscription.id);
            }
            let Some(session) = sessions.get(index) else { return };
            if !config.rights(session.listener).may_receive(session.subject(), topic) {
                denied = Some(index);
                return;
            }
            *mark = (marks.epoch, route.targets.len() as u32);
            let mut ids = SubscriptionIds::None;
            ids.push(subscription.id);
            route.targets.push(Target {
                session: index,
                serial: session.serial,
                qos: subscription.qos,
                retain_as_published: subscription.retain_as_published,
                ids,
            });
        });
        if let Some(index) = denied {
            self.log_session_denial(Denial::Receive, index, topic);
        }
        route.topic.clear();
        route.topic.push_str(topic);
        route.subscriptions = self.subscriptions.generation();
        route.interest = self.interest.generation();
        route.peers = 0;
    }

    /// Everything but the local sessions: the retained store, other shards, shared subscriptions.
    /// True if other shards were told. `publisher` is a session, or [`NO_SESSION`].
    fn send_elsewhere(
        &mut self,
        publication: &Publication<'_>,
        publisher: u32,
        route: &Route,
        once: bool,
        kept: &mut Option<Message>,
    ) -> bool {
        let mut told = false;
        // [MQTT-3.3.1-5], [MQTT-3.3.1-8]
        if publication.retain {
            let session = self.sessions.get(publisher).filter(|_| self.config.check_retain_source);
            let publisher = session.map(Session::as_publisher);
            let message = self.blocks.keep(publication, publisher);
            *kept = Some(message.clone());
            let home = self.placement.shard(publication.topic.as_bytes());
            if home == self.id {
                self.store_retained(message);
            } else {
                if once && self.keeper.on && publication.qos != QoS::AtMostOnce {
                    self.send_retained(home, message);
                } else {
                    self.send_to_peer(home, PeerMessage::Retain(message));
                }
                told = true;
            }
            self.retained.saw_live(publication);
        }
        if route.peers != 0 {
            let message = kept.get_or_insert_with(|| self.blocks.keep(publication, None)).clone();
            for to in (0..self.shards).filter(|&to| route.peers >> to & 1 == 1) {
                let publish = PeerMessage::Publish(message.clone());
                match once {
                    true => self.send_once(to, publish, &message, None),
                    false => self.send_to_peer(to, publish),
                }
            }
            told = true;
        }
        // A member of a shared subscription may live anywhere.
        told || self.shards > 1 && !route.groups.is_empty()
    }

    /// Delivers from `at` on, groups first: to all of up to [`SLICE`] receivers at once, so that messages that follow each
    /// other leave with one write; of more, to [`FAN_SLICE`]. Returns where to go on.
    pub(super) fn deliver(
        &mut self,
        publication: &Publication<'_>,
        route: &Route,
        at: usize,
        raw: Raw<'_>,
        kept: &mut Option<Message>,
    ) -> usize {
        let groups = route.groups.len();
        let slice = if route.len() <= SLICE { SLICE } else { FAN_SLICE };
        let end = route.len().min(at + slice);
        self.effort += end - at;
        if at < groups {
            let changed = route.subscriptions != self.subscriptions.generation();
            let message = kept.get_or_insert_with(|| self.blocks.keep(publication, None)).clone();
            for &group in &route.groups[at..end.min(groups)] {
                if !changed || self.group_matches(group, publication.topic) {
                    self.deliver_to_group(group, &message);
                }
            }
        }
        for target in &route.targets[at.saturating_sub(groups)..end.saturating_sub(groups)] {
            let qos = self.config.delivered_qos(publication.qos, target.qos);
            // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
            let retain = publication.retain && target.retain_as_published;
            if self.sessions.get(target.session).is_none_or(|s| s.serial != target.serial) {
                continue;
            }
            if qos == QoS::AtMostOnce && !self.queues_qos0(target.session) {
                let message = Qos0 { publication, raw, kept: kept.as_ref(), asked: false };
                self.deliver_now(target.session, &target.ids, retain, message);
            } else {
                let message = kept.get_or_insert_with(|| self.blocks.keep(publication, None)).clone();
                let delivery =
                    Delivery { message, qos, retain, ids: target.ids.clone(), share: 0, seq: 0, body: 0 };
                self.enqueue(target.session, delivery);
            }
        }
        end
    }

    /// Whether a QoS 0 message for a session is queued: its client is away, or has not got those that were.
    pub(super) fn queues_qos0(&self, index: u32) -> bool {
        self.config.queue_qos0_messages
            && self.sessions.get(index).is_some_and(|session| {
                let away = session.conn.is_none() || session.outgoing.queues_qos0();
                // While the store fails, what nobody was promised does not pile up.
                away && session.expiry_s > 0 && !(self.keeper.failed && session.is_stored())
            })
    }

    /// Writes a QoS 0 message to a session that is connected, or drops it.
    pub(super) fn deliver_now(
        &mut self,
        session: u32,
        ids: &SubscriptionIds,
        retain: bool,
        message: Qos0<'_>,
    ) {
        let now = self.now;
        let Shard { sessions, conns, pool, counters, dirty, memory, config, brake, .. } = self;
        let Some(id) = sessions.get(session).and_then(|s| s.conn) else { return };
        let Some(conn) = conn_at(conns, id) else { return };
        if conn.blocked && !message.asked {
            let waiting = conn.link.outbox.len();
            if let Some((why, kind, what)) = why_drop(config, memory, brake, waiting) {
                counters.drop_for(why);
                return self.log_limit(kind, session, what);
            }
        }
        match message.raw {
            Some(bytes) if !conn.link.version.is_v5() && !retain && conn.mount.is_none() => {
                conn.link.outbox.writer(pool).extend_from_slice(bytes);
                pool.packets += 1;
            }
            _ => {
                let publication = message.publication;
                let Some(topic) = conn.mount.strip(publication.topic.as_bytes()) else {
                    counters.drop_for(Dropped::TooLarge);
                    return;
                };
                let publish = OutgoingPublish {
                    topic,
                    properties: publication.properties,
                    payload: message.kept.map_or(Payload::Bytes(publication.payload), Payload::Kept),
                    expires_at: publication.expires_at,
                    qos: QoS::AtMostOnce,
                    dup: false,
                    retain,
                    packet_id: 0,
                    ids,
                };
                if conn.link.put_publish(pool, now, &publish) == Sent::TooLarge {
                    counters.drop_for(Dropped::TooLarge); // [MQTT-3.1.2-25]
                    return;
                }
            }
        }
        counters.publish_sent += 1;
        counters.publish_bytes_sent += message.publication.payload.len() as u64;
        conn.mark_dirty(id, dirty);
    }

    /// Queues a QoS 1 or 2 message for a session, connected or not, and sends what its window allows
    /// [MQTT-4.5.0-1]. A session that is full drops it.
    pub(super) fn enqueue(&mut self, index: u32, delivery: Delivery) {
        let most = self.config.max_queued_messages as usize;
        let Some(session) = self.sessions.get_mut(index) else { return };
        // What is queued in the store takes no memory but for its head.
        let most_bytes = match session.is_stored() {
            true => self.config.max_stored_bytes,
            false => self.config.max_queued_bytes,
        };
        let out = &mut session.outgoing;
        if out.queued() == 0 {
            session.epoch = self.epoch;
        }
        let queued = out.queued_bytes() + delivery.size();
        if out.queued() > 0 && (out.queued() >= most || queued > most_bytes) {
            self.counters.drop_for(Dropped::QueueFull);
            return self.log_limit(
                Denial::Queue,
                index,
                "messages are dropped, as many wait for it as 'max_queued_messages' or 'max_queued_bytes' allows",
            );
        }
        // What came with QoS 1 or 2 was refused when it came, or is acknowledged.
        if delivery.message.qos() == QoS::AtMostOnce && self.is_short_of_memory() {
            self.counters.drop_for(Dropped::Memory);
            return self.log_limit(
                Denial::Memory,
                index,
                "messages of QoS 0 are not queued, memory is short",
            );
        }
        self.enqueue_asked(index, delivery);
    }

    /// Queues a message that was asked for: the one who sends holds the bounds.
    pub(super) fn enqueue_asked(&mut self, index: u32, delivery: Delivery) {
        let Shard { sessions, keeper, memory, .. } = self;
        let Some(session) = sessions.get_mut(index) else { return };
        let Some(mut delivery) = session.keep_delivery(keeper, delivery) else { return };
        memory.hold(&mut delivery);
        session.outgoing.push(delivery);
        if session.conn.is_some() {
            self.pump(index);
        }
    }
}
