//! Where the messages of a subscription wait for the program.

use crate::message::Acks;
use crate::state::Inner;
use crate::{Error, Message, ReasonCode};
use hikyaku_proto::client::Received;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Popped = (Received, Option<Acks>);

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Popped>,
    closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a message; tells how many wait now.
    pub fn push(&self, message: Received, acks: Option<Acks>) -> usize {
        let mut waiting = self.lock();
        waiting.messages.push_back((message, acks));
        self.arrived.notify_one();
        waiting.messages.len()
    }

    pub fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// No more messages will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// The next message, `None` when none came in time.
    fn pop(&self, deadline: Option<Instant>) -> Result<Option<(Popped, usize)>, Error> {
        let mut waiting = self.lock();
        loop {
            if let Some(message) = waiting.messages.pop_front() {
                return Ok(Some((message, waiting.messages.len())));
            }
            if waiting.closed {
                return Err(Error::Closed);
            }
            waiting = match deadline {
                None => self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The messages of one SUBSCRIBE, in the order they came; an iterator that ends with the client.
///
/// Dropping it unsubscribes. It outlives lost connections; when the server loses the session it is made again.
///
/// ```no_run
/// use hikyaku_client::{Client, Error, QoS, RetainHandling, SubscribeOptions};
///
/// fn watch(client: &Client) -> Result<(), Error> {
///     let options = SubscribeOptions {
///         retain_handling: RetainHandling::DoNotSend,
///         ..SubscribeOptions::new(QoS::AtLeastOnce)
///     };
///     for message in &client.subscribe_with("sensors/#", options)? {
///         println!("{}", message.topic());
///     }
///     Ok(())
/// }
/// ```
pub struct Subscription {
    inner: Arc<Inner>,
    id: u32,
    queue: Arc<Queue>,
    codes: Vec<ReasonCode>,
}

impl Subscription {
    pub(crate) fn new(inner: Arc<Inner>, id: u32, queue: Arc<Queue>) -> Self {
        Subscription { inner, id, queue, codes: Vec::new() }
    }

    pub(crate) fn number(&self) -> u32 {
        self.id
    }

    pub(crate) fn answered(&mut self, first: ReasonCode, rest: Vec<ReasonCode>) {
        self.codes = rest;
        self.codes.insert(0, first);
    }

    /// What the server said to each topic filter, in order: the granted QoS or an error.
    pub fn codes(&self) -> &[ReasonCode] {
        &self.codes
    }

    /// Waits for the next message. `None` when none came in time; [`Error::Closed`] when the client is closed
    /// and no message is left.
    pub fn recv(&self, timeout: Duration) -> Result<Option<Message>, Error> {
        self.next_before(Instant::now().checked_add(timeout))
    }

    /// The next message if there is one.
    pub fn try_recv(&self) -> Result<Option<Message>, Error> {
        self.recv(Duration::ZERO)
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next_before(&self, deadline: Option<Instant>) -> Result<Option<Message>, Error> {
        let Some(((received, acks), left)) = self.queue.pop(deadline)? else { return Ok(None) };
        // Exactly when it gets there, so that it costs one wake-up; the thread looks at the other queues.
        if left == self.inner.behavior.queue_messages.max(1) / 2 && self.inner.state.lock().paused {
            self.inner.wake();
        }
        Ok(Some(Message::new(received, acks.map(|acks| (acks, self.inner.clone())))))
    }
}

impl Iterator for &Subscription {
    type Item = Message;

    /// Waits as long as it takes.
    fn next(&mut self) -> Option<Message> {
        self.next_before(None).ok().flatten()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).field("waiting", &self.len()).finish()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.end_subscription(self.inner.now(), self.id);
        // It may have been the queue that was full.
        self.inner.wake();
    }
}
