//! What must hold for a store that is damaged: the bodies of fuzz targets.

use super::base::{Base, BaseError, Meta};
use super::fold::Fold;
use super::layer::{Key, Layer};
use super::view::{View, read, seal};
use super::{journal, pages, recover};
use crate::clock::Clock;
use hikyaku_proto::broker::store::record::{self, Queued, Record};
use hikyaku_proto::broker::store::{
    BodyId, RETAINED, SessionId, SessionState, StoredSubscription, StoredWill,
};
use hikyaku_proto::broker::{Config, Placement, Shard};
use hikyaku_proto::codec::{QoS, SubscribeOptions};
use hikyaku_proto::message::{Message, MessageId, Publication};
use hikyaku_proto::session::SubscriptionIds;
use hikyaku_proto::time::Instant;
use redb::StorageBackend;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const SALT: [u8; 8] = *b"\x93\xd1\x5e\x07\xaa\x4c\xf2\x68";
const FILTERS: [&str; 6] = ["a", "a/+", "#", "$share/g/a", "$share/h/#", "+/b"];
const TOPICS: [&str; 4] = ["a", "a/b", "b", "c"];

/// Reads `data` as a segment of the journal, or makes one of it, damages it in up to three places and cuts it. Panics when
/// reading does, or when it brings anything but the changes of the frames that are whole.
pub fn check_journal(data: &[u8]) {
    let [kind, cut, rest @ ..] = data else { return };
    if kind & 1 == 0 {
        let _ = journal::read(rest, &mut Layer::default());
        let behind_header = [&journal::header(SALT)[..], rest].concat();
        let _ = journal::read(&behind_header, &mut Layer::default());
        return;
    }
    let (damages, frames) = rest.split_at(rest.len().min(3 * usize::from(kind >> 1 & 3)));
    let mut segment = journal::header(SALT).to_vec();
    let header = segment.len();
    // The changes of each frame, and where it ends.
    let mut written = Vec::new();
    for (number, frame) in (1..).zip(frames.chunks(7)) {
        let mut bytes = Vec::new();
        let wrote = journal::write_frame(&changes(frame), journal::Salt::new(SALT), number, &mut bytes);
        wrote.unwrap_or_else(|e| panic!("{e}"));
        segment.extend(bytes);
        written.push((frame, segment.len()));
    }
    let places: Vec<usize> = damages
        .chunks_exact(3)
        .map(|d| header + (usize::from(d[0]) << 8 | usize::from(d[1])) % (segment.len() - header).max(1))
        .collect();
    for (place, damage) in places.iter().zip(damages.chunks_exact(3)) {
        if let Some(byte) = segment.get_mut(*place) {
            *byte ^= 1 << (damage[2] & 7);
        }
    }
    // Twice the same place may be as it was.
    let harmed = |start, end| places.iter().any(|p| (start..end).contains(p));
    let cut = segment.len().saturating_sub(usize::from(*cut));
    segment.truncate(cut);
    let (mut expected, mut start) = (Layer::default(), header);
    for (frame, end) in written {
        if end <= cut && !harmed(start, end) {
            expected.absorb(&mut changes(frame));
        }
        start = end;
    }
    let mut found = Layer::default();
    let read = journal::read(&segment, &mut found);
    assert!(cut < header || read.is_ok(), "what was written here has another form");
    let mut distinct = places.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() == places.len() {
        let list =
            |layer: &Layer| format!("{:?}", layer.iter().map(|(k, c)| (k, &c.value)).collect::<Vec<_>>());
        assert_eq!(list(&found), list(&expected), "not the changes of the frames that are whole");
    }
}

fn changes(bytes: &[u8]) -> Layer {
    let mut layer = Layer::default();
    for &byte in bytes {
        let key: Key = [byte & 7].into();
        match byte >> 3 {
            0..6 => layer.remove(key),
            n => layer.put(key, vec![byte; usize::from(n)].into(), false),
        }
    }
    layer
}

