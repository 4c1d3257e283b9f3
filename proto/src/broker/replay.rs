//! Retained messages: the store of those whose topics live here, and their replay to new subscribers.
//!
//! A replay goes in slices, no faster than its client reads, and survives changes of the store meanwhile
//! (a cursor of [`Tree`]). Messages that live on other shards are asked for and come in portions.
//!
//! A live message may overtake an older retained one on its way from another shard. The last few
//! live ones are remembered while portions are awaited, and an older one of the same topic and origin dropped.

use super::conn::Pause;
use super::denial::Denial;
use super::io::ShardId;
use super::peer::{PeerMessage, ReplayKey, SessionKey};
use super::publish::{Qos0, Subscription, may_publish, session_subscriber};
use super::rights::Subject;
use super::subscribe::REPLAYS_MAX;
use super::sweep::Sweep;
use super::{SLICE, Shard, Work};
use crate::codec::QoS;
use crate::message::{Message, MessageId, Publication, Publisher};
use crate::session::{Delivery, SubscriptionIds};
use crate::table::{HashKey, Slab};
use crate::time::Instant;
use crate::topic::tree::{CursorId, Step, Tree};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Replay waits while this much is still to be written to its client.
pub(super) const PACE_BYTES: usize = 64 << 10;
/// How many messages another shard sends before it waits to be asked for more.
const PORTION: u32 = 256;
/// How many bytes of them.
const PORTION_BYTES: usize = 64 << 10;
/// How many live messages are remembered.
const RECENT: usize = 1024;

/// The retained messages of this shard's topics, and those it is sending to other shards.
pub(super) struct Retained {
    pub(super) tree: Tree<Message>,
    /// Those that expire.
    pub(super) sweep: Sweep,
    hash: HashKey,
    serves: Slab<Serve>,
    /// How many replays await messages of other shards.
    awaited: u32,
    recent: VecDeque<(u64, MessageId)>,
    last_number: u32,
    /// How many messages there are and how many bytes they have, but for those below `$SYS/`.
    count: u64,
    bytes: u64,
}

/// A replay for a subscriber of another shard.
#[derive(Debug)]
struct Serve {
    to: ShardId,
    key: ReplayKey,
    cursor: CursorId,
}

/// A replay for a subscriber of this shard.
#[derive(Debug)]
pub(super) struct Replay {
    session: SessionKey,
    number: u32,
    filter: Box<str>,
    subscription: Subscription,
    /// Whether its SUBACK has left.
    started: bool,
    /// Whether it is under way: the first of its session only.
    begun: bool,
    /// Whether it is on the list of work.
    queued: bool,
    cursor: Option<CursorId>,
    /// The shards that have not sent everything.
    awaited: u64,
    /// The shards that wait to be asked for more, with the number of their side.
    more: Vec<(ShardId, u32)>,
}

impl Retained {
    pub fn new(hash: HashKey) -> Self {
        Retained {
            tree: Tree::new(hash),
            sweep: Sweep::default(),
            hash,
            serves: Slab::new(),
            awaited: 0,
            recent: VecDeque::new(),
            last_number: 0,
            count: 0,
            bytes: 0,
        }
    }

    /// What must be nothing when no replay goes on: cursors, replays served, replays awaited.
    pub fn idle(&self) -> (usize, usize, u32) {
        (self.tree.cursors(), self.serves.len(), self.awaited)
    }

    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// How many messages there are and how many bytes they have, but for those below `$SYS/`.
    pub fn of_clients(&self) -> (u64, u64) {
        (self.count, self.bytes)
    }

    /// The message that is retained for a topic.
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.tree.get(topic)
    }

    /// Stores a message, or removes the one of its topic if it is empty [MQTT-3.3.1-6] [MQTT-3.3.1-7].
    pub fn store(&mut self, message: Message) {
        let counts = !is_of_broker(&message);
        let before = if message.payload().is_empty() {
            self.tree.remove(message.topic())
        } else {
            self.count += u64::from(counts);
            self.bytes += if counts { message.size() as u64 } else { 0 };
            self.sweep.expects(message.expires_at());
            self.tree.insert(message.topic(), message.clone())
        };
        if let Some(before) = before.filter(|_| counts) {
            self.count -= 1;
            self.bytes -= before.size() as u64;
        }
    }

    /// A message that is to be retained passed by live.
    pub fn saw_live(&mut self, publication: &Publication<'_>) {
        if self.awaited > 0 {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((self.hash.hash(publication.topic.as_bytes()), publication.id));
        }
    }

    fn is_overtaken(&self, message: &Message) -> bool {
        if self.recent.is_empty() {
            return false;
        }
        let (topic, id) = (self.hash.hash(message.topic_bytes()), message.id());
        self.recent.iter().any(|(t, r)| *t == topic && r.origin == id.origin && r.count > id.count)
    }

    fn awaits(&mut self, one_more: bool) {
        if one_more {
            self.awaited += 1;
        } else {
            self.awaited -= 1;
            if self.awaited == 0 {
                self.recent = VecDeque::new();
            }
        }
    }
}

