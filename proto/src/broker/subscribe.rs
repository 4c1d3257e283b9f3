//! SUBSCRIBE and UNSUBSCRIBE. A SUBACK leaves when a message published anywhere from then on will be
//! delivered: at once with one shard, otherwise when every peer has acknowledged the new interest. That of a session that
//! is kept also waits for its own records; nobody's waits for what others keep.

use super::conn::{Flow, Pause};
use super::denial::Denial;
use super::interest::Change;
use super::io::ConnId;
use super::peer::{PeerMessage, ReplayKey};
use super::publish::{Subscription, session_subscriber};
use super::session::Session;
use super::store::StoredSubscription;
use super::sys::Refused;
use super::{FILTER_EFFORT, Shard};
use crate::codec::{
    Packet, Properties, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions, UnsubAck,
    Unsubscribe,
};
use crate::topic::{TopicError, TopicFilter, separators};
use alloc::vec::Vec;
use log::debug;

/// How many SUBACKs of one connection may wait before it is not read.
const WAITING_MAX: u16 = 64;
/// How many replays of one session may wait for its client before that is not read.
pub(super) const REPLAYS_MAX: usize = 1024;

/// A SUBACK that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The gate whose interest all peers must have heard of.
    gate: u64,
    /// The change that must be stored.
    record: u64,
    /// How many owners of shared subscriptions have not answered.
    joins: u32,
    conn: ConnId,
    packet_id: u16,
    codes: Vec<u8>,
    /// Replays to start.
    replays: Vec<ReplayKey>,
}

impl Shard {
    pub(super) fn on_subscribe(&mut self, id: ConnId, subscribe: &Subscribe<'_>) -> Flow {
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        let (index, v5) = (conn.session, conn.link.version.is_v5());
        let mount = conn.mount.clone();
        let subscription_id = subscribe.properties.subscription_identifiers().next().unwrap_or(0);
        let listener = conn.listener;
        let max_qos = self.config.limits(listener).max_qos;
        let mut waiting = Waiting {
            gate: 0,
            record: 0,
            joins: 0,
            conn: id,
            packet_id: subscribe.packet_id,
            codes: Vec::with_capacity(subscribe.len()),
            replays: Vec::new(),
        };
        // All filters are checked before the first is applied.
        for (filter, options) in subscribe.filters() {
            let filter = match TopicFilter::parse(filter) {
                Ok(filter) => filter,
                // A wrong share name is an error of the protocol [MQTT-4.8.2-1] [MQTT-4.8.2-2].
                Err(_) if v5 && filter.starts_with("$share/") => {
                    return self.fail(
                        id,
                        ReasonCode::ProtocolError,
                        "the shared subscription is not well-formed",
                    );
                }
                Err(error) => return self.bad_filter(id, v5, error),
            };
            let mounted = mount.filter(&filter);
            let filter = match TopicFilter::parse(&mounted) {
                Ok(filter) => filter,
                Err(error) => return self.bad_filter(id, v5, error),
            };
            if separators(filter.as_str()) > usize::from(self.config.max_topic_separators) {
                let what = "the topic filter has more levels than 'max_topic_separators' allows";
                return self.fail_for_limit(id, ReasonCode::MalformedPacket, what);
            }
            // [MQTT-3.8.3-4]
            if options.no_local && filter.share().is_some() {
                return self.fail(id, ReasonCode::ProtocolError, "No Local on a shared subscription");
            }
        }
        if self.store_refuses(index) && !v5 {
            return self.fail(id, ReasonCode::ServerUnavailable, "the store fails");
        }
        let emitted = self.keeper.emitted();
        let ticket = self.waiting.insert(Waiting { codes: Vec::new(), replays: Vec::new(), ..waiting });
        self.effort += subscribe.len() * FILTER_EFFORT;
        // [MQTT-3.8.4-5]: one after the other, with one code each [MQTT-3.8.4-6] in one SUBACK.
        for (filter, mut options) in subscribe.filters() {
            options.qos = options.qos.min(max_qos); // [MQTT-3.2.2-10]
            let Ok(filter) = TopicFilter::parse(filter) else { continue };
            let mounted = mount.filter(&filter);
            let Ok(filter) = TopicFilter::parse(&mounted) else { continue };
            let code = match self.refusal(index, &filter) {
                Some(reason) if v5 => reason as u8,
                Some(_) => 0x80,
                None => {
                    self.apply(index, filter, options, subscription_id, ticket, &mut waiting);
                    options.qos as u8 // [MQTT-3.8.4-7]
                }
            };
            waiting.codes.push(code);
        }
        // Another subscriber may have told of the same pattern a moment ago: not all may know yet.
        waiting.gate = self.interest_gate;
        if self.keeper.emitted() > emitted {
            waiting.record = self.keeper.emitted();
        }
        if self.may_leave(&waiting) {
            self.waiting.remove(ticket);
            self.finish_subscribe(waiting);
            return self.after_subscribe(id, index);
        }
        if waiting.gate > self.heard {
            self.waiting_gates.push_back((waiting.gate, ticket));
        }
        if waiting.record > self.keeper.stored() {
            self.waiting_records.push_back((waiting.record, ticket));
        }
        self.waiting[ticket] = waiting;
        if let Some(conn) = self.conn(id) {
            conn.waiting += 1;
            if conn.waiting >= WAITING_MAX {
                self.pause(id, Pause::Subscribes);
                return Flow::Pause;
            }
        }
        Flow::Continue
    }

