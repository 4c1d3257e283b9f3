//! Shared subscriptions: one shard owns each, knows its members wherever they live, and chooses.

use super::Shard;
use super::denial::Denial;
use super::io::ShardId;
use super::peer::{PeerMessage, SessionKey};
use super::publish::{Qos0, Subscription, group_subscriber};
use super::store::StoredSubscription;
use crate::codec::{QoS, SubscribeOptions};
use crate::message::Message;
use crate::session::{Delivery, SubscriptionIds};
use crate::table::Slab;
use crate::topic::TopicFilter;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// A member, as the owner knows it.
#[derive(Debug)]
struct Member {
    shard: ShardId,
    key: SessionKey,
    connected: bool,
    /// Whether its session is kept.
    kept: bool,
}

#[derive(Debug)]
struct Group {
    /// The whole filter, `$share/…`.
    filter: Box<str>,
    members: Vec<Member>,
    /// Whose turn it is.
    next: usize,
}

/// The shared subscriptions this shard owns.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Slab<Group>,
    by_filter: BTreeMap<Box<str>, u32>,
    /// Joins to be confirmed when all have heard of them, in the order of their gates.
    joining: VecDeque<(u64, ShardId, u32)>,
}

/// A shared subscription, as its member's session knows it.
#[derive(Debug)]
pub(super) struct Membership {
    /// What deliveries through it are marked with.
    pub number: u32,
    qos: QoS,
    id: u32,
}

impl Groups {
    /// The whole filter of a group.
    pub(super) fn filter(&self, at: u32) -> Option<&str> {
        self.groups.get(at).map(|g| &*g.filter)
    }
}

impl Shard {
    /// Sends a message to the owner of a shared subscription, which may be this shard.
    pub(super) fn send_to_share_owner(&mut self, filter: &str, message: PeerMessage) {
        let owner = self.placement.shard(filter.as_bytes());
        if owner == self.id {
            self.on_share_message(owner, message);
        } else {
            self.send_to_peer(owner, message);
        }
    }

    /// What an owner is told by a member's shard.
    pub(super) fn on_share_message(&mut self, from: ShardId, message: PeerMessage) {
        match message {
            PeerMessage::ShareJoin { filter, member: key, connected, kept, ticket } => {
                self.on_share_join(from, &filter, Member { shard: from, key, connected, kept }, ticket);
            }
            PeerMessage::ShareLeave { filter, member } => self.on_share_leave(from, &filter, member),
            PeerMessage::ShareMember { filter, member, connected } => {
                if let Some(group) = self.groups.by_filter.get(&filter).copied()
                    && let Some(group) = self.groups.groups.get_mut(group)
                    && let Some(known) = group.members.iter_mut().find(|m| m.shard == from && m.key == member)
                {
                    known.connected = connected;
                }
            }
            PeerMessage::ShareReturn { filter, message } => {
                if let Some(group) = self.groups.by_filter.get(&filter).copied() {
                    self.deliver_to_group(group, &message);
                }
            }
            _ => {}
        }
    }

    /// A session subscribes. True if the owner will answer with [`PeerMessage::ShareJoined`] and this ticket.
    pub(super) fn join_share(&mut self, index: u32, filter: &str, qos: QoS, id: u32, ticket: u32) -> bool {
        let session = &mut self.sessions[index];
        let key = session.key(index);
        match session.shares.get_mut(filter) {
            Some(known) => (known.qos, known.id) = (qos, id),
            None => {
                session.last_share += 1;
                let number = session.last_share;
                session.shares.insert(filter.into(), Membership { number, qos, id });
                self.counters.shared_subscriptions += 1;
            }
        }
        let share = self.sessions[index].shares[filter].number;
        self.keep_subscription(
            index,
            filter,
            StoredSubscription { options: SubscribeOptions::new(qos), id, share },
        );
        let (connected, kept) = (true, self.sessions[index].kept.is_some());
        let join = PeerMessage::ShareJoin { filter: filter.into(), member: key, connected, kept, ticket };
        self.send_to_share_owner(filter, join);
        self.placement.shard(filter.as_bytes()) != self.id
    }