/// Whether the broker itself has said this.
pub(super) fn is_of_broker(message: &Message) -> bool {
    message.topic_bytes().starts_with(b"$SYS/")
}

impl Shard {
    /// Why a message is not to be retained, if there is a reason.
    pub(super) fn why_not_retain(&mut self, message: &Message) -> Option<&'static str> {
        let (count, bytes) = self.retained.of_clients();
        let before = self.retained.get(message.topic()).map(Message::size);
        let (config, elsewhere) = (&self.config, &self.elsewhere);
        if before.is_none() && count + elsewhere.retained >= config.max_retained_messages {
            return Some("there are as many retained messages as 'max_retained_messages' allows");
        }
        let bytes = bytes + elsewhere.retained_bytes + message.size() as u64 - before.unwrap_or(0) as u64;
        if bytes > config.max_retained_bytes {
            return Some("retained messages have as many bytes as 'max_retained_bytes' allows");
        }
        // What came with QoS 1 or 2 was refused when it came, or is acknowledged.
        (message.qos() == QoS::AtMostOnce && self.is_short_of_memory()).then_some("memory is short")
    }

    /// A replay for a subscription of a session, to be started when its SUBACK has left.
    pub(super) fn create_replay(
        &mut self,
        index: u32,
        filter: &str,
        subscription: Subscription,
    ) -> ReplayKey {
        self.retained.last_number = self.retained.last_number.wrapping_add(1);
        let number = self.retained.last_number;
        let session = self.sessions[index].key(index);
        let replay = self.replays.insert(Replay {
            session,
            number,
            filter: filter.into(),
            subscription,
            started: false,
            begun: false,
            queued: false,
            cursor: None,
            awaited: 0,
            more: Vec::new(),
        });
        self.sessions[index].replays.push_back(replay);
        ReplayKey { session, replay, number }
    }

    /// The SUBACK has left: the replay may go when those before it are done. One at a time bounds what is
    /// under way to a session.
    pub(super) fn start_replay(&mut self, key: ReplayKey) {
        let Some(replay) = self.replays.get_mut(key.replay).filter(|r| r.number == key.number) else {
            return;
        };
        replay.started = true;
        if let Some(index) = self.session_of(key.session) {
            self.next_replay(index);
        }
    }

    /// Goes on with a session's first replay, and those behind it as long as each is soon over: most are a
    /// handful of messages and need not wait for the next turn.
    fn next_replay(&mut self, index: u32) {
        for _ in 0..SLICE {
            let Some(at) = self.first_replay(index) else { return };
            if !self.begin_replay(at) {
                self.end_replay(at);
                continue;
            }
            if !self.work.is_empty() {
                break;
            }
            self.continue_replay(at);
            if self.sessions[index].replays.front() == Some(&at) {
                return;
            }
        }
        self.wake_replays(index);
    }

    /// The replay of a session whose turn it is, if it may go on and does not wait for its turn of work.
    fn first_replay(&self, index: u32) -> Option<u32> {
        let at = *self.sessions.get(index)?.replays.front()?;
        self.replays.get(at).filter(|r| r.started && !r.queued).map(|_| at)
    }

    /// Begins a replay, unless it has begun. False if its subscription is gone.
    fn begin_replay(&mut self, at: u32) -> bool {
        let Some(replay) = self.replays.get_mut(at).filter(|r| !r.begun) else { return true };
        let subscriber = session_subscriber(replay.session.index);
        let Some(current) = self.subscriptions.get(&replay.filter, subscriber) else { return false };
        // It may be another one than at first.
        replay.subscription = current;
        replay.begun = true;
        let exact = !replay.filter.contains(['+', '#']);
        let home = self.placement.shard(replay.filter.as_bytes());
        if !exact || home == self.id {
            replay.cursor = Some(self.retained.tree.cursor(&replay.filter));
        }
        let key = ReplayKey { session: replay.session, replay: at, number: replay.number };
        let filter = replay.filter.clone();
        let asked = if exact { 1u64 << home } else { u64::MAX >> (64 - self.shards) } & !(1 << self.id);
        replay.awaited = asked;
        if asked != 0 {
            self.retained.awaits(true);
        }
        for to in (0..self.shards).filter(|to| asked >> to & 1 == 1) {
            self.send_to_peer(to, PeerMessage::ReplayBegin { key, filter: filter.clone() });
        }
        true
    }

    /// A session can take more: its replay goes on in its turn.
    pub(super) fn wake_replays(&mut self, index: u32) {
        if let Some(at) = self.first_replay(index) {
            self.replays[at].queued = true;
            self.work.push_back(Work::Replay(at));
        }
    }

    /// The turn of a replay has come.
    pub(super) fn run_replay(&mut self, at: u32) {
        let Some(replay) = self.replays.get_mut(at).filter(|r| r.started) else { return };
        replay.queued = false;
        let session = replay.session;
        let Some(index) = self.session_of(session) else { return };
        if self.sessions[index].replays.front() == Some(&at) {
            if self.begin_replay(at) {
                self.continue_replay(at);
            } else {
                self.end_replay(at);
            }
        }
        if self.sessions[index].replays.front() != Some(&at) {
            self.next_replay(index);
        }
    }

    /// Whether a session's client keeps up with what it has been sent.
    fn keeps_up(&self, index: u32) -> bool {
        let Some(session) = self.sessions.get(index) else { return false };
        let conn = session.conn.and_then(|id| self.conns.get(id.index as usize)).and_then(Option::as_ref);
        session.outgoing.queued() == 0 && conn.is_some_and(|c| c.link.outbox.len() < PACE_BYTES)
    }

    fn continue_replay(&mut self, at: u32) {
        let Some(replay) = self.replays.get_mut(at).filter(|r| r.begun) else { return };
        let key = ReplayKey { session: replay.session, replay: at, number: replay.number };
        let Some(index) = self.session_of(key.session) else { return self.end_replay(at) };
        let mut budget = SLICE as u32;
        while let Some(cursor) = self.replays.get(at).and_then(|r| r.cursor) {
            // Parked: `wake_replays` comes when there is room, or a connection again.
            if !self.keeps_up(index) {
                return;
            }
            match self.retained.tree.next(cursor, &mut budget) {
                Step::Item(message) => {
                    let message = message.clone();
                    self.replay_message(index, at, &message);
                }
                Step::Paused => {
                    if let Some(replay) = self.replays.get_mut(at) {
                        replay.queued = true;
                        self.work.push_back(Work::Replay(at));
                    }
                    return;
                }
                Step::Done => {
                    self.retained.tree.close(cursor);
                    if let Some(replay) = self.replays.get_mut(at) {
                        replay.cursor = None;
                    }
                }
            }
        }
        let keeps_up = self.keeps_up(index);
        let Some(replay) = self.replays.get_mut(at) else { return };
        if replay.awaited == 0 {
            self.end_replay(at);
        } else if keeps_up {
            for (to, serve) in core::mem::take(&mut replay.more) {
                self.send_to_peer(to, PeerMessage::ReplayMore { serve, key });
            }
        }
    }

    /// Sends one retained message to a session.
    fn replay_message(&mut self, index: u32, at: u32, message: &Message) {
        let Some(replay) = self.replays.get(at) else { return };
        let subscription = replay.subscription;
        if message.expires_at() <= self.now {
            return;
        }
        let Some(session) = self.sessions.get(index) else { return };
        if !self.config.rights(session.listener).may_receive(session.subject(), message.topic()) {
            self.log_session_denial(Denial::Receive, index, message.topic());
            return;
        }
        // Names are looked at only where they matter.
        if self.config.check_retain_source
            && let Some(rights) = message.listener().map(|listener| self.config.rights(listener))
            && !rights.is_open()
            && let Some(Publisher { listener, client_id, username }) = message.publisher()
        {
            let subject = Subject { client_id, username };
            if !may_publish(rights, subject, message.topic()) {
                return self.log_denial(Denial::Source, listener, subject, message.topic());
            }
        }
        let qos = self.config.delivered_qos(message.qos(), subscription.qos); // [MQTT-3.8.4-8]
        let mut ids = SubscriptionIds::None;
        ids.push(subscription.id);
        if qos != QoS::AtMostOnce {
            let delivery =
                Delivery { message: message.clone(), qos, retain: true, ids, share: 0, seq: 0, body: 0 };
            return self.enqueue_asked(index, delivery);
        }
        let publication = message.as_publication();
        self.deliver_now(
            index,
            &ids,
            true,
            Qos0 { publication: &publication, raw: None, kept: Some(message), asked: true },
        );
    }

    pub(super) fn end_replay(&mut self, at: u32) {
        let Some(replay) = self.replays.remove(at) else { return };
        if let Some(cursor) = replay.cursor {
            self.retained.tree.close(cursor);
        }
        if replay.awaited != 0 {
            self.retained.awaits(false);
        }
        let key = ReplayKey { session: replay.session, replay: at, number: replay.number };
        // Those that wait to be asked need not wait any longer.
        for (to, serve) in replay.more {
            self.send_to_peer(to, PeerMessage::ReplayCancel { serve, key });
        }
        if let Some(index) = self.session_of(replay.session) {
            let replays = &mut self.sessions[index].replays;
            if let Some(place) = replays.iter().position(|&r| r == at) {
                replays.remove(place);
            }
            if replays.is_empty() {
                *replays = VecDeque::new();
            }
            let room = replays.len() < REPLAYS_MAX / 2;
            if let Some(id) = self.sessions[index].conn.filter(|_| room) {
                self.resume(id, Pause::Replays);
            }
        }
    }

    /// A session no longer wants what it asked for with this filter [MQTT-3.10.4-2]. Of replays that have not
    /// begun it is seen when their turn comes.
    pub(super) fn end_replays_of(&mut self, index: u32, filter: &str) {
        let first = self.sessions[index].replays.front().copied();
        if let Some(at) = first.filter(|&at| self.replays.get(at).is_some_and(|r| *r.filter == *filter)) {
            self.end_replay(at);
            self.next_replay(index);
        }
    }

    /// A subscription was replaced: what is still to come for it comes by the new one [MQTT-3.8.4-3]. Replays that have
    /// not begun see that when they do.
    pub(super) fn change_replays_of(&mut self, index: u32, filter: &str, subscription: Subscription) {
        let first = self.sessions[index].replays.front();
        if let Some(replay) = first.and_then(|&at| self.replays.get_mut(at)).filter(|r| *r.filter == *filter)
        {
            replay.subscription = subscription;
        }
    }

    /// The replay a message of another shard belongs to, if it still goes on.
    fn replay_of(&self, key: ReplayKey) -> Option<u32> {
        self.replays
            .get(key.replay)
            .filter(|r| r.session == key.session && r.number == key.number)
            .map(|_| key.replay)
    }

    pub(super) fn on_replay_item(&mut self, key: ReplayKey, message: &Message) {
        if self.replay_of(key).is_some()
            && let Some(index) = self.session_of(key.session)
            && !self.retained.is_overtaken(message)
        {
            self.replay_message(index, key.replay, message);
        }
    }

    /// Another shard has sent a portion (`serve` names its side), or all it has.
    pub(super) fn on_replay_pause(&mut self, from: ShardId, key: ReplayKey, serve: Option<u32>) {
        let Some(at) = self.replay_of(key) else {
            if let Some(serve) = serve {
                self.send_to_peer(from, PeerMessage::ReplayCancel { serve, key });
            }
            return;
        };
        let replay = &mut self.replays[at];
        match serve {
            Some(serve) => replay.more.push((from, serve)),
            None => {
                let before = replay.awaited;
                replay.awaited &= !(1 << from);
                if before != 0 && replay.awaited == 0 {
                    self.retained.awaits(false);
                }
            }
        }
        if let Some(index) = self.session_of(key.session) {
            self.next_replay(index);
        }
    }

    pub(super) fn on_replay_begin(&mut self, from: ShardId, key: ReplayKey, filter: &str) {
        let cursor = self.retained.tree.cursor(filter);
        let serve = self.retained.serves.insert(Serve { to: from, key, cursor });
        self.continue_serve(serve);
    }

    pub(super) fn on_replay_more(&mut self, from: ShardId, key: ReplayKey, serve: u32, go_on: bool) {
        let serves = &mut self.retained.serves;
        if !serves.get(serve).is_some_and(|s| s.to == from && s.key == key) {
            return;
        }
        if go_on {
            self.continue_serve(serve);
        } else if let Some(serve) = serves.remove(serve) {
            self.retained.tree.close(serve.cursor);
        }
    }

    pub(super) fn continue_serve(&mut self, at: u32) {
        let now: Instant = self.now;
        let Some(serve) = self.retained.serves.get(at) else { return };
        let (to, key, cursor) = (serve.to, serve.key, serve.cursor);
        let mut budget = SLICE as u32;
        let (mut left, mut bytes) = (PORTION, 0);
        while left > 0 && bytes < PORTION_BYTES {
            match self.retained.tree.next(cursor, &mut budget) {
                Step::Item(message) if message.expires_at() <= now => {}
                Step::Item(message) => {
                    let message = message.clone();
                    left -= 1;
                    bytes += message.size();
                    self.send_to_peer(to, PeerMessage::ReplayItem { key, message });
                }
                Step::Paused => return self.work.push_back(Work::Serve(at)),
                Step::Done => {
                    self.retained.tree.close(cursor);
                    self.retained.serves.remove(at);
                    return self.send_to_peer(to, PeerMessage::ReplayEnd { key });
                }
            }
        }
        self.send_to_peer(to, PeerMessage::ReplayPortion { key, serve: at });
    }
}
