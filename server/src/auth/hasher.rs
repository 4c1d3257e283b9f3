//! Checking passwords costs milliseconds on purpose: it happens on threads of its own.
//!
//! What waits is bounded, in number, in bytes and in time; a client beyond that is told that the server is busy.
//!
//! Who fails often is slowed down: after [`FREE_FAILURES`] from one address each further answer to
//! it, right or wrong, is held back, [`DELAY_STEP`] longer each time up to [`DELAY_MAX`], and
//! no more than [`PENDING_MAX`] questions from it are taken at once. [`FORGET`] without a failure ends that. A success
//! makes good the failures of the same user name, and no others: who has an account could try the passwords of
//! others at full speed. IPv6 addresses count by their /64, all clients of unix sockets as one address with higher
//! limits. Nobody else waits for an answer that is held back.

use super::scram::Secrets;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use hikyaku_proto::broker::Verdict;
use hikyaku_proto::codec::ReasonCode;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many questions may wait.
const WAITING_MAX: usize = 1024;
/// How many bytes of names, passwords and proofs may wait.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Who has waited longer than this is told that the server is busy: before the time for CONNECT (10 s) is over,
/// when nothing could be told any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// Failures from one address that cost nothing extra.
const FREE_FAILURES: u32 = 5;
/// How many addresses the unix sockets count for.
const UNIX_FACTOR: u32 = 8;
/// The user names of an address whose failures can be made good.
const NAMES_MAX: usize = 8;
/// How much later each further answer comes.
const DELAY_STEP: Duration = Duration::from_millis(100);
/// How late an answer gets at most.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// How many questions of an address that fails often are taken at once.
const PENDING_MAX: u32 = 8;
/// After this long without a failure an address is as good as any.
const FORGET: Duration = Duration::from_secs(300);
/// How many addresses are remembered.
const ADDRESSES_MAX: usize = 4096;

/// Who wants to come in.
pub(crate) struct Question {
    /// Finds the verdict, and may take its time. It is a failure if it is no success.
    pub(crate) check: Box<dyn FnOnce() -> Verdict + Send>,
    /// What it holds meanwhile.
    pub(crate) bytes: usize,
    /// `None` for unix sockets.
    pub(crate) address: Option<IpAddr>,
    pub(crate) user: UserKey,
    /// Called once, on whichever thread; must not take long.
    pub(crate) answer: Box<dyn FnOnce(Verdict) + Send>,
}

/// Stands for a user name: a name may be long, and all that is asked of it is whether it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserKey(u64);

/// The threads that check passwords. Dropped, they end; who waits gets no answer.
#[derive(Debug)]
pub(crate) struct Hasher {
    questions: Option<Sender<Waiting>>,
    queue: Receiver<Waiting>,
    shared: Arc<Shared>,
    /// Empty until the first question.
    threads: Mutex<Vec<JoinHandle<()>>>,
    threads_max: usize,
    /// When it was said last that a user has no keys for SCRAM.
    pub(super) keyless_said: Arc<Mutex<Option<Instant>>>,
    keys: RandomState,
    /// For users that SCRAM does not find.
    pub(super) secrets: Secrets,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    ended: AtomicBool,
    addresses: Mutex<Addresses>,
}

struct Waiting {
    question: Question,
    since: Instant,
}

