//! A power failure under the real engine and the real journal, in tests: what they do to their files is written down, and of it
//! images of the disk are made as a power failure might have left them.
//!
//! What was synced is in an image. Of what came after that, each write may be there, be missing, or be there in part. A name in
//! the directory is sure when the directory was synced; a name that was removed may be there again.
//!
//! A disk may fail before that: writes and syncs end with an error then. What a sync that failed should have brought to the disk is not on
//! it, whatever later ones say.

use super::recover;
use super::view::read;
use super::{Opened, journal};
use crate::clock::Clock;
use crate::config::PersistenceSettings;
use crate::letter::Letter;
use crate::store::Batch;
use crate::wake::mailbox;
use hikyaku_proto::broker::store::record::Record;
use hikyaku_proto::broker::store::{SessionId, SessionState, StoreOp};
use hikyaku_proto::broker::{Config, Placement, Shard};
use hikyaku_proto::codec::QoS;
use hikyaku_proto::message::{Message, MessageId, Publication};
use hikyaku_proto::session::{Delivery, SubscriptionIds};
use hikyaku_proto::time::Instant;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What was done to a file, or said of it.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Create,
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    SyncFailed,
    Remove,
    /// From this name, which ends in `.new`, to the one without that.
    Rename,
    /// All names of its directory are sure.
    SyncNames,
    /// A batch is confirmed.
    Stored(u64),
}

/// By directory: what was done to which file.
static RECORDED: Mutex<BTreeMap<PathBuf, Vec<(String, Event)>>> = Mutex::new(BTreeMap::new());

/// Writes down what is done to a file, if someone wants to know of its directory. To be called before a write and after a sync.
pub(super) fn note(path: &Path, event: Event) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return };
    if let Some(events) = RECORDED.lock().unwrap().get_mut(dir) {
        events.push((name.to_string_lossy().into_owned(), event));
    }
}

/// What may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    Sync,
}

/// By directory: what fails there next, with files of which names, and how often.
pub(super) static FAULTS: Mutex<BTreeMap<PathBuf, (Op, &str, u32)>> = Mutex::new(BTreeMap::new());

/// The disk's error, if there is to be one.
pub(super) fn hinder(path: &Path, op: Op) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let mut faults = FAULTS.lock().unwrap();
    let Some((on, begin, times)) = faults.get_mut(dir) else { return Ok(()) };
    if *on != op || *times == 0 || !name.to_string_lossy().starts_with(*begin) {
        return Ok(());
    }
    *times -= 1;
    if op == Op::Sync {
        note(path, Event::SyncFailed);
    }
    Err(rustix::io::Errno::IO.into())
}

/// The engine's file.
#[derive(Debug)]
pub(super) struct Recorded(PathBuf, FileBackend);

impl Recorded {
    pub(super) fn open(path: &Path) -> Result<Recorded, redb::DatabaseError> {
        let is_new = !path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if is_new {
            note(path, Event::Create);
        }
        Ok(Recorded(path.into(), FileBackend::new(file)?))
    }
}

