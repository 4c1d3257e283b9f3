//! What the caller's threads and the network thread share: the protocol's state machine, who waits for
//! which answer, and the queues of messages.

use crate::subscription::Queue;
use crate::{Behavior, Error, Reconnect};
use hikyaku_proto::client::{self, By, Dropped, Event, Options, Received, SendError, Ticket};
use hikyaku_proto::codec::{Properties, PropertiesBuf, Property, ReasonCode, SubscribeOptions};
use hikyaku_proto::time::Instant;
use hikyaku_proto::topic::TopicFilter;
use log::{debug, info};
use mio::Waker;
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time;

/// What comes of a ticket.
pub(crate) type Answer = Result<ReasonCode, Dropped>;

/// How far a client has come.
#[derive(Debug)]
pub(crate) enum Status {
    /// The first connection is being made.
    Starting,
    /// There is a connection.
    Connected,
    /// There was one, and there will be again.
    Waiting,
    /// It is over; why, until somebody has been told.
    Ended(Option<Error>),
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub behavior: Behavior,
    state: Mutex<State>,
    changed: Condvar,
    waker: Waker,
    started: time::Instant,
}

impl Inner {
    pub fn new(options: Options, behavior: Behavior, waker: Waker) -> Inner {
        let state = State {
            client: client::Client::new(options),
            status: Status::Starting,
            stopping: false,
            paused: false,
            queue_messages: behavior.queue_messages.max(1),
            reconnects: behavior.reconnect != Reconnect::Never,
            answers: HashMap::new(),
            subscriptions: BTreeMap::new(),
            last_subscription: 0,
        };
        Inner {
            behavior,
            state: Mutex::new(state),
            changed: Condvar::new(),
            waker,
            started: time::Instant::now(),
        }
    }

