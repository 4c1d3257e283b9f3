//! A naive broker that looks on: it sees every packet that goes into the real one or comes out of it, in order, keeps
//! lists of what it means, and panics when something is not as the standard, or the architecture, says.
//!
//! What happens between two shards takes time, and a crash may undo what was not promised. So it keeps, for
//! each fact, the steps (each packet is one) between which it may be so and between which it certainly is.
//! What may not be so must not be seen; what is certain, and was promised, must come.

mod debt;
mod delivery;
mod life;
mod link;
pub(crate) mod message;
mod retained;
mod session;
mod topic;

use super::broker::Broker;
use super::conn::{Conn, Door};
use super::plan::{Plan, SECOND};
use super::wire::{Packet, Publish};
use link::{Link, Waiting};
use message::{Draft, Handed, Messages};
use retained::Retained;
use session::{NEVER, Session, Subscription};
use std::collections::BTreeMap;

/// How late a timer may be.
pub(crate) const GRACE: u64 = 2 * SECOND;

/// A shared subscription.
#[derive(Debug, Default)]
struct Group {
    /// How many members ended, or left.
    ended: u32,
    /// When one ended or left last: what was chosen for it may not be anybody else's.
    left_step: u64,
    /// How often each message went to a member, at QoS 2 or below.
    copies: BTreeMap<(u32, bool), u32>,
    owed: BTreeMap<u32, u64>,
}

impl Group {
    fn copies_of(&self, number: u32) -> u32 {
        [false, true].into_iter().filter_map(|twice| self.copies.get(&(number, twice))).sum()
    }
}

pub(crate) struct Oracle {
    pub step: u64,
    /// Moments, with the step at each.
    steps: Vec<(u64, u64)>,
    pub messages: Messages,
    links: BTreeMap<usize, Link>,
    sessions: Vec<Session>,
    /// The session of each client.
    current: BTreeMap<usize, usize>,
    /// The session each client was last told of.
    heard_of: BTreeMap<usize, usize>,
    groups: BTreeMap<String, Group>,
    retained: Retained,
    crashes: u32,
    /// The moment of each, and the step up to which all was on the disk.
    crash_times: Vec<(u64, u64)>,
    crashed_at: u64,
    up: bool,
    /// Whether the store fails, or has lately.
    pub store_failed: bool,
    /// Jumps of the wall clock: when, and how far.
    jumps: Vec<(u64, i64)>,
    bounded: bool,
    /// Whether memory was used up at some time: what is new may be refused.
    pub was_short: bool,
    /// Whether QoS 0 messages are dropped for clients that do not take all output.
    drops: bool,
    /// Whether retained messages may not be kept.
    keeps_all: bool,
    subscriptions_max: usize,
    publish_rate: u32,
    stall: u64,
    /// How long a message of QoS 0 takes to other shards, at most.
    reach: u64,
    /// Wills of sessions that were to end with their connection when the broker died.
    orphans: Vec<session::Will>,
    will_expiry: BTreeMap<u32, Option<u32>>,
    /// What the auditor saw.
    pub audit: BTreeMap<String, u32>,
    pub wills: u64,
    pub owed: u64,
}

/// The number of a client.
fn client_number(id: &str) -> usize {
    id.get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(AUDITOR)
}

const AUDITOR: usize = 999;

impl Oracle {
    pub fn new(plan: &Plan) -> Oracle {
        Oracle {
            step: 0,
            steps: Vec::new(),
            messages: Messages::default(),
            links: BTreeMap::new(),
            sessions: Vec::new(),
            current: BTreeMap::new(),
            heard_of: BTreeMap::new(),
            groups: BTreeMap::new(),
            retained: Retained::default(),
            crashes: 0,
            crash_times: Vec::new(),
            crashed_at: 0,
            up: true,
            store_failed: false,
            jumps: Vec::new(),
            bounded: plan.bounded,
            was_short: false,
            drops: plan.drops(),
            keeps_all: plan.config.max_retained_messages == u64::MAX && plan.memory == u64::MAX,
            subscriptions_max: plan.config.max_subscriptions as usize,
            publish_rate: plan.config.max_publish_rate,
            stall: u64::from(plan.config.output_stall_s) * SECOND,
            reach: plan.peer + plan.turn,
            orphans: Vec::new(),
            will_expiry: BTreeMap::new(),
            audit: BTreeMap::new(),
            wills: 0,
            owed: 0,
        }
    }

