//! At a start: what is damaged is put aside, what nobody needs is removed, all else goes back to the shards.

use super::base::BaseError;
use super::fold::Fold;
use super::layer::Key;
use super::view::read;
use crate::clock::Clock;
use hikyaku_proto::broker::store::record::{self, Record};
use hikyaku_proto::broker::store::{BodyId, HEAD, SessionId, StoreOp};
use hikyaku_proto::broker::{Input, Output, Placement, Shard, ShardId};
use hikyaku_proto::message::{Message, MessageId};
use hikyaku_proto::session::Delivery;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{ControlFlow, RangeInclusive};

/// Everything but bodies, whose keys are before all others.
fn all_but_bodies() -> RangeInclusive<Key> {
    b"c".as_slice().into()..=[u8::MAX].into()
}

fn bodies() -> RangeInclusive<Key> {
    b"b".as_slice().into()..=b"c".as_slice().into()
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Records to be put aside.
    pub damaged: Vec<Key>,
    /// Messages that cannot be read.
    lost: BTreeSet<(u16, u64)>,
    forwards: Vec<Forward>,
    pub sessions: u64,
    pub retained: u64,
    pub queued: u64,
}

/// A message that was between shards.
#[derive(Debug)]
struct Forward {
    to: ShardId,
    message: Message,
    share: Option<Box<str>>,
}