/// Makes a store of `data`, damages it, and has it recovered twice, by different numbers of shards. Panics when that fails, or when the
/// second one finds damage that the first has left, or another number of retained messages than the first has given back.
pub fn check_recovery(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let mut kept = Kept { first, records: BTreeMap::new(), count: 0, session: None };
    for op in data.chunks_exact(4) {
        kept.step(op[0], op[1], op[2], op[3]);
    }
    let base = match Base::in_memory(Image::default(), true) {
        Ok(base) => Arc::new(base),
        Err(e) => panic!("{e}"),
    };
    let mut below = Layer::default();
    let mut view = View::new(Arc::clone(&base));
    for (i, (key, value)) in kept.records.into_iter().enumerate() {
        let layer = if first >> 4 & 1 == 0 || i % 3 == 0 { &mut view.recent } else { &mut below };
        layer.put(key, value, false);
    }
    let placement_key = 7;
    let meta = Meta { run: 3, placement: placement_key, shards: 1 + u16::from(first & 1), segment: 1 };
    base.commit(&below, &[], meta).unwrap_or_else(|e| panic!("{e}"));
    let clock = Clock::start();
    let given_back = recover(view, 4, 1 + u16::from(first >> 1 & 1), meta, clock);
    let again = recover(View::new(base), 5, 1 + u16::from(first >> 2 & 1), meta, clock);
    assert_eq!(again.damaged, 0, "a recovery leaves damage behind");
    assert!(again.sessions <= given_back.sessions, "sessions come of nothing");
    assert_eq!(again.retained, given_back.retained, "retained messages are lost, or come of nothing");
}

struct Recovered {
    damaged: usize,
    sessions: u64,
    retained: u64,
}

fn recover(view: View, run: u32, shards: u16, before: Meta, clock: Clock) -> Recovered {
    let placement = Arc::new(Placement::new(before.placement, shards));
    let config = Arc::new(Config { max_queued_messages: 1000, sys_interval_s: 0, ..Config::default() });
    let make = |id| Shard::new(id, shards, 1, config.clone(), placement.clone(), clock.now());
    let mut all: Vec<Shard> = (0..shards).map(make).collect();
    all.iter_mut().for_each(|shard| shard.keep_from(run));
    let mut fold = Fold::new(view, run, true);
    let fail = |e: BaseError| -> ! { panic!("{e}") };
    let mut found = recover::check(&mut fold, clock, &mut |_| {}).unwrap_or_else(|e| fail(e));
    recover::restore(&mut fold, &mut found, &mut all, &placement, before.shards, clock)
        .unwrap_or_else(|e| fail(e));
    while fold.has_remains() {
        fold.clear_remains(clock.of_store()).unwrap_or_else(|e| fail(e));
    }
    let View { group, recent, .. } = &mut fold.view;
    recent.absorb(group);
    let recent = std::mem::take(recent);
    fold.view.forget_reader();
    fold.view.base.commit(&recent, &found.damaged, Meta { run, ..before }).unwrap_or_else(|e| fail(e));
    let retained = all.iter().map(|shard| shard.counters().retained).sum();
    Recovered { damaged: found.damaged.len(), sessions: found.sessions, retained }
}

/// Records as a broker would have left them, and damage to them.
struct Kept {
    first: u8,
    records: BTreeMap<Key, Box<[u8]>>,
    count: u64,
    session: Option<SessionId>,
}

impl Kept {
    fn step(&mut self, op: u8, a: u8, b: u8, c: u8) {
        match op % 12 {
            0 => self.session(a, b, c),
            1 => self.retain(a, b),
            2 => {
                let body = self.body(b);
                let to = u16::from(a >> 1 & 1) | if a & 4 != 0 { RETAINED } else { 0 };
                let share = (a & 8 != 0).then_some("$share/g/a");
                let key = record::forward_key((u16::from(a & 1), to), u64::from(c & 7));
                self.put(key, |out| record::put_forward(body, share, out));
            }
            3 => self.put(record::mark_key((u16::from(a & 1), u16::from(a >> 1 & 1))), |out| {
                record::put_mark(u64::from(b & 7), out);
            }),
            4 => self.damage(a, b, c),
            5 => {
                let key = self.key_at(a);
                key.and_then(|key| self.records.remove(&key));
            }
            6 => {
                // What no broker writes, with a checksum that is right.
                let key = [&[b"bsrfm"[usize::from(a) % 5]][..], &[b; 13][..usize::from(c) % 14]].concat();
                self.put(key, |out| out.extend(vec![c; usize::from(b)]));
            }
            op => {
                if let Some(id) = self.session {
                    self.part(op, id, a, b, c);
                }
            }
        }
    }

