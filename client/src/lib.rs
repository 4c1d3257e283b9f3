//! A blocking MQTT client for 3.1, 3.1.1 and 5.0.
//!
//! One background thread does the network; it never runs the caller's code. Calls put packets into an outbox and
//! wake it; messages wait in a queue per [`Subscription`]. When such a queue is full nothing more is read from
//! the server until the program catches up.
//!
//! A connection that is lost is made again ([`Reconnect`]); messages that were not finished and subscriptions
//! survive that.
//!
//! ```no_run
//! use hikyaku_client::{Client, Options, QoS, Version};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), hikyaku_client::Error> {
//! let client = Client::connect("localhost:1883", Options::new(Version::V5, "reader"))?;
//! let readings = client.subscribe("sensors/+", QoS::AtLeastOnce)?;
//! client.publish("sensors/1", b"21.5", QoS::AtLeastOnce)?.wait(Duration::from_secs(5))?;
//! if let Some(message) = readings.recv(Duration::from_secs(5))? {
//!     println!("{}: {} bytes", message.topic(), message.payload().len());
//! }
//! client.disconnect(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```

mod driver;
mod error;
mod state;
mod subscription;

pub use error::Error;
pub use hikyaku_proto::client::{By, Dropped, Options, PublishRequest, Received, SendError, Will};
pub use hikyaku_proto::codec::{
    Properties, PropertiesBuf, Property, QoS, ReasonCode, RetainHandling, SubscribeOptions, Version,
};
pub use subscription::Subscription;

use driver::Driver;
use state::{Answer, Inner, Status};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// What becomes of a client whose connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// It is closed.
    Never,
    /// It connects again: first after `first`, then after twice the time before, up to `most`.
    After {
        /// The first pause.
        first: Duration,
        /// The longest pause.
        most: Duration,
    },
}

impl Default for Reconnect {
    fn default() -> Self {
        Reconnect::After { first: Duration::from_millis(500), most: Duration::from_secs(30) }
    }
}

/// How a [`Client`] behaves beyond what the protocol knows.
#[derive(Clone, Copy, Debug)]
pub struct Behavior {
    /// What becomes of a lost connection.
    pub reconnect: Reconnect,
    /// How many messages may wait in a [`Subscription`] before nothing more is read.
    pub queue_messages: usize,
    /// How long [`Client::subscribe`] waits for the answer.
    pub request_timeout: Duration,
}

impl Default for Behavior {
    fn default() -> Self {
        Behavior {
            reconnect: Reconnect::default(),
            queue_messages: 1000,
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// A connection to an MQTT server, and the session on it. Shared by reference between threads.
///
/// Dropping it says goodbye to the server without waiting for anything; [`Client::disconnect`] waits.
#[derive(Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// Connects over TCP and waits until the server has let us in. [`Options::connect_timeout`] bounds each try
    /// of an address, and the wait for the answer.
    pub fn connect(addr: impl ToSocketAddrs, options: Options) -> Result<Client, Error> {
        Client::connect_with(addr, options, Behavior::default())
    }

    /// As [`Client::connect`], with a behaviour of its own.
    pub fn connect_with(
        addr: impl ToSocketAddrs,
        options: Options,
        behavior: Behavior,
    ) -> Result<Client, Error> {
        let addrs: Vec<_> = addr.to_socket_addrs()?.collect();
        let (inner, driver) = Driver::start(addrs, options, behavior)?;
        let client = Client { inner };
        // The thread reports the first answer, whatever it is, within the timeouts of the options.
        std::thread::Builder::new().name(String::from("hikyaku-client")).spawn(move || driver.run())?;
        let mut state = client.inner.lock();
        loop {
            match &mut state.status {
                Status::Connected => break,
                Status::Ended(_) => return Err(state.end()),
                Status::Starting | Status::Waiting => state = client.inner.wait(state),
            }
        }
        drop(state);
        Ok(client)
    }

    /// Whether there is a connection at the moment.
    pub fn is_connected(&self) -> bool {
        matches!(self.inner.lock().status, Status::Connected)
    }

    /// Publishes a message. QoS 1 and 2 messages wait while there is no connection, as many as the options allow.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: QoS) -> Result<Delivery, Error> {
        self.publish_with(&PublishRequest { topic, payload, qos, ..PublishRequest::default() })
    }

    /// As [`Client::publish`], with the RETAIN flag and properties.
    pub fn publish_with(&self, request: &PublishRequest<'_>) -> Result<Delivery, Error> {
        let answer = self.inner.command(|state, now| {
            let ticket = state.client.publish(now, request)?;
            Ok((request.qos != QoS::AtMostOnce).then(|| state.expect(ticket)))
        })?;
        Ok(Delivery { answer })
    }

    /// Subscribes and waits for the answer. The messages come out of the [`Subscription`], which ends when
    /// it is dropped.
    ///
    /// Before 5.0 a message that several subscriptions of this client match comes out of each as often as the server
    /// sends it; 5.0 servers say which subscriptions a message is for.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Subscription, Error> {
        self.subscribe_with(filter, SubscribeOptions::new(qos))
    }