    pub fn opened(&mut self, conn: usize, now: u64) {
        self.links.insert(conn, Link::new(now));
    }

    fn link(&mut self, conn: usize) -> &mut Link {
        match self.links.get_mut(&conn) {
            Some(link) => link,
            None => panic!("connection {conn} was not opened"),
        }
    }

    /// The broker reads a connection again.
    pub fn heard(&mut self, conn: usize, now: u64) {
        self.link(conn).heard_at = now;
    }

    pub fn blocked(&mut self, conn: usize) {
        let drops = self.drops;
        let link = self.link(conn);
        if link.blocked_since.is_none() {
            link.blocked_since = Some(0);
        }
        let index = link.session;
        if drops && let Some(session) = self.sessions.get_mut(index) {
            session.owed.retain(|_, on| *on != Some(conn));
        }
    }

    /// The broker took a packet of a client.
    pub fn up(&mut self, conn: usize, packet: &Packet, now: u64) {
        self.step += 1;
        let step = self.step;
        let link = self.link(conn);
        link.heard_at = now;
        if link.ended {
            return;
        }
        let (index, client) = (link.session, link.client);
        assert!(link.running || matches!(packet, Packet::Connect(_)), "the client speaks before its CONNACK");
        match packet {
            Packet::Connect(connect) => {
                link.client = client_number(&connect.client_id);
                link.connect = Some(connect.clone());
            }
            Packet::Publish(publish) => self.publish_up(conn, publish, now),
            Packet::PubAck(id, _) => {
                link.in_flight.remove(id);
                self.sessions[index].sent.remove(id);
            }
            Packet::PubRec(id, code) => {
                if *code >= 0x80 {
                    link.in_flight.remove(id);
                    self.sessions[index].sent.remove(id);
                } else if let Some(sent) = self.sessions[index].sent.get_mut(id) {
                    sent.released = true;
                }
            }
            Packet::PubComp(id, ..) => {
                link.in_flight.remove(id);
                self.sessions[index].sent.remove(id);
            }
            Packet::PubRel(id) => drop(self.sessions[index].incoming.remove(id)),
            Packet::Subscribe { id, subscription, filters } => {
                for (filter, _) in filters.iter().filter(|(_, options)| options & 3 == 0) {
                    // What is on its way from another shard may come by this one.
                    let messages = &self.messages;
                    let plain = topic::plain(filter);
                    let owed = &mut self.sessions[index].owed;
                    owed.retain(|number, _| !topic::matches(plain, &messages.get(*number).draft.topic));
                }
                let all = &mut self.sessions[index].subscriptions;
                let mut places = Vec::new();
                for (filter, options) in filters {
                    for old in all.iter_mut().filter(|old| old.filter == *filter && old.until == NEVER) {
                        old.certain_until = old.certain_until.min(step);
                    }
                    places.push(all.len());
                    all.push(Subscription::new(filter, *options, *subscription, step));
                }
                self.link(conn).subscribes.insert(*id, places);
            }
            Packet::Unsubscribe(id, filters) => {
                link.unsubscribes.insert(*id, (step, filters.clone()));
                self.unsubscribe(index, filters);
            }
            Packet::PingReq => link.pings += 1,
            Packet::Disconnect { code, expiry_s } => self.disconnected(conn, *code, *expiry_s, now),
            _ => panic!("client {client} says what only a broker says"),
        }
    }

    /// Whether a packet is why a broker whose store fails, or that has no memory left, has closed a connection: it cannot
    /// promise what it would have to, and has no words for that.
    pub fn ends_link(&self, conn: usize, packet: &Packet) -> bool {
        let Some(link) = self.links.get(&conn).filter(|link| link.running && !link.v5) else { return false };
        let session = &self.sessions[link.session];
        match packet {
            Packet::Publish(publish) if publish.qos > 0 => {
                !(publish.qos == 2 && session.incoming.contains_key(&publish.id))
            }
            Packet::Subscribe { .. } | Packet::Unsubscribe(..) => self.store_failed && session.expiry_s > 0,
            _ => false,
        }
    }