    /// A session is a member again, after a restart; its client is not connected.
    pub(super) fn rejoin_share(&mut self, index: u32, filter: &str, qos: QoS, id: u32, number: u32) {
        let session = &mut self.sessions[index];
        session.last_share = session.last_share.max(number);
        let member = session.key(index);
        session.shares.insert(filter.into(), Membership { number, qos, id });
        self.counters.shared_subscriptions += 1;
        if session.expiry_s == 0 {
            // It ends in a moment and keeps nothing: what it were given would be lost with the next crash.
            return;
        }
        // Nobody waits for the answer.
        let ticket = u32::MAX;
        let (connected, kept) = (false, true);
        let join = PeerMessage::ShareJoin { filter: filter.into(), member, connected, kept, ticket };
        self.send_to_share_owner(filter, join);
    }

    /// A session unsubscribes: whether it was a member.
    pub(super) fn unjoin_share(&mut self, index: u32, filter: &str) -> bool {
        let session = &mut self.sessions[index];
        let key = session.key(index);
        if session.shares.remove(filter).is_none() {
            return false;
        }
        self.keep_unsubscription(index, filter);
        self.leave_share(filter, key);
        true
    }

    pub(super) fn leave_share(&mut self, filter: &str, member: SessionKey) {
        self.counters.shared_subscriptions -= 1;
        self.send_to_share_owner(filter, PeerMessage::ShareLeave { filter: filter.into(), member });
    }

    /// A session was connected or lost its connection.
    pub(super) fn tell_share_owners(&mut self, index: u32, connected: bool) {
        let Some(session) = self.sessions.get(index) else { return };
        if session.shares.is_empty() {
            return;
        }
        let member = session.key(index);
        let filters: Vec<Box<str>> = session.shares.keys().cloned().collect();
        for filter in filters {
            self.send_to_share_owner(&filter.clone(), PeerMessage::ShareMember { filter, member, connected });
        }
    }

    fn on_share_join(&mut self, from: ShardId, filter: &str, member: Member, ticket: u32) {
        let key = member.key;
        let known = self.groups.by_filter.get(filter).copied();
        let group = known.unwrap_or_else(|| {
            let group = Group { filter: filter.into(), members: Vec::new(), next: 0 };
            let group = self.groups.groups.insert(group);
            self.groups.by_filter.insert(filter.into(), group);
            group
        });
        let members = &mut self.groups.groups[group].members;
        match members.iter_mut().find(|m| m.shard == from && m.key == key) {
            Some(known) => *known = member,
            None => members.push(member),
        }
        if known.is_none()
            && let Ok(parsed) = TopicFilter::parse(filter)
        {
            let any =
                Subscription { qos: QoS::ExactlyOnce, no_local: false, retain_as_published: false, id: 0 };
            self.subscriptions.insert(parsed.filter(), group_subscriber(group), any);
            for change in self.interest.count(parsed.filter(), true).into_iter().flatten() {
                self.announce(change);
            }
        }
        if self.shards == 1 {
            return;
        }
        // All shards must know before the member is told; a gate covers what was just announced.
        let gate = self.gate();
        if from != self.id {
            self.groups.joining.push_back((gate, from, ticket));
        }
    }

    /// All have heard more: members may be told.
    pub(super) fn release_joins(&mut self) {
        while let Some(&(gate, to, ticket)) = self.groups.joining.front()
            && gate <= self.heard
        {
            self.groups.joining.pop_front();
            self.send_to_peer(to, PeerMessage::ShareJoined { ticket });
        }
    }

