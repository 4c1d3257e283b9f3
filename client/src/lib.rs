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
//!
//! A device that says whether it is there: a retained message, and a will that takes its place when the connection is lost, over
//! TLS.
//!
//! ```no_run
//! # #[cfg(feature = "tls")]
//! # fn main() -> Result<(), hikyaku_client::Error> {
//! use hikyaku_client::{Connector, Options, PublishRequest, QoS, Tls, Version, Will};
//! use std::time::Duration;
//!
//! let will = Will {
//!     topic: "lamp/status".into(),
//!     payload: b"offline".to_vec(),
//!     qos: QoS::AtLeastOnce,
//!     retain: true,
//!     ..Will::default()
//! };
//! let options = Options {
//!     will: Some(will),
//!     username: Some("lamp".into()),
//!     password: Some(b"secret".to_vec()),
//!     ..Options::new(Version::V5, "lamp")
//! };
//! let tls = Tls { ca_file: Some("ca.crt".into()), ..Tls::default() };
//! let client = Connector::new("mqtts://broker.example", options)?.tls(&tls)?.connect()?;
//! let online = PublishRequest {
//!     topic: "lamp/status",
//!     payload: b"online",
//!     qos: QoS::AtLeastOnce,
//!     retain: true,
//!     ..PublishRequest::default()
//! };
//! client.publish_with(&online)?.wait(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tls"))]
//! # fn main() {}
//! ```

mod address;
mod authentication;
#[cfg(feature = "tls")]
mod authority;
mod connector;
mod delivery;
mod driver;
mod error;
mod link;
mod message;
mod packets;
#[cfg(feature = "scram")]
mod scram;
mod shared;
mod state;
mod subscription;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tools")]
#[doc(hidden)]
pub mod tool;
mod transport;
#[cfg(feature = "tls")]
mod trust;

pub use address::{Address, AddressError, Proxy, Scheme};
pub use connector::Connector;
pub use delivery::Delivery;
pub use error::Error;
pub use hikyaku_proto::client::{
    Acknowledge, Authentication, By, Connected, Dropped, Options, PublishRequest, Received, SendError, Will,
};
pub use hikyaku_proto::codec::{
    Properties, PropertiesBuf, Property, QoS, ReasonCode, RetainHandling, SubscribeOptions, Version,
};
pub use message::Message;
#[cfg(feature = "scram")]
pub use scram::ScramError;
pub use subscription::Subscription;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsVersion, Verify};

use delivery::{of_wait, result};
use state::{Inner, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What becomes of a client whose connection is lost.
///
/// ```no_run
/// use hikyaku_client::{Behavior, Connector, Error, Options, QoS, Reconnect, Version};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Error> {
/// // A session that outlives its connection, and at most 100 messages that wait while there is none.
/// let options = Options {
///     clean_start: false,
///     session_expiry_s: 3600,
///     max_queued_messages: 100,
///     ..Options::new(Version::V5, "meter")
/// };
/// let reconnect = Reconnect::After { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// let behavior = Behavior { reconnect, ..Behavior::default() };
/// let client = Connector::new("localhost", options)?.behavior(behavior).connect()?;
/// client.publish("meter", b"1", QoS::AtLeastOnce)?;
/// // Says goodbye when what is underway has arrived, or after five seconds.
/// client.disconnect(Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// It is closed.
    Never,
    /// It connects again: first after `first`, then after twice the time before, up to `most`. Each pause is cut
    /// by up to a half, at random, so that clients that lost a server together come back one by one.
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
    /// How long [`Client::subscribe`] and [`Client::unsubscribe`] wait for the answer.
    pub request_timeout: Duration,
    /// Whether subscriptions of 5.0 get identifiers, so that a message comes out of those that it is for, also
    /// where topic filters overlap. Without, its topic decides.
    pub subscription_ids: bool,
}

impl Default for Behavior {
    fn default() -> Self {
        Behavior {
            reconnect: Reconnect::default(),
            queue_messages: 1000,
            request_timeout: Duration::from_secs(30),
            subscription_ids: true,
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
    /// Connects and waits until the server has let us in. [`Options::connect_timeout`] bounds each try of an IP
    /// address of the host, and the wait for the answer. [`Connector`] has more to say.
    ///
    /// ```
    /// use hikyaku_client::{Client, Error, Options, Version};
    ///
    /// let options = Options::new(Version::V3_1_1, "reader");
    /// assert!(matches!(Client::connect("http://localhost", options.clone()), Err(Error::Address(_))));
    /// assert!(matches!(Client::connect("unix:///no/such/socket", options), Err(Error::Io(_))));
    /// ```
    pub fn connect<A>(address: A, options: Options) -> Result<Client, Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        Connector::new(address, options)?.connect()
    }

    /// Whether there is a connection at the moment.
    pub fn is_connected(&self) -> bool {
        matches!(self.inner.state.lock().status, Status::Connected)
    }

    /// What the server said when it last let us in.
    pub fn connected(&self) -> Option<Connected> {
        self.inner.state.lock().connected.clone()
    }

    /// Publishes a message. QoS 1 and 2 messages wait while there is no connection, as many as the options allow.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: QoS) -> Result<Delivery, Error> {
        self.publish_with(&PublishRequest { topic, payload, qos, ..PublishRequest::default() })
    }

