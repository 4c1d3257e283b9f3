//! What the caller's threads and the network thread share: the protocol's state machine, who waits for
//! which answer, and the queues of messages.

use crate::authentication::Authenticator;
use crate::message::Acks;
use crate::shared::Shared;
use crate::subscription::Queue;
use crate::{Behavior, Error, Reconnect};
use hikyaku_proto::client::{
    self, Acknowledge, By, Connected, Dropped, Event, Options, Received, SendError, Ticket,
};
use hikyaku_proto::codec::{Properties, PropertiesBuf, Property, ReasonCode, SubscribeOptions};
use hikyaku_proto::time::Instant;
use hikyaku_proto::topic::TopicFilter;
use log::{debug, info};
use mio::Waker;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time;

/// What comes of a ticket: the first reason code, and those behind it.
pub(crate) type Answer = Result<(ReasonCode, Vec<ReasonCode>), Dropped>;

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
    pub state: Shared<State>,
    waker: Waker,
    started: time::Instant,
}

impl Inner {
    pub fn new(options: Options, behavior: Behavior, waker: Waker) -> Inner {
        let state = State {
            client: client::Client::new(options),
            status: Status::Starting,
            connected: None,
            authenticator: Authenticator::default(),
            stopping: false,
            abrupt: false,
            close_by: None,
            paused: false,
            subscription_ids: behavior.subscription_ids,
            queue_messages: behavior.queue_messages.max(1),
            reconnects: behavior.reconnect != Reconnect::Never,
            answers: HashMap::new(),
            subscriptions: BTreeMap::new(),
            last_subscription: 0,
        };
        Inner { behavior, state: Shared::new(state), waker, started: time::Instant::now() }
    }

    pub fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
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
        let mut state = self.state.lock();
        if !state.is_alive() || state.stopping {
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
    filters: Vec<(String, SubscribeOptions)>,
    properties: PropertiesBuf,
    /// What the server names it by, if it does.
    id: Option<u32>,
    /// Messages that no subscription is for come here too.
    rest: bool,
    /// It is to be made again when the session is lost.
    requested: bool,
    queue: Arc<Queue>,
}

impl Entry {
    fn matches(&self, topic: &str) -> bool {
        self.filters.iter().any(|(filter, _)| TopicFilter::parse(filter).is_ok_and(|f| f.matches(topic)))
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub client: client::Client,
    pub status: Status,
    /// What the server said when it last let us in.
    pub connected: Option<Connected>,
    pub authenticator: Authenticator,
    /// The caller wants no more connections.
    pub stopping: bool,
    /// The transport is closed without a word.
    pub abrupt: bool,
    /// When a transport that does not take the last bytes is closed.
    pub close_by: Option<Instant>,
    /// A queue is full: nothing is read.
    pub paused: bool,
    subscription_ids: bool,
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
    pub fn stop(
        &mut self,
        now: Instant,
        reason: ReasonCode,
        properties: Properties<'_>,
    ) -> Result<(), SendError> {
        // Before 5.0 a DISCONNECT has no reason and would delete the will.
        if reason != ReasonCode::NormalDisconnection && !self.client.options().version.is_v5() {
            self.abrupt = true;
        } else {
            self.client.disconnect(now, reason, properties)?;
        }
        self.stopping = true;
        Ok(())
    }

    /// Whether the transport has had its time to take the last bytes. The state machine forgets them when its own
    /// time is over; what the layers of the transport keep it does not know.
    pub fn close_is_due(&mut self, now: Instant) -> bool {
        let close_timeout = self.client.options().close_timeout;
        *self.close_by.get_or_insert(now + close_timeout) <= now
    }

    /// It is over: everyone who waits is let go.
    pub fn finish(&mut self, error: Error) {
        if self.is_alive() {
            self.status = Status::Ended(Some(error));
        }
        self.answers.clear();
        self.authenticator.end(Err(Error::Closed));
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

    pub fn add_subscription(
        &mut self,
        filters: &[(&str, SubscribeOptions)],
        properties: Properties<'_>,
        rest: bool,
    ) -> (u32, Arc<Queue>) {
        self.last_subscription += 1;
        let number = self.last_subscription;
        let mut kept = PropertiesBuf::default();
        kept.extend(properties);
        let given = properties.subscription_identifiers().next();
        let own = (self.client.options().version.is_v5() && self.subscription_ids).then_some(number);
        let queue = Arc::new(Queue::default());
        let entry = Entry {
            filters: filters.iter().map(|&(filter, options)| (String::from(filter), options)).collect(),
            properties: kept,
            id: given.or(own),
            rest,
            requested: false,
            queue: queue.clone(),
        };
        self.subscriptions.insert(number, entry);
        (number, queue)
    }

    /// Ends a subscription; the server is told of the filters that nobody else has.
    pub fn end_subscription(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.subscriptions.remove(&number) else { return };
        let others = || self.subscriptions.values().flat_map(|other| &other.filters);
        let gone: Vec<&str> = entry
            .filters
            .iter()
            .map(|(filter, _)| filter.as_str())
            .filter(|filter| others().all(|(other, _)| other != filter))
            .collect();
        if !gone.is_empty() {
            // Without a connection, and a session, there is nothing to end.
            let _ = self.client.unsubscribe(now, &gone, Properties::EMPTY);
        }
    }

    /// Sends the SUBSCRIBE of a subscription.
    pub fn request_subscription(&mut self, now: Instant, number: u32) -> Result<Ticket, SendError> {
        let Some(entry) = self.subscriptions.get_mut(&number) else {
            return Err(SendError::NotConnected);
        };
        entry.requested = true;
        let mut properties = PropertiesBuf::default();
        let of_caller = entry.properties.as_properties();
        properties.extend(of_caller);
        if let Some(id) = entry.id
            && of_caller.subscription_identifiers().next().is_none()
            && self.client.server().subscription_ids_available
        {
            properties.push(Property::SubscriptionIdentifier(id));
        }
        let filters: Vec<_> =
            entry.filters.iter().map(|(filter, options)| (filter.as_str(), *options)).collect();
        self.client.subscribe(now, &filters, properties.as_properties())
    }

    /// Hands out what the state machine has to say.
    pub fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Connected(connected) => {
                    if !self.verify_server(now, connected.properties.as_properties()) {
                        continue;
                    }
                    info!("Connected; session present: {}.", connected.session_present);
                    let session_present = connected.session_present;
                    self.connected = Some(connected);
                    if self.stopping {
                        continue;
                    }
                    self.status = Status::Connected;
                    if !session_present {
                        self.subscribe_again(now);
                    }
                }
                Event::Refused { reason, .. } => self.on_refused(reason),
                Event::Message(received) => self.on_message(now, received),
                Event::Published { ticket, reason } => self.answer(ticket, Ok((reason, Vec::new()))),
                Event::Dropped { ticket, why } => self.answer(ticket, Err(why)),
                Event::Subscribed { ticket, codes, .. } | Event::Unsubscribed { ticket, codes, .. } => {
                    let mut codes = codes.into_iter();
                    let first = codes.next().unwrap_or(ReasonCode::UnspecifiedError);
                    self.answer(ticket, Ok((first, codes.collect())));
                }
                Event::Disconnected { by, .. } => self.on_disconnected(by),
                Event::Auth { reason, properties } => self.on_auth(now, reason, properties.as_properties()),
                Event::SessionLost => info!("The server lost the session; subscribing again."),
            }
        }
    }