/// An answer that is held back.
struct Held {
    until: Instant,
    verdict: Verdict,
    answer: Box<dyn FnOnce(Verdict) + Send>,
    address: Option<IpAddr>,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (questions, queue) = bounded(WAITING_MAX);
        let threads_max = if cores > 2 { 2 } else { 1 };
        Hasher {
            questions: Some(questions),
            queue,
            shared: Arc::default(),
            threads: Mutex::default(),
            threads_max,
            keys: RandomState::new(),
            secrets: Secrets::default(),
            keyless_said: Arc::default(),
        }
    }

    pub(crate) fn key_of(&self, username: &str) -> UserKey {
        UserKey(self.keys.hash_one(username))
    }

    /// Asks for a verdict. It may be given before this returns.
    pub(crate) fn ask(&self, question: Question) {
        let bytes = question.bytes;
        let refused = if !self.is_running() || !self.shared.addresses().begin(question.address) {
            Some(question)
        } else if self.shared.bytes.fetch_add(bytes, Relaxed) + bytes > WAITING_BYTES_MAX {
            self.shared.settle(bytes, question.address);
            Some(question)
        } else {
            self.enqueue(Waiting { question, since: Instant::now() })
        };
        if let Some(question) = refused {
            log::debug!("A password is not checked, too many are being checked.");
            (question.answer)(Verdict::Failure(ReasonCode::ServerBusy));
        }
    }

    fn enqueue(&self, waiting: Waiting) -> Option<Question> {
        let sender = self.questions.as_ref()?;
        match sender.try_send(waiting) {
            Ok(()) => None,
            Err(TrySendError::Full(waiting) | TrySendError::Disconnected(waiting)) => {
                let question = waiting.question;
                self.shared.settle(question.bytes, question.address);
                Some(question)
            }
        }
    }

    /// Starts the threads, the first time. False if the system has none.
    fn is_running(&self) -> bool {
        let mut threads = lock(&self.threads);
        if !threads.is_empty() {
            return true;
        }
        for i in 0..self.threads_max {
            let (queue, shared) = (self.queue.clone(), Arc::clone(&self.shared));
            let thread = std::thread::Builder::new().name(format!("hasher {i}"));
            match thread.spawn(move || run(&queue, &shared)) {
                Ok(thread) => threads.push(thread),
                Err(e) => log::error!("No thread to check passwords on: {e}."),
            }
        }
        !threads.is_empty()
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        self.questions = None;
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("address", &self.question.address).finish_non_exhaustive()
    }
}

fn run(queue: &Receiver<Waiting>, shared: &Shared) {
    let mut held: BinaryHeap<Held> = BinaryHeap::new();
    loop {
        let now = Instant::now();
        while held.peek().is_some_and(|h| h.until <= now) {
            if let Some(due) = held.pop() {
                shared.addresses().end(due.address);
                (due.answer)(due.verdict);
            }
        }
        let next = match held.peek() {
            Some(first) => queue.recv_deadline(first.until),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let waiting = match next {
            _ if shared.ended.load(Relaxed) => return,
            Ok(waiting) => waiting,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        held.extend(check(waiting, shared));
    }
}

/// Answers, or says what to answer later.
fn check(waiting: Waiting, shared: &Shared) -> Option<Held> {
    let Waiting { question, since } = waiting;
    let Question { check, bytes, address, user, answer } = question;
    if since.elapsed() > PATIENCE {
        shared.settle(bytes, address);
        answer(Verdict::Failure(ReasonCode::ServerBusy));
        return None;
    }
    let verdict = check();
    shared.bytes.fetch_sub(bytes, Relaxed);
    let now = Instant::now();
    let success = matches!(verdict, Verdict::Success { .. });
    let delay = shared.addresses().judge(now, address, user, success);
    if delay.is_zero() {
        shared.addresses().end(address);
        answer(verdict);
        return None;
    }
    Some(Held { until: now + delay, verdict, answer, address })
}

impl Shared {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        lock(&self.addresses)
    }

    fn settle(&self, bytes: usize, address: Option<IpAddr>) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.addresses().end(address);
    }
}

/// The addresses that failed lately.
#[derive(Debug, Default)]
struct Addresses(HashMap<Source, Record>);

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Address(IpAddr),
    Unix,
}

#[derive(Debug)]
struct Record {
    failures: u32,
    last: Instant,
    /// Questions that are not answered, as far as they came after the first failure.
    pending: u32,
    /// Failures by user name.
    names: Vec<(UserKey, u32)>,
}

impl Addresses {
    /// A question comes. False if it is one too many.
    fn begin(&mut self, address: Option<IpAddr>) -> bool {
        let source = Source::of(address);
        let Some(record) = self.0.get_mut(&source) else { return true };
        let slowed = record.failures > FREE_FAILURES * source.factor() && record.last.elapsed() < FORGET;
        if slowed && record.pending >= PENDING_MAX * source.factor() {
            return false;
        }
        record.pending += 1;
        true
    }

    /// A question was answered.
    fn end(&mut self, address: Option<IpAddr>) {
        if let Some(record) = self.0.get_mut(&Source::of(address)) {
            record.pending = record.pending.saturating_sub(1);
        }
    }