    fn on_share_leave(&mut self, from: ShardId, filter: &str, member: SessionKey) {
        let Some(at) = self.groups.by_filter.get(filter).copied() else { return };
        let group = &mut self.groups.groups[at];
        group.members.retain(|m| m.shard != from || m.key != member);
        if !group.members.is_empty() {
            return;
        }
        self.groups.groups.remove(at);
        self.groups.by_filter.remove(filter);
        if let Ok(parsed) = TopicFilter::parse(filter) {
            self.subscriptions.remove(parsed.filter(), group_subscriber(at));
            for change in self.interest.count(parsed.filter(), false).into_iter().flatten() {
                self.announce(change);
            }
        }
    }

    /// Gives a message to one member: connected ones in turn, one that is away only if none is
    /// connected.
    pub(super) fn deliver_to_group(&mut self, at: u32, message: &Message) {
        let Some(group) = self.groups.groups.get_mut(at) else { return };
        let count = group.members.len();
        let turn = |connected: bool| {
            (0..count).map(|i| (group.next + i) % count).find(|&i| group.members[i].connected == connected)
        };
        let Some(chosen) = turn(true).or_else(|| turn(false)) else { return };
        group.next = (chosen + 1) % count;
        let member = &group.members[chosen];
        let (shard, key) = (member.shard, member.key);
        if shard != self.id {
            let (filter, kept) = (group.filter.clone(), member.kept);
            let sent =
                PeerMessage::ShareDeliver { filter: filter.clone(), member: key, message: message.clone() };
            return match kept {
                true => self.send_once(shard, sent, message, Some(&filter)),
                false => self.send_to_peer(shard, sent),
            };
        }
        let filter = core::mem::take(&mut group.filter);
        self.on_share_deliver(&filter, key, message);
        if let Some(group) = self.groups.groups.get_mut(at) {
            group.filter = filter;
        }
    }

    /// Whether a place in the list of groups still has a group that a topic matches.
    pub(super) fn group_matches(&self, at: u32, topic: &str) -> bool {
        let group = self.groups.groups.get(at);
        group.is_some_and(|g| TopicFilter::parse(&g.filter).is_ok_and(|f| f.matches(topic)))
    }

    /// The member chosen is none any more: its owner hears of that before this, and chooses another.
    fn give_back(&mut self, filter: &str, message: &Message) {
        self.return_share(filter, message.clone());
    }

    /// Hands a message back to the owner of its shared subscription, for another member.
    pub(super) fn return_share(&mut self, filter: &str, message: Message) {
        let owner = self.placement.shard(filter.as_bytes());
        let returned = PeerMessage::ShareReturn { filter: filter.into(), message: message.clone() };
        if owner == self.id {
            self.on_share_message(owner, returned);
        } else {
            self.send_once(owner, returned, &message, Some(filter));
        }
    }

    /// Delivers to the member that was chosen.
    pub(super) fn on_share_deliver(&mut self, filter: &str, member: SessionKey, message: &Message) {
        let Some(index) = self.session_of(member) else {
            return self.give_back(filter, message);
        };
        let session = &self.sessions[index];
        let Some(share) = session.shares.get(filter) else {
            return self.give_back(filter, message); // It left meanwhile.
        };
        if message.expires_at() < self.now {
            self.counters.publish_dropped += 1;
            return; // [MQTT-3.3.2-5]
        }
        if !self.config.rights(session.listener).may_receive(session.subject(), message.topic()) {
            self.log_session_denial(Denial::Receive, index, message.topic());
            return;
        }
        let mut ids = SubscriptionIds::None;
        ids.push(share.id);
        let (qos, share) = (self.config.delivered_qos(message.qos(), share.qos), share.number); // [MQTT-4.8.2-3]
        if qos == QoS::AtMostOnce && !self.queues_qos0(index) {
            let message =
                Qos0 { publication: &message.as_publication(), raw: None, kept: Some(message), asked: false };
            self.deliver_now(index, &ids, false, message);
        } else {
            self.enqueue(
                index,
                Delivery { message: message.clone(), qos, retain: false, ids, share, seq: 0, body: 0 },
            );
        }
    }
}