    /// As [`Client::subscribe`], with all options of 5.0.
    pub fn subscribe_with(&self, filter: &str, options: SubscribeOptions) -> Result<Subscription, Error> {
        let timeout = self.inner.behavior.request_timeout;
        let (subscription, answer) = self.inner.command(|state, now| {
            let (id, queue) = state.add_subscription(filter, options);
            match state.request_subscription(now, id) {
                Ok(ticket) => {
                    let subscription = Subscription::new(self.inner.clone(), id, queue);
                    Ok((subscription, state.expect(ticket)))
                }
                Err(error) => {
                    state.subscriptions.remove(&id);
                    Err(error.into())
                }
            }
        })?;
        Delivery { answer: Some(answer) }.wait(timeout)?;
        Ok(subscription)
    }

    /// Waits until all messages have reached the server, says goodbye and closes. When `timeout` has passed it
    /// closes anyway and tells; messages that were not finished are lost.
    pub fn disconnect(self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.inner.lock();
        while state.is_alive() && (state.client.unfinished() > 0 || !state.client.outbox().is_empty()) {
            state = self.inner.wait_until(state, deadline).ok_or(Error::Timeout)?;
        }
        if !state.is_alive() {
            return Err(state.end());
        }
        state.stop(self.inner.now());
        self.inner.wake();
        while state.is_alive() {
            state = self.inner.wait_until(state, deadline).ok_or(Error::Timeout)?;
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if state.is_alive() {
            state.stop(self.inner.now());
            self.inner.wake();
        }
    }
}

/// A message on its way to the server. It goes its way whether or not somebody waits.
#[derive(Debug)]
pub struct Delivery {
    /// `None` for QoS 0: there is nothing to wait for.
    answer: Option<Receiver<Answer>>,
}

impl Delivery {
    /// Waits until the server has the message: success, or `NoMatchingSubscribers`. At QoS 0 it returns at once.
    /// After [`Error::Timeout`] one may wait again.
    pub fn wait(&self, timeout: Duration) -> Result<ReasonCode, Error> {
        let Some(answer) = &self.answer else { return Ok(ReasonCode::Success) };
        match answer.recv_timeout(timeout) {
            Ok(answer) => result(answer),
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Closed),
        }
    }

    /// As [`Delivery::wait`], without waiting: `None` when there is no answer yet.
    pub fn poll(&self) -> Option<Result<ReasonCode, Error>> {
        let Some(answer) = &self.answer else { return Some(Ok(ReasonCode::Success)) };
        match answer.try_recv() {
            Ok(answer) => Some(result(answer)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Error::Closed)),
        }
    }
}

fn result(answer: Answer) -> Result<ReasonCode, Error> {
    match answer {
        Ok(reason) if reason.is_error() => Err(Error::Rejected(reason)),
        Ok(reason) => Ok(reason),
        Err(why) => Err(Error::Dropped(why)),
    }
}