    fn unsubscribe(&mut self, index: usize, filters: &[String]) {
        let step = self.step;
        let session = &mut self.sessions[index];
        for filter in filters {
            for old in
                session.subscriptions.iter_mut().filter(|old| old.filter == *filter && old.until == NEVER)
            {
                old.until = step;
                old.certain_until = old.certain_until.min(step);
            }
            let plain = topic::plain(filter);
            let messages = &self.messages;
            session.owed.retain(|number, _| !topic::matches(plain, &messages.get(*number).draft.topic));
            session.owed_topics.retain(|topic| !topic::matches(plain, topic));
            session.owed_last.retain(|topic, _| !topic::matches(plain, topic));
            if let Some(group) = self.groups.get_mut(filter) {
                group.ended += 1;
                group.left_step = step;
                group.owed.clear();
            }
        }
    }

    fn publish_up(&mut self, conn: usize, publish: &Publish, now: u64) {
        let step = self.step;
        let (crashes, lands_at) = (self.crashes, now + self.reach);
        let link = self.link(conn);
        let topic = link.check_up(publish);
        let (index, client) = (link.session, link.client);
        let known = self.sessions[index].incoming.get(&publish.id).copied().filter(|_| publish.qos == 2);
        let number = match (super::actor::number_of(&publish.payload), known) {
            (Some(number), _) => number,
            (None, Some(number)) => number,
            (None, None) => {
                // Nothing tells one message without payload from another.
                let draft = Draft { topic: topic.clone(), qos: publish.qos, retain: publish.retain, size: 0 };
                self.messages.announce(client, draft, false)
            }
        };
        let rate = self.publish_rate;
        if rate > 0 {
            self.link(conn).check_rate(rate, now);
        }
        let keeps_all = self.keeps_all;
        let message = self.messages.get_mut(number);
        message.maybe |= publish.retain && !keeps_all;
        if message.draft.size > 0 {
            message.check(&Publish { topic: topic.clone(), ..publish.clone() });
        }
        message.transmissions += 1;
        message.last_step = step;
        message.last_answer = None;
        message.lands_at = Some(lands_at).filter(|_| publish.qos == 0);
        let mut routed = None;
        let handed = Handed { step, at: now, expiry_s: publish.expiry, session: index };
        if known == Some(number) {
            // [MQTT-4.3.3-10], unless it was refused, or is forgotten.
            if self.store_failed || self.was_short || self.sessions[index].crashed {
                message.handed.push(handed);
            }
        } else {
            assert!(known.is_none() || self.sessions[index].crashed, "the client uses a packet id twice");
            if message.handed.is_empty() {
                message.crashes = crashes;
            }
            message.handed.push(handed);
            routed = Some(step);
            if publish.retain {
                self.retained.write(&topic, number);
                let own = &mut self.sessions[index];
                if own.subscriptions.iter().any(|s| s.no_local && s.means(&topic)) {
                    // It overtakes what it replaces, on the way to its own publisher, and is not for that one.
                    own.forgive_topic(&topic);
                }
                let ends = publish.payload.is_empty() || publish.expiry.is_some();
                for session in &mut self.sessions {
                    if ends || session.max_packet < (publish.payload.len() + debt::OVERHEAD) as u32 {
                        session.forgive_topic(&topic);
                    }
                }
            }
            if publish.qos == 2 {
                self.sessions[index].incoming.insert(publish.id, number);
            }
        }
        if publish.qos > 0 {
            let waiting = Waiting { qos: publish.qos, id: publish.id, number, routed };
            self.link(conn).waiting.push_back(waiting);
        } else {
            self.owe_now(number);
        }
    }