/// Counts who names each message, and looks at everything.
pub(super) fn check(fold: &mut Fold, clock: Clock, tell: &mut dyn FnMut(String)) -> Result<Found, BaseError> {
    let at = clock.of_store();
    let mut found = Found::default();
    let mut named: Vec<(u16, u64)> = Vec::new();
    // The session whose records come, with its client id; a session whose own record is damaged.
    let (mut home, mut broken) = (None, None);
    let mut ended = Vec::new();
    fold.view.visit(all_but_bodies(), |key, value| {
        let id = session_of(key);
        match read(key, value, at) {
            Err(why) => {
                let owner =
                    home.as_ref().filter(|(h, _)| Some(*h) == id).map(|(_, name): &(_, Box<str>)| &**name);
                tell(format!("{} is damaged and put aside: {why}.", describe(key, value, owner)));
                if id.is_some() && key.get(13) == Some(&0) {
                    broken = id;
                }
                found.damaged.push(key.into());
            }
            Ok(Record::Session(id, state)) => {
                found.sessions += 1;
                home = Some((id, state.client_id));
            }
            Ok(record) => {
                if let Some(id) = id.filter(|id| home.as_ref().is_none_or(|(h, _)| h != id)) {
                    if broken == Some(id) {
                        found.damaged.push(key.into());
                        return ControlFlow::Continue(());
                    }
                    // It ended, and there was no time to remove all of it.
                    if ended.last() != Some(&id) {
                        ended.push(id);
                    }
                }
                match record {
                    Record::Queued(.., queued) => named.push(name(queued.body)),
                    Record::Retained { body, .. } | Record::Forward(_, _, body, _) => named.push(name(body)),
                    _ => {}
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    ended.into_iter().for_each(|id| fold.ended(id));
    check_bodies(fold, clock, named, &mut found, tell)?;
    Ok(found)
}

fn check_bodies(
    fold: &mut Fold,
    clock: Clock,
    mut named: Vec<(u16, u64)>,
    found: &mut Found,
    tell: &mut dyn FnMut(String),
) -> Result<(), BaseError> {
    let at = clock.of_store();
    named.sort_unstable();
    let mut named = named.chunk_by(|a, b| a == b).peekable();
    let mut unneeded: Vec<Key> = Vec::new();
    let mut counts = Vec::new();
    fold.view.visit(bodies(), |key, value| {
        let (origin, rest) = (key.get(1..3), key.get(3..11));
        let number = origin.zip(rest).and_then(|(o, c)| {
            Some((u16::from_be_bytes(o.try_into().ok()?), u64::from_be_bytes(c.try_into().ok()?)))
        });
        while let Some(missing) = named.next_if(|n| number.is_some_and(|number| n[0] < number)) {
            found.lost.insert(missing[0]);
        }
        let users = named.next_if(|n| Some(n[0]) == number);
        match read(key, value, at) {
            Ok(_) => match users {
                Some([_]) => {}
                Some(users) => counts.push((users[0], users.len() as u32)),
                None => unneeded.push(key.into()),
            },
            Err(why) => {
                tell(format!("{} is damaged and put aside: {why}.", describe(key, value, None)));
                found.damaged.push(key.into());
                found.lost.extend(users.map(|u| u[0]));
            }
        }
        ControlFlow::Continue(())
    })?;
    found.lost.extend(named.map(|n| n[0]));
    counts.into_iter().for_each(|(id, users)| fold.count(id, users));
    unneeded.into_iter().for_each(|key| fold.remove(key));
    Ok(())
}

/// Counts what there is, and puts aside, by name, what has lost its message.
pub(super) fn take_stock(
    fold: &Fold,
    found: &mut Found,
    clock: Clock,
    tell: &mut dyn FnMut(String),
) -> Result<(), BaseError> {
    let at = clock.of_store();
    let mut home: Option<(SessionId, Box<str>)> = None;
    let mut lost: BTreeMap<Box<str>, u64> = BTreeMap::new();
    fold.view.visit(all_but_bodies(), |key, value| {
        match read(key, value, at) {
            Ok(Record::Session(id, state)) => home = Some((id, state.client_id)),
            Ok(Record::Retained { topic, body, .. }) if found.lost.contains(&name(body)) => {
                tell(format!("The retained message of {} is lost.", topic.escape_debug()));
                found.damaged.push(key.into());
            }
            Ok(Record::Retained { .. }) => found.retained += 1,
            Ok(Record::Queued(id, _, queued)) => {
                let Some((_, client)) = home.as_ref().filter(|(known, _)| *known == id) else {
                    return ControlFlow::Continue(());
                };
                if found.lost.contains(&name(queued.body)) {
                    *lost.entry(client.clone()).or_default() += 1;
                    found.damaged.push(key.into());
                } else {
                    found.queued += 1;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    for (client, n) in lost {
        tell(format!("Of the queue of client {} {n} messages are lost.", client.escape_debug()));
    }
    Ok(())
}

fn name(id: BodyId) -> (u16, u64) {
    (id.origin, id.count)
}

/// The session that a key is of.
fn session_of(key: &[u8]) -> Option<SessionId> {
    let key = key.strip_prefix(b"s")?;
    let (slot, key) = key.split_first_chunk()?;
    let (origin, key) = key.split_first_chunk()?;
    let (count, _) = key.split_first_chunk()?;
    let (slot, origin) = (u16::from_be_bytes(*slot), u16::from_be_bytes(*origin));
    Some(SessionId { slot, origin, count: u64::from_be_bytes(*count) })
}

/// What kind of record stands at a key, and how to call one and many.
pub(super) fn kind(key: &[u8]) -> (&'static str, &'static str) {
    match (key.first(), key.get(13)) {
        (Some(b'b'), _) => ("message", "messages"),
        (Some(b'r'), _) => ("retained message", "retained messages"),
        (Some(b'f' | b'm'), _) => ("message between workers", "messages between workers"),
        (Some(b's'), Some(0)) => ("session", "sessions"),
        (Some(b's'), Some(1)) => ("subscription", "subscriptions"),
        (Some(b's'), Some(2 | 3)) => ("packet id", "packet ids"),
        (Some(b's'), Some(4)) => ("place in a queue", "places in queues"),
        _ => ("other record", "other records"),
    }
}

/// What a record is about, as far as can be told.
fn describe(key: &[u8], value: &[u8], owner: Option<&str>) -> String {
    let text = |from| String::from_utf8_lossy(key.get(from..).unwrap_or_default()).escape_debug().to_string();
    let of = owner.map_or(String::new(), |id| format!(" of client {}", id.escape_debug()));
    match (key.first(), key.get(13)) {
        (Some(b'b'), _) => {
            // Where the sum is wrong the topic may still be right: it stands behind 16 bytes of time and 17 of a head.
            let topic = || {
                let rest = value.get(16..)?;
                let len = u16::from_le_bytes(rest.get(10..12)?.try_into().ok()?);
                std::str::from_utf8(rest.get(17..17 + usize::from(len))?).ok()
            };
            topic().map_or("A message".to_owned(), |t| format!("A message (to {}?)", t.escape_debug()))
        }
        (Some(b'r'), _) => format!("The retained message of {}", text(3)),
        (Some(b'f' | b'm'), _) => "A message between workers".to_owned(),
        (Some(b's'), Some(0)) => {
            let len = || {
                let len = u32::from_be_bytes(value.get(30..34)?.try_into().ok()?) as usize;
                std::str::from_utf8(value.get(34..34usize.checked_add(len)?)?).ok()
            };
            len().map_or("A session".to_owned(), |id| format!("The session of client {}", id.escape_debug()))
        }
        (Some(b's'), Some(1)) => format!("The subscription{of} to {}", text(14)),
        (Some(b's'), Some(2)) => format!("A packet id{of}"),
        (Some(b's'), Some(3 | 4)) => format!("A message in the queue{of}"),
        _ => "A record".to_owned(),
    }
}

/// Hands everything back to the shards, which have been told to keep things, and lets them come to rest. What they change
/// by that is in `fold` then.
pub(super) fn restore(
    fold: &mut Fold,
    found: &mut Found,
    shards: &mut [Shard],
    placement: &Placement,
    before: u16,
    clock: Clock,
) -> Result<(), BaseError> {
    let now = clock.now();
    let mut old = Vec::new();
    hand_back(fold, found, placement, clock, &mut old, |home, op| {
        if let Some(shard) = shards.get_mut(usize::from(home)) {
            shard.handle(now, Input::Restore(op));
        }
    })?;
    // Numbers begin anew: the old ones must be gone before there are others.
    for (key, body) in old {
        fold.remove(key);
        body.into_iter().for_each(|body| fold.drop_body(body));
    }
    settle(fold, shards, clock)?;
    for Forward { to, message, share } in found.forwards.drain(..) {
        let owner = share.as_ref().map(|filter| placement.shard(filter.as_bytes()));
        for shard in shards.iter_mut().filter(|shard| owner.is_none_or(|owner| owner == shard.id())) {
            let (message, share) = (message.clone(), share.clone());
            shard.handle(now, Input::Redeliver { message, share, to, shards: before });
        }
    }
    settle(fold, shards, clock)?;
    // What took the place of a damaged record is not to be put aside in its stead.
    found.damaged.retain(|key| fold.view.group.get(key).is_none());
    Ok(())
}

/// A session while it is handed back.
#[derive(Default)]
struct Restoring {
    client: Box<str>,
    home: ShardId,
    in_flight: BTreeMap<u64, u16>,
    unsent: usize,
    rest: Option<StoreOp>,
}

fn hand_back(
    fold: &Fold,
    found: &mut Found,
    placement: &Placement,
    clock: Clock,
    old: &mut Vec<(Key, Option<BodyId>)>,
    mut give: impl FnMut(ShardId, StoreOp),
) -> Result<(), BaseError> {
    let at = clock.of_store();
    let mut current = Restoring::default();
    let mut error = None;
    let (mut marks, mut forwards) = (BTreeMap::new(), Vec::new());
    let mut session = None;
    // Of a queue whose head is in the window, only what goes with it is looked up.
    let is_queued = |id, seq| fold.view.contains(&record::queued_key(id, seq));
    fold.view.visit(all_but_bodies(), |key, value| {
        let Ok(record) = read(key, value, at) else { return ControlFlow::Continue(()) };
        if !matches!(record, Record::Queued(..))
            && let Some(rest) = current.rest.take()
        {
            give(current.home, rest);
        }
        if session_of(key).is_some() && !matches!(record, Record::Session(..)) && session_of(key) != session {
            return ControlFlow::Continue(());
        }
        let handle = || -> Result<(), BaseError> {
            match record {
                Record::Body(..) => {}
                Record::Retained { slot, topic, body } => match fold.view.body(body, at)? {
                    Some(message) if message.topic() == &*topic => {
                        found.retained += 1;
                        give(placement.shard(topic.as_bytes()), StoreOp::Retain { slot, message });
                    }
                    _ => {
                        log::error!("The retained message of {} is lost.", topic.escape_debug());
                        found.damaged.push(key.into());
                    }
                },
                Record::Forward(link, number, body, share) => {
                    old.push((key.into(), Some(body)));
                    forwards.push((link, number, fold.view.body(body, at)?, share));
                }
                Record::Mark(link, number) => {
                    old.push((key.into(), None));
                    marks.insert(link, number);
                }
                Record::Session(id, state) => {
                    session = Some(id);
                    let home = placement.shard(state.client_id.as_bytes());
                    current = Restoring { client: state.client_id.clone(), home, ..Restoring::default() };
                    give(home, StoreOp::Session { id, state });
                }
                Record::Subscription(id, filter, subscription) => {
                    give(current.home, StoreOp::Subscribe { id, filter, subscription });
                }
                Record::Received(id, packet_id) => {
                    give(current.home, StoreOp::Received { id, packet_id });
                }
                Record::InFlight(id, seq, packet_id) => {
                    if is_queued(id, seq)? {
                        current.in_flight.insert(seq, packet_id);
                    } else {
                        let body = MessageId::default();
                        give(current.home, StoreOp::Released { id, seq, packet_id, body });
                    }
                }
                Record::Queued(id, seq, queued) => {
                    if found.lost.contains(&name(queued.body)) {
                        let client = current.client.escape_debug();
                        log::error!("A message in the queue of client {client} is lost.");
                        found.damaged.push(key.into());
                        return Ok(());
                    }
                    found.queued += 1;
                    let sent = current.in_flight.get(&seq).copied();
                    current.unsent += usize::from(sent.is_none());
                    if current.unsent > HEAD {
                        current.leave(id, seq, queued.size.into());
                        return Ok(());
                    }
                    let Some(message) = fold.view.body(queued.body, at)? else { return Ok(()) };
                    let delivery: Delivery = queued.delivery(seq, message);
                    give(current.home, StoreOp::Enqueue { id, delivery });
                    if let Some(packet_id) = sent {
                        give(current.home, StoreOp::Sent { id, seq, packet_id });
                    }
                }
            }
            Ok(())
        };
        match handle() {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                error = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(rest) = current.rest.take() {
        give(current.home, rest);
    }
    for (link, number, message, share) in forwards {
        if marks.get(&link).is_none_or(|mark| *mark < number)
            && let Some(message) = message
        {
            found.forwards.push(Forward { to: link.1, message, share });
        }
    }
    error.map_or(Ok(()), Err)
}

impl Restoring {
    /// A message that stays in the store.
    fn leave(&mut self, id: SessionId, seq: u64, size: u64) {
        match &mut self.rest {
            Some(StoreOp::Rest { last, count, bytes, .. }) => {
                *last = seq;
                *count += 1;
                *bytes += size;
            }
            _ => self.rest = Some(StoreOp::Rest { id, from: seq, last: seq, count: 1, bytes: size }),
        }
    }
}

/// Carries messages between the shards, and their changes to the store, until there are no more. Only then is done what is
/// due: a will that is due at once must not be published before its shard has heard what the others want. Due is also what goes in slices: what
/// comes of a message that was underway has to be in one commit with the end of its record.
fn settle(fold: &mut Fold, shards: &mut [Shard], clock: Clock) -> Result<(), BaseError> {
    let now = clock.now();
    let mut post = VecDeque::new();
    loop {
        let (mut quiet, mut due) = (true, Vec::new());
        for shard in shards.iter_mut() {
            loop {
                match shard.poll_output(now) {
                    Output::Peer { to, message } => post.push_back((shard.id(), to, message)),
                    Output::Store { upto, ops } => {
                        quiet = false;
                        for op in &ops {
                            if let Some(loaded) = fold.apply(op, clock.of_store())? {
                                shard.handle(now, Input::Loaded(loaded));
                            }
                        }
                        shard.handle(now, Input::Stored { upto });
                    }
                    Output::Timeout(at) => {
                        due.extend(at.filter(|at| *at <= now).map(|_| shard.id()));
                        break;
                    }
                    // There are no connections.
                    _ => {}
                }
            }
        }
        for (from, to, message) in post.drain(..) {
            quiet = false;
            if let Some(shard) = shards.get_mut(usize::from(to)) {
                shard.handle(now, Input::Peer { from, message });
            }
        }
        if quiet && due.is_empty() {
            return Ok(());
        }
        if quiet {
            for shard in shards.iter_mut().filter(|shard| due.contains(&shard.id())) {
                shard.handle(now, Input::Timeout);
            }
        }
    }
}