    /// How long to hold an answer back.
    fn judge(&mut self, now: Instant, address: Option<IpAddr>, user: UserKey, success: bool) -> Duration {
        let source = Source::of(address);
        self.0.retain(|s, r| *s != source || now.duration_since(r.last) < FORGET);
        if success {
            let Some(record) = self.0.get_mut(&source) else { return Duration::ZERO };
            let delay = source.delay(record.failures);
            record.make_good(user);
            if record.failures == 0 {
                self.0.remove(&source);
            }
            return delay;
        }
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&source) {
            self.make_room(now);
        }
        let new = Record { failures: 0, last: now, pending: 0, names: Vec::new() };
        let record = self.0.entry(source).or_insert(new);
        record.failures = record.failures.saturating_add(1);
        record.last = now;
        if let Some((_, failures)) = record.names.iter_mut().find(|(name, _)| *name == user) {
            *failures = failures.saturating_add(1);
        } else if record.names.len() < NAMES_MAX {
            record.names.push((user, 1));
        }
        source.delay(record.failures)
    }

    /// Forgets the older half: rarely, so that it costs little each time.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, r| now.duration_since(r.last) < FORGET);
        if self.0.len() >= ADDRESSES_MAX {
            let mut times: Vec<Instant> = self.0.values().map(|r| r.last).collect();
            let (_, &mut middle, _) = times.select_nth_unstable(ADDRESSES_MAX / 2);
            self.0.retain(|_, r| r.last > middle);
        }
    }
}

impl Record {
    /// The user has shown who it is.
    fn make_good(&mut self, user: UserKey) {
        if let Some(at) = self.names.iter().position(|(name, _)| *name == user) {
            let (_, failures) = self.names.swap_remove(at);
            self.failures = self.failures.saturating_sub(failures);
        }
    }
}

impl Source {
    fn of(address: Option<IpAddr>) -> Source {
        address.map_or(Source::Unix, |address| Source::Address(network(address)))
    }

    /// How many times as much as other addresses it may.
    fn factor(self) -> u32 {
        if self == Source::Unix { UNIX_FACTOR } else { 1 }
    }

    fn delay(self, failures: u32) -> Duration {
        let beyond = failures.saturating_sub(FREE_FAILURES * self.factor());
        (DELAY_STEP * beyond.min(100)).min(DELAY_MAX)
    }
}