impl StorageBackend for Recorded {
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        hinder(&self.0, Op::Read)?;
        self.1.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        note(&self.0, Event::SetLen(len));
        self.1.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        hinder(&self.0, Op::Sync)?;
        self.1.sync_data()?;
        note(&self.0, Event::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        note(&self.0, Event::Write(offset, data.into()));
        hinder(&self.0, Op::Write)?;
        self.1.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.1.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.1.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.1.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.1.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.1.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.1.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.1.query_lock_range(start, end)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// A file on the disk that is about to lose its power.
#[derive(Clone, Default)]
struct Simulated {
    synced: Vec<u8>,
    unsynced: Vec<Event>,
    /// Whether its name is there for sure, and whether it is if all goes well.
    name_synced: bool,
    name: bool,
}

impl Simulated {
    fn handle(&mut self, event: &Event) {
        match event {
            Event::Create => {
                self.name = true;
                self.unsynced.push(Event::SetLen(0));
            }
            Event::Write(..) | Event::SetLen(_) => self.unsynced.push(event.clone()),
            Event::Sync => {
                for event in std::mem::take(&mut self.unsynced) {
                    apply(&mut self.synced, &event, &mut None);
                }
            }
            // The length is the file system's matter.
            Event::SyncFailed => self.unsynced.retain(|event| matches!(event, Event::SetLen(_))),
            Event::Remove => self.name = false,
            Event::Rename | Event::SyncNames | Event::Stored(_) => {}
        }
    }

    /// What is left of it when the power fails now.
    fn left(&self, random: &mut Random) -> Option<Vec<u8>> {
        if !self.name_synced && (!self.name || random.below(2) == 0) || !self.name && random.below(2) == 0 {
            return None;
        }
        let mut bytes = self.synced.clone();
        let survive = random.below(5);
        for event in &self.unsynced {
            match random.below(4) {
                n if n < survive => apply(&mut bytes, event, &mut None),
                0 => {}
                _ => apply(&mut bytes, event, &mut Some(random)),
            }
        }
        Some(bytes)
    }
}

/// Does what an event says to a file; in part, if someone draws which.
fn apply(bytes: &mut Vec<u8>, event: &Event, torn: &mut Option<&mut Random>) {
    match event {
        Event::SetLen(len) if torn.is_none() => bytes.resize(*len as usize, 0),
        Event::Write(offset, data) => {
            let mut part = 0..data.len();
            if let Some(random) = torn {
                let cut = random.below(data.len() + 1);
                part = if random.below(2) == 0 { 0..cut } else { cut..data.len() };
            }
            let at = *offset as usize;
            bytes.resize(bytes.len().max(at + part.end), 0);
            bytes[at + part.start..at + part.end].copy_from_slice(&data[part]);
        }
        _ => {}
    }
}

/// What is to be found: the value of each retained message, and what waits in the queue.
type State = (BTreeMap<String, u64>, BTreeSet<u64>);

const SESSION: SessionId = SessionId { slot: 3, origin: 0, count: 1 << 40 | 1 };

/// Makes batches, and knows what is to be found after each.
struct Writer {
    random: Random,
    run: u64,
    messages: u64,
    state: State,
    /// After so many batches.
    states: Vec<State>,
    next: u64,
    /// The messages in the queue.
    bodies: BTreeMap<u64, MessageId>,
}

impl Writer {
    fn message(&mut self, topic: &str, value: u64) -> Message {
        self.messages += 1;
        let id = MessageId { origin: 0, count: self.run << 40 | self.messages };
        let payload = [&value.to_be_bytes()[..], &vec![7; self.random.below(600)]].concat();
        let (qos, retain, expires_at) = (QoS::AtLeastOnce, true, Instant::NEVER);
        let message = Publication { topic, qos, retain, properties: &[], payload: &payload, expires_at, id };
        message.to_message(&mut Vec::new())
    }

    /// Each changes several things that belong together.
    fn batch(&mut self) -> Batch {
        let mut ops = Vec::new();
        let upto = self.states.len() as u64;
        if upto == 1 {
            let state = Box::new(SessionState {
                client_id: "s".into(),
                username: None,
                listener: 0,
                expiry_s: u32::MAX,
                expires_at: Instant::NEVER,
                will: None,
                will_at: Instant::NEVER,
            });
            ops.push(StoreOp::Session { id: SESSION, state });
        }
        let pair = self.random.below(6);
        let removes = self.random.below(5) == 0;
        for topic in [format!("a/{pair}"), format!("b/{pair}")] {
            if removes {
                if self.state.0.remove(&topic).is_some() {
                    ops.push(StoreOp::Forget { slot: 1, topic: topic.into() });
                }
            } else {
                let message = self.message(&topic, upto);
                self.state.0.insert(topic, upto);
                ops.push(StoreOp::Retain { slot: 1, message });
            }
        }
        for _ in 0..self.random.below(4) {
            let message = self.message("q", self.next);
            let (ids, seq) = (SubscriptionIds::None, self.next);
            self.bodies.insert(seq, message.id());
            let delivery =
                Delivery { message, qos: QoS::AtLeastOnce, retain: false, ids, share: 0, seq, body: 0 };
            ops.push(StoreOp::Enqueue { id: SESSION, delivery });
            self.state.1.insert(self.next);
            self.next += 1;
        }
        // Now and then nearly all of it is taken.
        for _ in 0..self.random.below(if upto.is_multiple_of(64) { 80 } else { 3 }) {
            if let Some(seq) = self.state.1.pop_first() {
                ops.push(StoreOp::Done { id: SESSION, seq, body: self.bodies.remove(&seq) });
            }
        }
        self.states.push(self.state.clone());
        Batch { shard: 0, upto, ops }
    }
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("hikyaku-power-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn settings(&self) -> PersistenceSettings {
        PersistenceSettings { enabled: true, location: Some(self.0.clone()), ..Default::default() }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the store as a server does, with these batches; `disturb` is called before each. Returns how often it said that it
/// fails.
fn run(dir: &Dir, writer: &mut Writer, batches: usize, mut disturb: impl FnMut(usize)) -> usize {
    let opened = Opened::open(&dir.settings()).unwrap();
    let clock = Clock::start();
    let placement = Arc::new(Placement::new(opened.placement_key(), 1));
    let shard = Shard::new(0, 1, 7, Arc::new(Config::default()), placement.clone(), clock.now());
    let store = opened.recover(&mut [shard], &placement, clock).unwrap();
    writer.run += 1;
    let poll = mio::Poll::new().unwrap();
    let (letterbox, mailbox) = mailbox(poll.registry(), mio::Token(0)).unwrap();
    let (sender, thread) = store.start(Arc::new([letterbox])).unwrap();
    let (mut last, mut stored) = (0, 0);
    let (mut failures, mut fails) = (0, false);
    let mut await_stored = |last: u64| {
        while stored < last || fails {
            match mailbox.take() {
                Some(Letter::Stored { upto }) => {
                    assert!(!fails, "a promise of a store that fails");
                    stored = upto;
                }
                Some(Letter::StoreFailed(now)) => {
                    assert_ne!(fails, now);
                    fails = now;
                    failures += usize::from(now);
                }
                _ => std::thread::yield_now(),
            }
        }
    };
    for n in 0..batches {
        disturb(n);
        let batch = writer.batch();
        last = batch.upto;
        sender.send(batch).unwrap();
        // Groups of one and of many.
        if n % 50 > 30 && writer.random.below(3) > 0 {
            await_stored(last);
        }
    }
    await_stored(last);
    drop(sender);
    thread.join().unwrap().unwrap();
    failures
}

/// What a start finds.
fn found(dir: &Dir) -> State {
    let mut opened = Opened::open(&dir.settings()).unwrap();
    let clock = Clock::start();
    let mut lines = Vec::new();
    let mut found = recover::check(&mut opened.fold, clock, &mut |line| lines.push(line)).unwrap();
    recover::take_stock(&opened.fold, &mut found, clock, &mut |line| lines.push(line)).unwrap();
    assert!(lines.is_empty() && found.damaged.is_empty(), "{lines:?}");
    let mut state = State::default();
    let view = &opened.fold.view;
    let value = |message: Message| u64::from_be_bytes(*message.payload().first_chunk().unwrap());
    let visited = view.visit([0].into()..=[u8::MAX].into(), |key, bytes| {
        let body = |id| value(view.body(id, clock.of_store()).unwrap().unwrap());
        match read(key, bytes, clock.of_store()).unwrap() {
            Record::Retained { topic, body: id, .. } => drop(state.0.insert(topic.into(), body(id))),
            Record::Queued(_, seq, queued) => {
                assert_eq!(body(queued.body), seq);
                state.1.insert(seq);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    visited.unwrap();
    state
}

fn writer(seed: u64) -> Writer {
    Writer {
        random: Random(seed),
        run: 0,
        messages: 0,
        state: State::default(),
        states: vec![State::default()],
        next: 1,
        bodies: BTreeMap::new(),
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

#[test]
fn what_was_confirmed_survives_a_power_failure_at_any_moment() {
    let seed = number("SEED", 20_260_101) as u64;
    let dir = Dir::new("real");
    let path = dir.0.join(super::DIRECTORY);
    RECORDED.lock().unwrap().insert(path.clone(), Vec::new());
    let mut writer = writer(seed);
    let failures = run(&dir, &mut writer, 700, |_| {}) + run(&dir, &mut writer, 500, |_| {});
    assert_eq!(failures, 0);
    let events = RECORDED.lock().unwrap().remove(&path).unwrap();
    let count = |of: fn(&Event) -> bool| events.iter().filter(|(_, event)| of(event)).count();
    let removed = count(|e| matches!(e, Event::Remove));
    assert!(removed >= 10, "{removed} segments in {} events", events.len());
    assert!(events.iter().any(|(name, _)| name == "attempts"), "the engine's calls are not counted");
    fail_power(&events, &writer, seed, 3);
}

#[test]
fn what_was_confirmed_survives_a_disk_that_fails_and_then_the_power() {
    let seed = number("SEED", 1) as u64;
    let dir = Dir::new("failing");
    let path = dir.0.join(super::DIRECTORY);
    RECORDED.lock().unwrap().insert(path.clone(), Vec::new());
    let (mut writer, mut random) = (writer(seed), Random(seed ^ 0xD15C));
    run(&dir, &mut writer, 100, |_| {});
    let failures = run(&dir, &mut writer, 900, |n| {
        if n % 20 == 0 {
            let op = if random.below(2) == 0 { Op::Write } else { Op::Sync };
            let begin = if random.below(3) == 0 { super::BASE } else { "journal-" };
            let fault = (op, begin, 1 + random.below(3) as u32);
            FAULTS.lock().unwrap().insert(path.clone(), fault);
        }
    });
    FAULTS.lock().unwrap().remove(&path);
    let events = RECORDED.lock().unwrap().remove(&path).unwrap();
    let failed = |begin| {
        let of =
            |(name, event): &&(String, Event)| name.starts_with(begin) && matches!(event, Event::SyncFailed);
        events.iter().filter(of).count()
    };
    let counts = (failures, failed("journal-"), failed(super::BASE));
    assert!(counts.0 > 10 && counts.1 > 5 && counts.2 > 0, "{counts:?} failures, and syncs that failed");
    // Each attempt to go on begins another.
    fail_power(&events, &writer, seed, usize::MAX);
}

/// Cuts the power at many moments, and looks what a start finds.
fn fail_power(events: &[(String, Event)], writer: &Writer, seed: u64, segments_max: usize) {
    let cuts = number("CUTS", 120);
    let mut random = Random(seed ^ 0x5DEE_CE66);
    let mut moments: Vec<usize> = (0..cuts).map(|_| random.below(events.len() + 1)).collect();
    // While the very first files are made, too.
    moments.extend((0..40).map(|moment| moment / 2));
    moments.sort_unstable();
    let mut files: BTreeMap<&str, Simulated> = BTreeMap::new();
    let (mut at, mut confirmed, mut torn) = (0, 0, 0);
    for moment in moments {
        for (name, event) in &events[at..moment] {
            match event {
                Event::Stored(upto) => confirmed = *upto,
                Event::Rename => {
                    let file = files.remove(&**name).unwrap();
                    files
                        .insert(name.strip_suffix(".new").unwrap(), Simulated { name_synced: false, ..file });
                }
                Event::SyncNames => files.values_mut().for_each(|file| file.name_synced = file.name),
                event => files.entry(name).or_default().handle(event),
            }
        }
        at = moment;
        let image = Dir::new(&format!("image-{seed}"));
        let store = image.0.join(super::DIRECTORY);
        fs::create_dir(&store).unwrap();
        for (name, file) in &files {
            if let Some(bytes) = file.left(&mut random) {
                fs::write(store.join(name), bytes).unwrap();
            } else if *name == super::BASE {
                // It still has the name it was made under.
                fs::write(store.join("base.redb.new"), &file.synced[..file.synced.len() / 2]).unwrap();
            }
            torn += usize::from(!file.unsynced.is_empty());
        }
        let state = found(&image);
        let fits = |after: &usize| writer.states[*after] == state;
        let after = (0..writer.states.len()).rev().find(fits);
        assert!(
            after.is_some_and(|after| after as u64 >= confirmed),
            "SEED={seed}: event {moment} of {}: {confirmed} batches were confirmed, the state is that after {after:?}: \
             {state:?}, not {:?}",
            events.len(),
            writer.states[confirmed as usize]
        );
        assert!(!store.join("base.redb.damaged-1").exists(), "a power failure passes for damage");
        // It can go on from there.
        let segments = journal::segments(&store).unwrap();
        assert!(segments.len() <= segments_max, "{segments:?}");
    }
    assert!(torn > cuts / 2, "only {torn} files had anything to lose");
}