    /// As [`Client::publish`], with the RETAIN flag and properties.
    ///
    /// ```no_run
    /// use hikyaku_client::{Client, Error, PropertiesBuf, Property, PublishRequest, QoS};
    /// use std::time::Duration;
    ///
    /// fn ask(client: &Client) -> Result<(), Error> {
    ///     let mut properties = PropertiesBuf::default();
    ///     properties.push(Property::ResponseTopic("answers/me"));
    ///     properties.push(Property::MessageExpiryInterval(60));
    ///     let request = PublishRequest {
    ///         topic: "questions",
    ///         payload: b"?",
    ///         qos: QoS::ExactlyOnce,
    ///         properties: properties.as_properties(),
    ///         ..PublishRequest::default()
    ///     };
    ///     let delivery = client.publish_with(&request)?;
    ///     // Other work, then: what the server said.
    ///     let reason = delivery.wait(Duration::from_secs(5))?;
    ///     println!("{reason}");
    ///     Ok(())
    /// }
    /// ```
    pub fn publish_with(&self, request: &PublishRequest<'_>) -> Result<Delivery, Error> {
        let answer = self.inner.command(|state, now| {
            let ticket = state.client.publish(now, request)?;
            Ok((request.qos != QoS::AtMostOnce).then(|| state.expect(ticket)))
        })?;
        Ok(Delivery::new(answer))
    }

    /// As [`Client::publish_with`], but waits for room in the queues, and at QoS 0 for a connection.
    pub fn publish_within(&self, request: &PublishRequest<'_>, timeout: Duration) -> Result<Delivery, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let turns = self.inner.state.turns();
            match self.publish_with(request) {
                Err(Error::Send(SendError::QueueFull | SendError::NotConnected)) => {}
                result => return result,
            }
            if !self.inner.state.wait_since(turns, Some(deadline)) {
                return Err(Error::Timeout);
            }
        }
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
        self.subscribe_all(&[(filter, options)], Properties::EMPTY)
    }

    /// One SUBSCRIBE with several topic filters and properties (5.0): user properties, and an identifier of your own.
    ///
    /// It is an error when the server takes none of the filters; [`Subscription::codes`] tells which it takes.
    pub fn subscribe_all(
        &self,
        filters: &[(&str, SubscribeOptions)],
        properties: Properties<'_>,
    ) -> Result<Subscription, Error> {
        let (number, queue) = self.inner.state.lock().add_subscription(filters, properties, false);
        let subscription = Subscription::new(self.inner.clone(), number, queue);
        self.request(subscription, self.inner.behavior.request_timeout)
    }

    fn request(&self, mut subscription: Subscription, timeout: Duration) -> Result<Subscription, Error> {
        let answer = self.inner.command(|state, now| {
            let ticket = state.request_subscription(now, subscription.number())?;
            Ok(state.expect(ticket))
        })?;
        let (first, rest) = result(answer.recv_timeout(timeout).map_err(of_wait)?)?;
        subscription.answered(first, rest);
        Ok(subscription)
    }

    /// Ends subscriptions that are no [`Subscription`] of this client, as those of an earlier session, and waits for
    /// the answer: one code for each filter.
    pub fn unsubscribe(
        &self,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<Vec<ReasonCode>, Error> {
        self.unsubscribe_within(filters, properties, self.inner.behavior.request_timeout)
    }

    fn unsubscribe_within(
        &self,
        filters: &[&str],
        properties: Properties<'_>,
        timeout: Duration,
    ) -> Result<Vec<ReasonCode>, Error> {
        let answer = self.inner.command(|state, now| {
            let ticket = state.client.unsubscribe(now, filters, properties)?;
            Ok(state.expect(ticket))
        })?;
        let answer = answer.recv_timeout(timeout).map_err(of_wait)?;
        let (first, mut codes) = answer.map_err(Error::Dropped)?;
        codes.insert(0, first);
        Ok(codes)
    }

    /// Waits until all messages have reached the server, says goodbye and closes. When `timeout` has passed it
    /// closes anyway and tells; messages that were not finished are lost. While there is no connection, and nothing
    /// to be sent, it closes at once.
    pub fn disconnect(&self, timeout: Duration) -> Result<(), Error> {
        self.disconnect_with(ReasonCode::NormalDisconnection, Properties::EMPTY, timeout)
    }

    /// As [`Client::disconnect`], with a reason and properties (5.0). `DisconnectWithWillMessage` has the server
    /// publish the will, also where there is no such reason yet, by closing without a word.
    pub fn disconnect_with(
        &self,
        reason: ReasonCode,
        properties: Properties<'_>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let mut state = self.inner.state.lock();
        let mut late = false;
        while state.is_alive() && (state.client.unfinished() > 0 || !state.client.outbox().is_empty()) {
            match self.inner.state.wait(state, Some(deadline)) {
                Some(waited) => state = waited,
                None => {
                    late = true;
                    state = self.inner.state.lock();
                    break;
                }
            }
        }
        if !state.is_alive() {
            return Err(state.end());
        }
        state.stop(self.inner.now(), reason, properties)?;
        self.inner.wake();
        while !late && state.is_alive() {
            state = self.inner.state.wait(state, Some(deadline)).ok_or(Error::Timeout)?;
        }
        if late { Err(Error::Timeout) } else { Ok(()) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        if state.is_alive() && !state.stopping {
            let stopped = state.stop(self.inner.now(), ReasonCode::NormalDisconnection, Properties::EMPTY);
            log::debug!("Closing the client: {stopped:?}.");
            state.stopping = true;
            self.inner.wake();
        }
    }
}