    /// A client that asks for more than it takes is not read until it has taken some.
    fn after_subscribe(&mut self, id: ConnId, index: u32) -> Flow {
        if self.conn(id).is_none() {
            return Flow::Closed;
        }
        if self.sessions.get(index).is_some_and(|s| s.replays.len() >= REPLAYS_MAX) {
            self.pause(id, Pause::Replays);
            return Flow::Pause;
        }
        self.after_answer(id)
    }

    /// Whether a change of the subscriptions of a session would have to be kept and cannot be.
    fn store_refuses(&self, index: u32) -> bool {
        self.keeper.failed && self.sessions.get(index).is_some_and(Session::is_kept)
    }

    fn bad_filter(&mut self, id: ConnId, v5: bool, error: TopicError) -> Flow {
        debug!("A topic filter on connection {} is not one: {error}.", id.index);
        let reason = if v5 { ReasonCode::TopicFilterInvalid } else { ReasonCode::MalformedPacket };
        self.fail(id, reason, "the topic filter is not well-formed")
    }

    fn refusal(&mut self, index: u32, filter: &TopicFilter<'_>) -> Option<ReasonCode> {
        let session = &self.sessions[index];
        if !self.config.rights(session.listener).may_subscribe(session.subject(), filter.filter()) {
            self.log_session_denial(Denial::Subscribe, index, filter.filter());
            return Some(ReasonCode::NotAuthorized);
        }
        if self.store_refuses(index) {
            return Some(ReasonCode::ImplementationSpecificError);
        }
        let session = &self.sessions[index];
        let subscriber = session_subscriber(index);
        let known = match filter.share() {
            Some(_) => session.shares.contains_key(filter.as_str()),
            None => self.subscriptions.get(filter.filter(), subscriber).is_some(),
        };
        if known {
            return None; // It takes the place of the one there is.
        }
        let count = self.subscriptions.count_of(subscriber) + session.shares.len();
        if count >= self.config.max_subscriptions as usize {
            self.counters.refuse(Refused::Subscription);
            let what = "a subscription is refused, it has as many as 'max_subscriptions' allows";
            self.log_limit(Denial::Subscribe, index, what);
            return Some(ReasonCode::QuotaExceeded);
        }
        if self.is_short_of_memory() {
            self.counters.refuse(Refused::Subscription);
            self.log_limit(Denial::Memory, index, "a subscription is refused, memory is short");
            return Some(ReasonCode::QuotaExceeded);
        }
        None
    }