    /// The broker says something to a client.
    pub fn down(&mut self, conn: usize, packet: &Packet, now: u64) {
        self.step += 1;
        let step = self.step;
        let link = self.link(conn);
        let index = link.session;
        // [MQTT-3.2.0-1]
        assert!(link.running || matches!(packet, Packet::ConnAck(_)), "the broker speaks before its CONNACK");
        match packet {
            // [MQTT-3.2.0-2]
            Packet::ConnAck(_) if link.running => panic!("a second CONNACK"),
            Packet::ConnAck(connack) if connack.code != 0 => {
                link.ended = true;
                link.may_close = Some("refused");
                let short = self.was_short && matches!(connack.code, 3 | 0x97);
                assert!(self.store_failed || short, "a CONNECT is refused: {:#x}", connack.code);
            }
            Packet::ConnAck(connack) => self.accepted(conn, connack, now),
            Packet::Publish(publish) => self.publish_down(conn, publish, now),
            Packet::PubAck(id, code) => {
                link.from_client.remove(id);
                let waiting = link.answered(1, *id);
                self.answered(index, waiting, *code, now);
            }
            Packet::PubRec(id, code) => {
                if *code >= 0x80 {
                    link.from_client.remove(id);
                }
                let waiting = link.answered(2, *id);
                self.answered(index, waiting, *code, now);
            }
            Packet::PubComp(id, ..) => drop(link.from_client.remove(id)),
            Packet::PubRel(id) => {
                let link_ended = link.ended;
                // [MQTT-4.3.3-4]
                let sent = self.sessions[index].sent.get(id);
                let session = &self.sessions[index];
                let fine = sent.is_some_and(|s| s.released || s.loose) || session.crashed || link_ended;
                assert!(fine || sent.is_none(), "PUBREL {id} before its PUBREC");
            }
            Packet::SubAck(id, codes) => self.subscribed(conn, *id, codes, now),
            Packet::UnsubAck(id, codes) => {
                let asked = link.unsubscribes.remove(id);
                let Some((asked, filters)) = asked else { panic!("UNSUBACK {id} to nothing") };
                assert!(!link.v5 || codes.len() == filters.len(), "UNSUBACK {id} has {} codes", codes.len());
                for (filter, _) in filters.iter().zip(codes).filter(|(_, code)| **code >= 0x80) {
                    assert!(self.store_failed, "an UNSUBSCRIBE is refused");
                    let all = self.sessions[index].subscriptions.iter_mut();
                    // It stands, though what was owed by it is forgiven.
                    all.filter(|s| s.filter == *filter && s.until == asked).for_each(|s| s.until = NEVER);
                }
            }
            Packet::PingResp => {
                assert!(link.pings > 0, "a PINGRESP that nobody asked for");
                link.pings -= 1;
            }
            Packet::Disconnect { code, .. } => {
                assert!(link.v5, "a DISCONNECT before 5.0");
                let late = link.heard_at + u64::from(link.keep_alive_s) * 1_500_000 <= now;
                match code {
                    0x8E => assert_eq!(link.may_close, Some("taken over"), "nobody took it over"),
                    0x8D => {
                        assert!(late && link.keep_alive_s > 0, "keep alive is not over");
                        link.may_close = Some("keep alive");
                    }
                    0x97 => {
                        assert!(link.blocked_since.is_some(), "it takes all output");
                        link.may_close = Some("takes no output");
                    }
                    0x88 => {
                        assert!(self.store_failed, "the store works");
                        self.link(conn).may_close = Some("the store fails");
                    }
                    code => panic!("an unexpected DISCONNECT {code:#x}"),
                }
            }
            _ => panic!("the broker says what only a client says at step {step}"),
        }
    }

    /// A PUBLISH is answered: promised, or refused.
    fn answered(&mut self, index: usize, waiting: Waiting, code: u8, now: u64) {
        let Waiting { number, routed, qos, id } = waiting;
        let step = self.step;
        if code >= 0x80 {
            let short = self.was_short && code == 0x97;
            assert!(self.store_failed || short, "message {number} is refused: {code:#x}");
            let message = self.messages.get_mut(number);
            if let Some(step) = routed {
                message.handed.retain(|handed| handed.step != step);
            }
            if message.handed.is_empty() {
                let topic = message.draft.topic.clone();
                self.retained.unwrite(&topic, number);
            }
            if qos == 2 {
                self.sessions[index].incoming.remove(&id);
            }
            return;
        }
        let message = self.messages.get_mut(number);
        let first = message.promised.is_none();
        message.promised.get_or_insert(step);
        message.last_answer = Some(step);
        let since = if qos == 1 { routed } else { message.first_step() };
        if first && let Some(since) = since {
            self.owe_last(number);
            self.owe(number, since, now);
        }
    }

