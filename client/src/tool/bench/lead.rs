//! The main thread of a run: it leads the workers through the phases, and gathers what they count.

use super::meter::Meter;
use super::report::Progress;
use super::run::{Done, Phase, Run};
use super::wanted::Mode;
use super::worker::{Outcome, WAKE, Worker, lock};
use mio::{Poll, Waker};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often is looked whether something has to end.
const LOOK: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// What a run was.
#[derive(Debug)]
pub(super) struct Ended {
    pub total: Meter,
    pub outcome: Outcome,
    pub timing: Timing,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    /// How long connecting took.
    pub connecting: Duration,
    /// From when to when messages were sent, but for the warm-up; nanoseconds.
    pub from: u64,
    pub to: u64,
    /// What the processors did for this program from beginning to send to the last that came.
    pub cpu: Duration,
}

/// Does all of a run.
pub(super) fn lead(run: &mut Run, progress: Progress, stopped: &AtomicBool) -> io::Result<Ended> {
    let mut polls = Vec::new();
    for _ in 0..run.wanted.threads {
        let poll = Poll::new()?;
        run.wakers.push(Waker::new(poll.registry(), WAKE)?);
        polls.push(poll);
    }
    let run = &*run;
    run.enter(Phase::Subscribe);
    let (sender, done) = channel();
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (number, poll) in polls.into_iter().enumerate() {
            let sender = sender.clone();
            let work = move || Worker::new(run, number, poll, sender).work();
            workers.push(thread::Builder::new().name(format!("worker {number}")).spawn_scoped(scope, work));
        }
        drop(sender);
        let mut leader = Leader {
            run,
            done,
            stopped,
            progress,
            spare: Meter::default(),
            total: Meter::default(),
            shown: Instant::now(),
        };
        let timing = leader.all_phases();
        run.enter(Phase::Close);
        let mut outcome = Outcome::default();
        for worker in workers {
            let ended = worker?.join().map_err(|_| io::Error::other("a thread has panicked"))??;
            outcome.lost += ended.lost;
            outcome.unsent += ended.unsent;
        }
        leader.gather();
        Ok(Ended { total: leader.total, outcome, timing })
    })
}

struct Leader<'r> {
    run: &'r Run,
    done: Receiver<Done>,
    stopped: &'r AtomicBool,
    progress: Progress,
    spare: Meter,
    total: Meter,
    shown: Instant,
}

impl Leader<'_> {
    fn all_phases(&mut self) -> Timing {
        let mut timing = Timing::default();
        let began = Instant::now();
        self.wait(Phase::Subscribe, None);
        self.run.enter(Phase::Connect);
        self.wait(Phase::Connect, None);
        timing.connecting = began.elapsed();
        let cpu = cpu();
        let wanted = &self.run.wanted;
        timing.from = self.run.clock.now() + wanted.warmup.as_nanos() as u64;
        self.run.measured_from.store(timing.from, Ordering::Relaxed);
        self.run.enter(Phase::Send);
        self.wait(Phase::Send, wanted.duration(self.run.count).map(|duration| duration + wanted.warmup));
        timing.to = self.run.clock.now();
        self.run.enter(Phase::Stop);
        self.wait(Phase::Stop, None);
        // Also when a signal came: what is underway is not lost.
        self.run.enter(Phase::Drain);
        self.wait(Phase::Drain, None);
        self.gather();
        timing.cpu = self::cpu().saturating_sub(cpu);
        if self.run.count.is_some() {
            let counts = &self.total.counts;
            timing.to = timing.to.min(counts.last_sent.max(counts.last));
        }
        timing
    }

    /// Waits until all workers have done what the phase asks of them, or for so long.
    fn wait(&mut self, phase: Phase, most: Option<Duration>) {
        let deadline = most.map(|most| Instant::now() + most);
        let counted = self.run.count.filter(|_| phase == Phase::Send && self.run.wanted.mode() == Mode::Sub);
        let mut left = self.run.wanted.threads;
        let stopped = self.is_stopped();
        while left > 0 {
            let now = Instant::now();
            let over = deadline.is_some_and(|deadline| deadline <= now);
            // What a signal does not cut short ends soon by itself.
            if over || self.is_stopped() && (!stopped || phase < Phase::Stop) {
                return;
            }
            if self.shown + SECOND <= now {
                self.shown += SECOND;
                self.gather();
            }
            if counted.is_some_and(|count| {
                let waiting = (0..self.run.wanted.threads).map(|w| lock(self.run, w).counts.received);
                self.total.counts.received + waiting.sum::<u64>() >= count.into()
            }) {
                return;
            }
            let step = deadline.map_or(LOOK, |deadline| LOOK.min(deadline - now));
            match self.done.recv_timeout(step) {
                Ok(Done(of)) if of == phase => left -= 1,
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                // They have all ended, for a reason that they will say.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes what the workers have counted, and shows it.
    fn gather(&mut self) {
        let mut last = Meter::default();
        for worker in 0..self.run.wanted.threads {
            // The worker gets an empty one at once.
            std::mem::swap(&mut *lock(self.run, worker), &mut self.spare);
            last.take(&mut self.spare);
        }
        let (before, now) = (&self.total.counts, &last.counts);
        let open = (before.opened + now.opened).saturating_sub(before.broken + now.broken);
        self.progress.show(self.run, &last, open);
        self.total.take(&mut last);
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