    /// Makes one subscription.
    fn apply(
        &mut self,
        index: u32,
        filter: TopicFilter<'_>,
        options: SubscribeOptions,
        id: u32,
        ticket: u32,
        waiting: &mut Waiting,
    ) {
        debug!(
            "{} subscribes to {} (QoS {}).",
            self.sessions[index].client_id.escape_debug(),
            filter.as_str().escape_debug(),
            options.qos as u8
        );
        if filter.share().is_some() {
            if self.join_share(index, filter.as_str(), options.qos, id, ticket) {
                waiting.joins += 1;
            }
            return; // No retained messages are sent.
        }
        let value = Subscription::new(options, id);
        let stored = StoredSubscription { options, id, share: 0 };
        self.keep_subscription(index, filter.filter(), stored);
        let replaced = self.insert_subscription(index, filter.filter(), value);
        if replaced {
            self.change_replays_of(index, filter.filter(), value);
        }
        let replay = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true, // [MQTT-3.3.1-9] [MQTT-3.8.4-4]
            RetainHandling::SendIfNew => !replaced,  // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false,      // [MQTT-3.3.1-11]
        };
        if replay {
            waiting.replays.push(self.create_replay(index, filter.filter(), value));
        }
    }

    /// Puts a subscription in place of the session's own with the same filter, if there is one, and says whether there
    /// was [MQTT-3.8.4-3].
    pub(super) fn insert_subscription(&mut self, index: u32, filter: &str, value: Subscription) -> bool {
        let replaced = self.subscriptions.insert(filter, session_subscriber(index), value).is_some();
        if !replaced {
            for change in self.interest.count(filter, true).into_iter().flatten() {
                self.announce(change);
            }
        }
        replaced
    }

    /// Tells all other shards of a change of interest.
    pub(super) fn announce(&mut self, change: Change) {
        if self.shards == 1 {
            return;
        }
        if matches!(change, Change::Pattern { add: true, .. } | Change::All(true)) {
            self.interest_gate = self.gate();
        }
        self.send_to_all_peers(&match change {
            Change::Pattern { add, pattern } => {
                PeerMessage::Interest { add, shape: pattern.shape, key: pattern.key }
            }
            Change::All(all) => PeerMessage::InterestInAll(all),
        });
    }

    /// Peers have heard more, or more is stored: some SUBACKs may leave.
    pub(super) fn release_subscribes(&mut self) {
        while let Some(&(gate, ticket)) = self.waiting_gates.front()
            && gate <= self.heard
        {
            self.waiting_gates.pop_front();
            self.check_waiting(ticket);
        }
        while let Some(&(record, ticket)) = self.waiting_records.front()
            && record <= self.keeper.stored()
        {
            self.waiting_records.pop_front();
            self.check_waiting(ticket);
        }
    }

    fn may_leave(&self, waiting: &Waiting) -> bool {
        waiting.joins == 0 && waiting.gate <= self.heard && waiting.record <= self.keeper.stored()
    }

    /// The owner of a shared subscription has told everyone.
    pub(super) fn on_share_joined(&mut self, ticket: u32) {
        if let Some(waiting) = self.waiting.get_mut(ticket) {
            waiting.joins = waiting.joins.saturating_sub(1);
            self.check_waiting(ticket);
        }
    }

    fn check_waiting(&mut self, ticket: u32) {
        if !self.waiting.get(ticket).is_some_and(|w| self.may_leave(w)) {
            return;
        }
        let Some(waiting) = self.waiting.remove(ticket) else { return };
        let id = waiting.conn;
        self.finish_subscribe(waiting);
        if let Some(conn) = self.conn(id) {
            conn.waiting -= 1;
            if conn.waiting < WAITING_MAX / 2 {
                self.resume(id, Pause::Subscribes);
            }
        }
    }

    fn finish_subscribe(&mut self, waiting: Waiting) {
        let id = waiting.conn;
        if self.conn(id).is_some() {
            // [MQTT-3.8.4-1] [MQTT-3.8.4-2]
            let (packet_id, properties) = (waiting.packet_id, Properties::default());
            if !self.put(id, &Packet::SubAck(SubAck { packet_id, properties, codes: &waiting.codes })) {
                self.fail(id, ReasonCode::PacketTooLarge, "the SUBACK is larger than the client takes");
            }
        }
        for replay in waiting.replays {
            self.start_replay(replay);
        }
    }

    pub(super) fn on_unsubscribe(&mut self, id: ConnId, unsubscribe: &Unsubscribe<'_>) -> Flow {
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        let (index, v5) = (conn.session, conn.link.version.is_v5());
        let mount = conn.mount.clone();
        let refused = self.store_refuses(index);
        if refused && !v5 {
            return self.fail(id, ReasonCode::ServerUnavailable, "the store fails");
        }
        let emitted = self.keeper.emitted();
        let mut codes = Vec::with_capacity(unsubscribe.len());
        self.effort += unsubscribe.len() * FILTER_EFFORT;
        for filter in unsubscribe.filters() {
            let filter = match TopicFilter::parse(filter) {
                Ok(filter) => filter,
                Err(error) => return self.bad_filter(id, v5, error),
            };
            let mounted = mount.filter(&filter);
            let filter = match TopicFilter::parse(&mounted) {
                Ok(filter) => filter,
                Err(error) => return self.bad_filter(id, v5, error),
            };
            if refused {
                codes.push(ReasonCode::ImplementationSpecificError as u8);
                continue;
            }
            let existed = if filter.share().is_some() {
                self.unjoin_share(index, filter.as_str())
            } else {
                // [MQTT-3.10.4-1]
                let existed = self.subscriptions.remove(filter.filter(), session_subscriber(index)).is_some();
                if existed {
                    self.keep_unsubscription(index, filter.filter());
                    self.end_replays_of(index, filter.filter());
                    for change in self.interest.count(filter.filter(), false).into_iter().flatten() {
                        self.announce(change);
                    }
                }
                existed
            };
            let code = if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            codes.push(code as u8);
        }
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5]
        let unsuback =
            UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::default(), codes: &codes };
        if !self.put(id, &Packet::UnsubAck(unsuback)) {
            return self.fail(id, ReasonCode::PacketTooLarge, "the UNSUBACK is larger than the client takes");
        }
        match self.hold(id, emitted) {
            Flow::Continue => self.after_answer(id),
            flow => flow,
        }
    }
}