    fn session(&mut self, a: u8, b: u8, c: u8) {
        self.count += 1;
        let client_id: Box<str> = char::from(b'a' + (a & 3)).to_string().into();
        let placement = Placement::new(7, 1);
        let slot = placement.slot(client_id.as_bytes()) as u16;
        let id = SessionId { slot, origin: u16::from(a >> 2 & 1), count: self.count };
        let moment = |n: u8| if n & 1 == 0 { Instant::NEVER } else { Instant::from_secs(u64::from(n)) };
        let will = (b & 1 == 1).then(|| StoredWill {
            message: self.message(b, false, false).0,
            delay_s: u32::from(c >> 4) * 60,
        });
        let state = SessionState {
            client_id,
            username: (a & 8 != 0).then(|| "u".into()),
            listener: u16::from(a >> 4 & 1),
            expiry_s: [0, 1000, u32::MAX, u32::MAX][usize::from(a >> 5 & 3)],
            expires_at: moment(b),
            will,
            will_at: moment(c),
        };
        self.session = Some(id);
        let at = clock();
        self.put(record::state_key(id), |out| record::put_state(&state, at, out));
    }

    fn part(&mut self, op: u8, id: SessionId, a: u8, b: u8, c: u8) {
        let seq = u64::from(b);
        match op {
            7 => {
                let filter = FILTERS[usize::from(a) % FILTERS.len()];
                let qos = QoS::from_u8(b & 3).unwrap_or(QoS::AtMostOnce);
                let share = if filter.starts_with("$share") { u32::from(c) } else { 0 };
                let options = SubscribeOptions::new(qos);
                let subscription = StoredSubscription { options, id: u32::from(b >> 4), share };
                self.put(record::subscription_key(id, filter), |out| {
                    record::put_subscription(&subscription, out);
                });
            }
            8 => self.put(record::received_key(id, u16::from(a)), |_| {}),
            9 => self
                .put(record::in_flight_key(id, seq), |out| record::put_in_flight(u16::from(a).max(1), out)),
            10 => (0..u64::from(a)).for_each(|n| self.queue(id, seq + n, c)),
            _ => self.queue(id, seq, c),
        }
    }

    fn queue(&mut self, id: SessionId, seq: u64, c: u8) {
        let body = self.body(c);
        let qos = if c & 1 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let queued = Queued {
            body,
            qos,
            retain: c & 2 != 0,
            share: u32::from(c >> 6),
            size: u32::from(c),
            ids: SubscriptionIds::None,
        };
        self.put(record::queued_key(id, seq), |out| record::put_queued(&queued, out));
    }

    fn retain(&mut self, a: u8, b: u8) {
        let topic = TOPICS[usize::from(b) % TOPICS.len()];
        let body = self.body(b);
        let slot = Placement::new(7, 1).slot(topic.as_bytes()) as u16;
        // One may lie where it does not belong.
        let slot = if a == 255 { slot ^ 1 } else { slot };
        self.put(record::retained_key(slot, topic), |out| record::put_retained(body, out));
    }

    /// A message, which other records may name as well.
    fn body(&mut self, b: u8) -> BodyId {
        let (message, id) = self.message(b, b & 32 == 0, true);
        let at = clock();
        if b & 64 == 0 || self.first & 8 == 0 {
            self.put(record::body_key(id), |out| record::put_body(&message, at, out));
        }
        id
    }

    fn message(&mut self, b: u8, is_new: bool, retain: bool) -> (Message, BodyId) {
        self.count += u64::from(is_new);
        let id = MessageId { origin: u16::from(self.first & 1), count: self.count };
        let topic = TOPICS[usize::from(b) % TOPICS.len()];
        let qos = QoS::from_u8(b >> 2 & 3).unwrap_or(QoS::AtMostOnce);
        let publication = Publication {
            topic,
            qos,
            retain,
            properties: &[],
            payload: b"kept",
            expires_at: Instant::NEVER,
            id,
        };
        (publication.to_message(&mut Vec::new()), id)
    }

    fn damage(&mut self, a: u8, b: u8, c: u8) {
        let Some(value) = self.key_at(a).and_then(|key| self.records.get_mut(&key)) else { return };
        let at = usize::from(b) % value.len().max(1);
        match c & 8 {
            0 => value.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (c & 7)),
            _ => *value = value[..at].into(),
        }
    }

    fn key_at(&self, a: u8) -> Option<Key> {
        self.records.keys().nth(usize::from(a) % self.records.len().max(1)).cloned()
    }

    fn put(&mut self, key: impl Into<Key> + AsRef<[u8]>, put: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        put(&mut value);
        let value = seal(key.as_ref(), value);
        self.records.insert(key.into(), value);
    }
}

fn clock() -> record::Clock {
    record::Clock { now: Instant::ZERO, wall_us: 0 }
}