    pub fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the network thread has changed something.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Inner::wait`]; `None` when `deadline` has passed.
    pub fn wait_until<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: time::Instant,
    ) -> Option<MutexGuard<'a, State>> {
        let left = deadline.checked_duration_since(time::Instant::now())?;
        let waited = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        Some(waited.0)
    }

    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Wakes the network thread. It cannot fail but for the lack of file descriptors' life, which ends all.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            debug!("Cannot wake the network thread: {error}.");
        }
    }

    /// Runs a command of the caller and lets the network thread send what came of it.
    pub fn command<T>(
        &self,
        command: impl FnOnce(&mut State, Instant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = self.lock();
        if !state.is_alive() {
            return Err(state.end());
        }
        let empty = state.client.outbox().is_empty();
        let result = command(&mut state, self.now());
        // What already waits to be written has a thread on its way.
        if empty && !state.client.outbox().is_empty() {
            self.wake();
        }
        result
    }
}

/// A subscription the caller holds.
#[derive(Debug)]
pub(crate) struct Entry {
    filter: String,
    options: SubscribeOptions,
    queue: Arc<Queue>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub client: client::Client,
    pub status: Status,
    /// The caller wants no more connections.
    pub stopping: bool,
    /// A queue is full: nothing is read.
    pub paused: bool,
    queue_messages: usize,
    reconnects: bool,
    answers: HashMap<Ticket, SyncSender<Answer>>,
    pub subscriptions: BTreeMap<u32, Entry>,
    last_subscription: u32,
}

impl State {
    pub fn is_alive(&self) -> bool {
        !matches!(self.status, Status::Ended(_))
    }

    /// Why it is over: the reason for the first who asks.
    pub fn end(&mut self) -> Error {
        match &mut self.status {
            Status::Ended(error) => error.take().unwrap_or(Error::Closed),
            _ => Error::Closed,
        }
    }

    /// Says goodbye, once.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        let goodbye = self.client.disconnect(now, ReasonCode::NormalDisconnection, Properties::EMPTY);
        debug!("Closing the client: {goodbye:?}.");
    }

    /// It is over: everyone who waits is let go.
    pub fn finish(&mut self, error: Error) {
        if self.is_alive() {
            self.status = Status::Ended(Some(error));
        }
        self.answers.clear();
        self.subscriptions.values().for_each(|s| s.queue.close());
    }

    /// Where the answer to a ticket will come.
    pub fn expect(&mut self, ticket: Ticket) -> Receiver<Answer> {
        let (sender, receiver) = sync_channel(1);
        self.answers.insert(ticket, sender);
        receiver
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(sender) = self.answers.remove(&ticket) {
            // Nobody may be waiting.
            let _ = sender.try_send(answer);
        }
    }

    pub fn add_subscription(&mut self, filter: &str, options: SubscribeOptions) -> (u32, Arc<Queue>) {
        self.last_subscription += 1;
        let queue = Arc::new(Queue::default());
        let entry = Entry { filter: String::from(filter), options, queue: queue.clone() };
        self.subscriptions.insert(self.last_subscription, entry);
        (self.last_subscription, queue)
    }

    /// Ends a subscription; the server is told if nobody else has the same filter.
    pub fn end_subscription(&mut self, now: Instant, id: u32) {
        let Some(entry) = self.subscriptions.remove(&id) else { return };
        if self.subscriptions.values().all(|other| other.filter != entry.filter) {
            // Without a connection, and a session, there is nothing to end.
            let _ = self.client.unsubscribe(now, &[&entry.filter], Properties::EMPTY);
        }
    }

    /// Sends the SUBSCRIBE of a subscription.
    pub fn request_subscription(&mut self, now: Instant, id: u32) -> Result<Ticket, SendError> {
        let Some(entry) = self.subscriptions.get(&id) else {
            return Err(SendError::NotConnected);
        };
        let mut properties = PropertiesBuf::default();
        if self.client.options().version.is_v5() && self.client.server().subscription_ids_available {
            properties.push(Property::SubscriptionIdentifier(id));
        }
        self.client.subscribe(now, &[(&entry.filter, entry.options)], properties.as_properties())
    }

    /// Hands out what the state machine has to say.
    pub fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Connected(connected) => {
                    info!("Connected; session present: {}.", connected.session_present);
                    if self.stopping {
                        continue;
                    }
                    self.status = Status::Connected;
                    if !connected.session_present {
                        self.subscribe_again(now);
                    }
                }
                Event::Refused { reason, .. } => self.on_refused(reason),
                Event::Message(received) => self.on_message(received),
                Event::Published { ticket, reason } => self.answer(ticket, Ok(reason)),
                Event::Dropped { ticket, why } => self.answer(ticket, Err(why)),
                Event::Subscribed { ticket, codes, .. } | Event::Unsubscribed { ticket, codes, .. } => {
                    let code = codes.first().copied().unwrap_or(ReasonCode::UnspecifiedError);
                    self.answer(ticket, Ok(code));
                }
                Event::Disconnected { by, .. } => self.on_disconnected(by),
                Event::Auth { .. } => {
                    // Methods come with a later version of this crate.
                    self.finish(Error::Refused(ReasonCode::BadAuthenticationMethod));
                    self.stop(now);
                }
                Event::SessionLost => info!("The server lost the session; subscribing again."),
            }
        }
    }

    fn subscribe_again(&mut self, now: Instant) {
        let ids: Vec<u32> = self.subscriptions.keys().copied().collect();
        for id in ids {
            if let Err(error) = self.request_subscription(now, id) {
                debug!("Cannot subscribe again: {error}.");
            }
        }
    }

    fn on_refused(&mut self, reason: ReasonCode) {
        let passing = matches!(
            reason,
            ReasonCode::ServerUnavailable | ReasonCode::ServerBusy | ReasonCode::ConnectionRateExceeded
        );
        if passing && matches!(self.status, Status::Waiting) {
            info!("The server refused the connection for now: {reason}.");
        } else {
            self.finish(Error::Refused(reason));
        }
    }

    fn on_disconnected(&mut self, by: By) {
        info!("Disconnected: {by}.");
        // Who was let in once comes back, unless another client has our name or our options are wrong.
        let taken_over = matches!(by, By::Peer(ReasonCode::SessionTakenOver) | By::Options(_));
        match self.status {
            Status::Connected | Status::Waiting if self.reconnects && !taken_over && !self.stopping => {
                self.status = Status::Waiting;
            }
            _ if self.stopping => {}
            _ => self.finish(Error::Disconnected(by)),
        }
    }

    fn on_message(&mut self, received: Received) {
        let ids = received.subscription_ids.as_slice();
        let mut waiting = 0;
        let mut taken = false;
        for (id, entry) in &self.subscriptions {
            let matches = if ids.is_empty() {
                TopicFilter::parse(&entry.filter).is_ok_and(|f| f.matches(received.topic()))
            } else {
                ids.contains(id)
            };
            if matches {
                waiting = entry.queue.push(received.clone()).max(waiting);
                taken = true;
            }
        }
        self.paused |= waiting >= self.queue_messages;
        if !taken {
            debug!("A message that no subscription is for.");
        }
    }

    /// Whether the queues have room again after one was full.
    pub fn may_resume(&self) -> bool {
        self.subscriptions.values().all(|s| s.queue.len() <= self.queue_messages / 2)
    }
}