    fn subscribe_again(&mut self, now: Instant) {
        let made: Vec<u32> = self.subscriptions.iter().filter(|s| s.1.requested).map(|s| *s.0).collect();
        for id in made {
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
        self.authenticator.end(Err(Error::Disconnected(by)));
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

    fn on_message(&mut self, now: Instant, received: Received) {
        let (ids, topic) = (received.subscription_ids.as_slice(), received.topic());
        let named = |s: &Entry| s.id.is_some_and(|id| ids.contains(&id)) && s.matches(topic);
        let entries = || self.subscriptions.values();
        // A server that names subscriptions says whom a message is for. Where it does not, or means a subscription
        // of an earlier run of the program, the topic must do.
        let mut takers: Vec<&Entry> = entries().filter(|s| named(s)).collect();
        if takers.is_empty() {
            takers = entries().filter(|s| s.matches(topic)).collect();
        }
        if takers.is_empty() {
            takers = entries().filter(|s| s.rest).take(1).collect();
        }
        let acks = received.token.map(|token| Acks { token, left: Arc::new(AtomicUsize::new(takers.len())) });
        let pushed = takers.iter().map(|s| s.queue.push(received.clone(), acks.clone())).max();
        match pushed {
            Some(waiting) => self.paused |= waiting >= self.queue_messages,
            None => {
                debug!("A message that no subscription is for.");
                if let (Acknowledge::Manually, Some(acks)) = (self.client.options().acknowledge, acks) {
                    self.client.acknowledge(now, acks.token);
                }
            }
        }
    }

    /// Whether the queues have room again after one was full.
    pub fn may_resume(&self) -> bool {
        self.subscriptions.values().all(|s| s.queue.len() <= self.queue_messages / 2)
    }
}