    fn subscribed(&mut self, conn: usize, id: u16, codes: &[u8], now: u64) {
        let step = self.step;
        let link = self.link(conn);
        let (index, ended) = (link.session, link.ended);
        let max_packet = link.max_packet;
        let Some(places) = link.subscribes.remove(&id) else { panic!("SUBACK {id} to nothing") };
        // [MQTT-3.8.4-6]
        assert_eq!(codes.len(), places.len(), "SUBACK {id} has not one code for each filter");
        for (place, code) in places.into_iter().zip(codes) {
            let session = &mut self.sessions[index];
            let full = session.filters_beside(place) >= self.subscriptions_max;
            let subscription = &mut session.subscriptions[place];
            if *code >= 0x80 {
                let full = matches!(*code, 0x80 | 0x97) && (self.was_short || full);
                assert!(self.store_failed || full, "a subscription is refused: {code:#x}");
                subscription.until = subscription.from;
                continue;
            }
            // [MQTT-3.8.4-7]
            assert_eq!(*code, subscription.qos, "another QoS is granted");
            let (filter, from, handling) =
                (subscription.filter.clone(), subscription.from, subscription.handling);
            if subscription.until == NEVER && !ended {
                subscription.certain_from = step;
                subscription.certain_at = now;
            }
            let shared = subscription.is_shared();
            let ended = ended || subscription.until != NEVER;
            let certain = session.filters_certain();
            assert!(certain <= self.subscriptions_max, "{certain} subscriptions are too many");
            let mut replaced = false;
            for old in &mut session.subscriptions[..place] {
                if old.filter == filter && old.until > from {
                    replaced = true;
                    old.until = from;
                    old.certain_until = old.certain_until.min(from);
                }
            }
            if shared {
                self.groups.entry(filter).or_default();
            } else if !ended && (handling == 0 || handling == 1 && !replaced) {
                self.owe_retained(index, &filter, from, max_packet);
            }
        }
    }

    /// Looks at what should have happened by now.
    pub fn tick(&mut self, now: u64, broker: &Broker, conns: &[Conn]) {
        self.steps.push((now, self.step));
        if !broker.is_up() || now < self.crashed_at + GRACE {
            return;
        }
        for (conn, link) in &self.links {
            let it = &conns[*conn];
            if !link.running || link.ended || it.door != Door::Open || it.paused || link.keep_alive_s == 0 {
                continue;
            }
            // [MQTT-3.1.2-22]
            let deadline = link.heard_at + u64::from(link.keep_alive_s) * 1_500_000 + GRACE;
            assert!(now <= deadline, "client {} is silent and was not closed", link.client);
        }
        self.links.retain(|conn, link| !link.ended || conns[*conn].client_has_it);
        self.age(now);
    }

    /// The client's application is told whether it has a session.
    pub fn client_connected(&mut self, conn: Option<usize>, present: bool) {
        let Some(conn) = conn else { panic!("connected without a connection") };
        let link = self.link(conn);
        let (index, client) = (link.session, link.client);
        let known = self.heard_of.insert(client, index);
        if present && known.is_some_and(|known| known != index) {
            let session = &mut self.sessions[index];
            session.mistaken = true;
            session.owed.clear();
            self.groups.values_mut().for_each(|group| group.owed.clear());
        }
    }

    /// A step that was at a moment, or a little before.
    fn step_at(&self, at: u64) -> u64 {
        self.steps.iter().rev().find(|(known, _)| *known <= at).map_or(0, |(_, step)| *step)
    }

    /// How many members of shared subscriptions are gone, or may be.
    fn gone(&self, group: &Group, filter: &str, now: u64) -> u32 {
        let may_be = self.current.values().filter(|&&index| {
            let session = &self.sessions[index];
            session.may_be_over(now) && session.subscriptions.iter().any(|s| s.filter == filter)
        });
        group.ended + may_be.count() as u32
    }

    fn explain(&self, index: usize, what: &str) -> String {
        let session = &self.sessions[index];
        let subscriptions: Vec<String> = session.subscriptions.iter().map(|s| format!("\n  {s:?}")).collect();
        format!("client {}: {what}; step {}{}", session.client, self.step, subscriptions.concat())
    }
}