/// Damages the file of a database as `data` says, and reads all of it. Panics when the engine does and that is not noticed, or
/// when a record comes out that was not in it though its checksum is right.
pub fn check_base(data: &[u8]) {
    let image = damaged_base(data);
    let Ok(base) = Base::in_memory(Image(Arc::new(Mutex::new(image))), false) else { return };
    let _ = base.meta();
    let view = View::new(Arc::new(base));
    let mut seen = 0;
    let _ = view.visit([].into()..=[u8::MAX; 16].into(), |key, value| {
        seen += 1;
        if super::view::checked(key, value).is_some() {
            let is_known =
                key.len() == 9 && key[0] == b'r' && key[3] == b't' || key.len() == 11 && key[0] == b'b';
            assert!(is_known, "a record that was not there");
        }
        if seen < 10_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(seen < 10_000, "more records than there were");
}

/// The file of a database that has [`BASE_RETAINED`] retained messages, damaged in up to 64 places, of which `data` says which and
/// how.
pub fn damaged_base(data: &[u8]) -> Vec<u8> {
    let mut image = pristine().to_vec();
    for damage in data.chunks_exact(5).take(64) {
        let place = u32::from_be_bytes([0, damage[0], damage[1], damage[2]]) as usize;
        let place = if damage[3] & 1 == 0 { place % 8192 } else { place } % image.len();
        match damage[3] >> 1 & 3 {
            0 => image[place] ^= 1 << (damage[4] & 7),
            1 => image[place] = damage[4],
            2 => image.iter_mut().skip(place).take(512).for_each(|b| *b = damage[4]),
            _ => image.truncate(place.max(1)),
        }
    }
    image
}

/// The topics whose retained messages can be read in single pages of such a file.
pub fn retained_in_pages(path: &Path) -> BTreeSet<String> {
    let (mut bodies, mut topics) = (BTreeSet::new(), BTreeSet::new());
    let file = File::open(path).unwrap_or_else(|e| panic!("{e}"));
    let visited = pages::visit(&file, |key, value| {
        match read(key, value, clock()) {
            Ok(Record::Body(_, message)) => drop(bodies.insert(message.topic().to_owned())),
            Ok(Record::Retained { topic, .. }) => drop(topics.insert(topic.into_string())),
            _ => {}
        }
        Ok(())
    });
    visited.unwrap_or_else(|e| panic!("{e}"));
    topics.retain(|topic| bodies.contains(topic));
    topics
}

/// How many retained messages there are in [`damaged_base`]: `t00000` and so on, each with its topic as payload.
const BASE_RETAINED: u64 = 500;

fn pristine() -> &'static [u8] {
    static PRISTINE: OnceLock<Vec<u8>> = OnceLock::new();
    PRISTINE.get_or_init(|| {
        let image = Image::default();
        let base = Base::in_memory(image.clone(), true).unwrap_or_else(|e| panic!("{e}"));
        let placement = Placement::new(7, 1);
        let mut layer = Layer::default();
        for n in 0..BASE_RETAINED {
            let (topic, id) = (format!("t{n:05}"), BodyId { origin: 0, count: 1 << 40 | n });
            let message = Publication {
                topic: &topic,
                qos: QoS::AtLeastOnce,
                retain: true,
                properties: &[],
                payload: topic.as_bytes(),
                expires_at: Instant::NEVER,
                id,
            };
            let mut put = |key: &[u8], put: &dyn Fn(&mut Vec<u8>)| {
                let mut value = Vec::new();
                put(&mut value);
                layer.put(key.into(), seal(key, value), false);
            };
            put(&record::body_key(id), &|out| {
                record::put_body(&message.to_message(&mut Vec::new()), clock(), out);
            });
            let slot = placement.slot(topic.as_bytes()) as u16;
            put(&record::retained_key(slot, &topic), &|out| record::put_retained(id, out));
        }
        let meta = Meta { run: 1, placement: 7, shards: 1, segment: 1 };
        base.commit(&layer, &[], meta).unwrap_or_else(|e| panic!("{e}"));
        drop(base);
        image.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    })
}

/// A file in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Image(Arc<Mutex<Vec<u8>>>);

impl Image {
    fn with<T>(&self, offset: u64, len: usize, work: impl FnOnce(&mut [u8]) -> T) -> std::io::Result<T> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = offset..offset.saturating_add(len);
        bytes.get_mut(range).map(work).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

impl StorageBackend for Image {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.with(offset, out.len(), |bytes| out.copy_from_slice(bytes))
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        /// More than any of these databases has a use for.
        const FILE_MAX: u64 = 64 << 20;
        if len > FILE_MAX {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.with(offset, data.len(), |bytes| bytes.copy_from_slice(data))
    }
}
