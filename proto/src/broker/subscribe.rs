//! SUBSCRIBE and UNSUBSCRIBE. A SUBACK leaves when a message published anywhere from then on will be
//! delivered: at once with one shard, otherwise when every peer has acknowledged the new interest.

use super::Shard;
use super::conn::Flow;
use super::denial::Denial;
use super::interest::Change;
use super::io::ConnId;
use super::peer::{PeerMessage, ReplayKey, SessionKey};
use super::publish::{Subscription, session_subscriber};
use crate::codec::{
    Packet, Properties, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions, UnsubAck,
    Unsubscribe,
};
use crate::topic::{TopicError, TopicFilter, separators};
use alloc::boxed::Box;
use alloc::vec::Vec;
use log::debug;

/// A SUBACK that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The gate that must have opened.
    gate: u64,
    /// The shared subscriptions whose owners have not answered.
    joins: Vec<Box<str>>,
    session: SessionKey,
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
            joins: Vec::new(),
            session: self.sessions[index].key(index),
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
                return self.fail(id, ReasonCode::TopicFilterInvalid, "the topic filter has too many levels");
            }
            // [MQTT-3.8.3-4]
            if options.no_local && filter.share().is_some() {
                return self.fail(id, ReasonCode::ProtocolError, "No Local on a shared subscription");
            }
        }
        for (filter, mut options) in subscribe.filters() {
            options.qos = options.qos.min(max_qos);
            let Ok(filter) = TopicFilter::parse(filter) else { continue };
            let mounted = mount.filter(&filter);
            let Ok(filter) = TopicFilter::parse(&mounted) else { continue };
            let code = match self.refusal(index, &filter) {
                Some(reason) if v5 => reason as u8,
                Some(_) => 0x80,
                None => {
                    self.apply(index, filter, options, subscription_id, v5, &mut waiting);
                    options.qos as u8
                }
            };
            waiting.codes.push(code);
        }
        // Another subscriber may have told of the same pattern a moment ago: not all may know yet.
        waiting.gate = self.interest_gate;
        if self.is_ready(&waiting) {
            self.finish_subscribe(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        self.after_answer(id)
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
        let count = self.subscriptions.count_of(session_subscriber(index)) + session.shares.len();
        (count >= self.config.max_subscriptions as usize).then_some(ReasonCode::QuotaExceeded)
    }

    /// Makes one subscription.
    fn apply(
        &mut self,
        index: u32,
        filter: TopicFilter<'_>,
        options: SubscribeOptions,
        id: u32,
        v5: bool,
        waiting: &mut Waiting,
    ) {
        debug!(
            "{} subscribes to {} (QoS {}).",
            self.sessions[index].client_id.escape_debug(),
            filter.as_str().escape_debug(),
            options.qos as u8
        );
        if filter.share().is_some() {
            if self.join_share(index, filter.as_str(), options.qos, id) {
                waiting.joins.push(filter.as_str().into());
            }
            return; // No retained messages are sent.
        }
        let value = Subscription {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
        };
        let replaced = self.subscriptions.insert(filter.filter(), session_subscriber(index), value).is_some();
        if !replaced {
            for change in self.interest.count(filter.filter(), true).into_iter().flatten() {
                self.announce(change);
            }
        }
        let replay = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => !replaced,
            RetainHandling::DoNotSend => false,
        };
        if replay || !v5 {
            waiting.replays.push(self.create_replay(index, filter.filter(), value));
        }
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

    fn is_ready(&self, waiting: &Waiting) -> bool {
        waiting.joins.is_empty() && waiting.gate <= self.opened
    }

    /// Gates opened: some SUBACKs may leave.
    pub(super) fn release_subscribes(&mut self) {
        let mut at = 0;
        while let Some(waiting) = self.waiting.get(at) {
            if !self.is_ready(waiting) {
                at += 1;
                continue;
            }
            if let Some(waiting) = self.waiting.remove(at) {
                self.finish_subscribe(waiting);
            }
        }
    }

    /// The owner of a shared subscription has told everyone.
    pub(super) fn on_share_joined(&mut self, member: SessionKey, filter: &str) {
        let mut waiting = self.waiting.iter_mut().filter(|w| w.session == member);
        if let Some((waiting, at)) =
            waiting.find_map(|w| w.joins.iter().position(|f| **f == *filter).map(|at| (w, at)))
        {
            waiting.joins.remove(at);
            self.release_subscribes();
        }
    }

    fn finish_subscribe(&mut self, waiting: Waiting) {
        if self.conn(waiting.conn).is_some() {
            // [MQTT-3.8.4-1]
            self.put(
                waiting.conn,
                &Packet::SubAck(SubAck {
                    packet_id: waiting.packet_id,
                    properties: Properties::default(),
                    codes: &waiting.codes,
                }),
            );
        }
        for replay in waiting.replays {
            self.start_replay(replay);
        }
    }

    pub(super) fn on_unsubscribe(&mut self, id: ConnId, unsubscribe: &Unsubscribe<'_>) -> Flow {
        let Some(conn) = self.conn(id) else { return Flow::Closed };
        let (index, v5) = (conn.session, conn.link.version.is_v5());
        let mount = conn.mount.clone();
        let mut codes = Vec::with_capacity(unsubscribe.len());
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
            let existed = if filter.share().is_some() {
                self.unjoin_share(index, filter.as_str())
            } else {
                // [MQTT-3.10.4-1]
                let existed = self.subscriptions.remove(filter.filter(), session_subscriber(index)).is_some();
                if existed {
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
        let unsuback =
            UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::default(), codes: &codes };
        self.put(id, &Packet::UnsubAck(unsuback));
        self.after_answer(id)
    }
}