/// What counts as one address: who has an IPv6 address has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks holds whatever a panic interrupted.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ord for Held {
    /// The next to be due is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.until.cmp(&self.until)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Held {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::{Hash, PasswordFile, Scheme};
    use std::sync::mpsc;

    fn passwords(scheme: Scheme) -> Arc<PasswordFile> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hikyaku-hasher-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, format!("ann:{}\n", Hash::create(scheme, b"right").unwrap())).unwrap();
        let file = PasswordFile::read(&path, &mut Vec::new()).unwrap();
        std::fs::remove_file(&path).unwrap();
        Arc::new(file)
    }

    fn ask(hasher: &Hasher, file: &Arc<PasswordFile>, password: &[u8], from: u32) -> mpsc::Receiver<Verdict> {
        let (sender, verdict) = mpsc::channel();
        let (file, password) = (Arc::clone(file), password.to_vec());
        hasher.ask(Question {
            bytes: password.len(),
            check: Box::new(move || file.judge("ann", Some(&password))),
            address: Some(IpAddr::V4(from.into())),
            user: hasher.key_of("ann"),
            answer: Box::new(move |verdict| sender.send(verdict).unwrap()),
        });
        verdict
    }

    const ANN: UserKey = UserKey(1);
    const BOB: UserKey = UserKey(2);
    const BUSY: Verdict = Verdict::Failure(ReasonCode::ServerBusy);
    const WRONG: Verdict = Verdict::Failure(ReasonCode::NotAuthorized);

    #[test]
    fn passwords_are_told_apart() {
        let (hasher, file) = (Hasher::new(), passwords(Scheme::Sha512));
        assert_eq!(
            ask(&hasher, &file, b"right", 1).recv(),
            Ok(Verdict::Success { username: None, data: None })
        );
        assert_eq!(ask(&hasher, &file, b"wrong", 1).recv(), Ok(WRONG));
    }

    #[test]
    fn a_full_queue_says_so_and_recovers() {
        let (hasher, file) = (Hasher::new(), passwords(Scheme::Argon2id));
        let asked: Vec<_> =
            (0..WAITING_MAX as u32 + 20).map(|from| ask(&hasher, &file, b"right", from)).collect();
        assert_eq!(asked.last().unwrap().recv(), Ok(BUSY), "at once");
        let large = vec![0; WAITING_BYTES_MAX + 1];
        assert_eq!(ask(&hasher, &file, &large, 0).recv(), Ok(BUSY));
        assert!(asked[0].recv().is_ok_and(|v| v != BUSY));
        drop(hasher); // Does not wait for the others.
    }

    #[test]
    fn who_fails_often_waits_and_nobody_else() {
        let (hasher, file) = (Hasher::new(), passwords(Scheme::Sha512));
        let begin = Instant::now();
        for _ in 0..=FREE_FAILURES + 1 {
            assert_eq!(ask(&hasher, &file, b"wrong", 1).recv(), Ok(WRONG));
        }
        assert!(begin.elapsed() >= DELAY_STEP * 3);
        let asked: Vec<_> = (0..=PENDING_MAX).map(|_| ask(&hasher, &file, b"wrong", 1)).collect();
        assert_eq!(asked[PENDING_MAX as usize].recv(), Ok(BUSY));
        let begin = Instant::now();
        assert_ne!(ask(&hasher, &file, b"right", 2).recv(), Ok(WRONG));
        assert!(begin.elapsed() < DELAY_STEP, "another address does not wait");
        assert_eq!(asked[PENDING_MAX as usize - 1].recv(), Ok(WRONG));
        assert!(ask(&hasher, &file, b"right", 1).recv().is_ok_and(|v| v != WRONG && v != BUSY));
        let begin = Instant::now();
        assert_eq!(ask(&hasher, &file, b"wrong", 1).recv(), Ok(WRONG));
        assert!(begin.elapsed() < DELAY_STEP, "forgiven");
    }

    #[test]
    fn addresses_are_bounded_and_forgotten() {
        let mut addresses = Addresses::default();
        let start = Instant::now();
        let at = |n: u32| Some(IpAddr::V4(n.into()));
        for n in 0..3 * ADDRESSES_MAX as u32 {
            assert_eq!(
                addresses.judge(start + Duration::from_millis(n.into()), at(n), ANN, false),
                Duration::ZERO
            );
            assert!(addresses.0.len() <= ADDRESSES_MAX);
        }
        let last = 3 * ADDRESSES_MAX as u32 - 1;
        let now = start + Duration::from_secs(60);
        let delays: Vec<_> =
            (0..30).map(|_| addresses.judge(now, at(last), ANN, false).as_millis()).collect();
        assert_eq!((delays[3], delays[4], delays[13], delays[29]), (0, 100, 1000, 1000));
        assert_eq!(addresses.judge(now + FORGET, at(last), ANN, false), Duration::ZERO);
        let v6 = |host: u128| Some(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host)));
        let delays: Vec<_> =
            (0..6).map(|host| addresses.judge(now, v6(host), ANN, false).as_millis()).collect();
        assert_eq!(delays[5], 100);
    }

    #[test]
    fn a_success_makes_good_the_failures_of_its_user_only() {
        let mut addresses = Addresses::default();
        let now = Instant::now();
        let at = Some(IpAddr::V4(1.into()));
        // Whoever has an account uses it between guesses.
        let mut delays = Vec::new();
        for _ in 0..4 {
            for _ in 0..4 {
                delays.push(addresses.judge(now, at, BOB, false).as_millis());
            }
            addresses.judge(now, at, ANN, false);
            addresses.judge(now, at, ANN, true);
        }
        assert_eq!(delays[..7], [0, 0, 0, 0, 0, 100, 200]);
        assert_eq!(delays.last(), Some(&1000));
        assert_eq!(addresses.judge(now, at, BOB, true).as_millis(), 1000);
        assert!(addresses.0.is_empty(), "all is made good");
        // Names are not remembered without end.
        for name in 0..100 {
            addresses.judge(now, at, UserKey(name), false);
        }
        assert_eq!(addresses.0[&Source::of(at)].names.len(), NAMES_MAX);
    }

    #[test]
    fn unix_sockets_count_as_one_patient_address() {
        let mut addresses = Addresses::default();
        let now = Instant::now();
        let free = FREE_FAILURES * UNIX_FACTOR;
        for _ in 0..free {
            assert_eq!(addresses.judge(now, None, ANN, false), Duration::ZERO);
        }
        assert_eq!(addresses.judge(now, None, ANN, false), DELAY_STEP);
        assert!((0..PENDING_MAX * UNIX_FACTOR).all(|_| addresses.begin(None)));
        assert!(!addresses.begin(None));
    }
}
