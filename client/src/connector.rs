//! Everything that can be said before connecting.

use crate::authentication::Method;
use crate::driver::Driver;
use crate::state::Status;
use crate::transport::Route;
use crate::{Address, Behavior, Client, Error, Options, Properties, Proxy, SubscribeOptions, Subscription};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a goodbye may take that nobody asked for.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a [`Client`] is made from: where the server is, and how to be there.
///
/// ```no_run
/// use hikyaku_client::{Behavior, Connector, Options, Reconnect, Version};
///
/// # fn main() -> Result<(), hikyaku_client::Error> {
/// let client = Connector::new("ws://localhost:9001", Options::new(Version::V5, "once"))?
///     .behavior(Behavior { reconnect: Reconnect::Never, ..Behavior::default() })
///     .websocket_path("/mqtt")
///     .connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    route: Route,
    options: Options,
    behavior: Behavior,
    method: Option<Method>,
    limit: Option<Duration>,
}

impl Connector {
    /// For a server. User and password of the address count where the options have none.
    pub fn new<A>(address: A, mut options: Options) -> Result<Connector, Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let mut address: Address = address.try_into()?;
        if options.username.is_none() && options.password.is_none() {
            options.username = address.username.take();
            options.password = address.password.take().map(String::into_bytes);
        }
        let route = Route {
            address,
            bind: None,
            proxy: None,
            websocket_path: String::from("/mqtt"),
            #[cfg(feature = "tls")]
            tls: None,
            timeout: options.connect_timeout.max(Duration::from_millis(1)),
        };
        Ok(Connector { route, options, behavior: Behavior::default(), method: None, limit: None })
    }

    /// How the client behaves.
    pub fn behavior(mut self, behavior: Behavior) -> Connector {
        self.behavior = behavior;
        self
    }

    /// Comes from this address of the machine. Addresses of the server of the other family are passed over.
    pub fn bind(mut self, address: IpAddr) -> Connector {
        self.route.bind = Some(address);
        self
    }

    /// Goes through a proxy. It matters to no Unix socket.
    pub fn proxy(mut self, proxy: Proxy) -> Connector {
        self.route.proxy = Some(proxy);
        self
    }

    /// How long all of [`Connector::connect`] or [`Connector::connect_subscribed`] may take, up to the server's last
    /// answer; behind it comes [`Error::Timeout`]. [`Options::connect_timeout`], which bounds each step, becomes no
    /// longer than that.
    pub fn time_limit(mut self, limit: Duration) -> Connector {
        let step = self.options.connect_timeout.min(limit).max(Duration::from_millis(1));
        (self.options.connect_timeout, self.route.timeout) = (step, step);
        self.limit = Some(limit);
        self
    }

    /// Where WebSocket is on the server, `/mqtt` if nothing else is said.
    pub fn websocket_path(mut self, path: &str) -> Connector {
        self.route.websocket_path = String::from(path);
        self
    }

    /// What TLS trusts and shows; it matters for `mqtts` and `wss` only. The files are read now.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &crate::Tls) -> Result<Connector, Error> {
        self.route.tls = Some(tls.config()?);
        Ok(self)
    }

    /// Authenticates by SCRAM-SHA-256 (5.0): the password is not sent, and the server has to show that it knows the user.
    /// Each connection does so anew, and [`Client::reauthenticate`] in between. A password in the options is left
    /// out, and the user name is put there if there is none.
    ///
    /// ```no_run
    /// use hikyaku_client::{Connector, Options, Version};
    ///
    /// # fn main() -> Result<(), hikyaku_client::Error> {
    /// let options = Options::new(Version::V5, "reader");
    /// let client = Connector::new("mqtts://broker.example", options)?.scram("ann", b"secret")?.connect()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "scram")]
    pub fn scram(mut self, username: &str, password: &[u8]) -> Result<Connector, Error> {
        if !self.options.version.is_v5() {
            return Err(Error::Scram(crate::ScramError::Version));
        }
        self.method = Some(Method::Scram(crate::scram::Scram::new(username, password)?));
        self.options.password = None;
        self.options.username.get_or_insert_with(|| username.into());
        let method = crate::scram::METHOD.into();
        self.options.authentication = Some(crate::Authentication { method, data: None });
        Ok(self)
    }

    /// Connects and waits until the server has let us in.
    pub fn connect(self) -> Result<Client, Error> {
        let deadline = self.deadline();
        let (client, driver) = self.prepare()?;
        spawn(driver)?;
        client.wait_connected(deadline)?;
        Ok(client)
    }

    /// As [`Connector::connect`], with a subscription. What the server has kept in an earlier session comes out of
    /// it too, as does all else that no other subscription is for: nothing is lost between CONNACK and SUBACK.
    ///
    /// It is an error when the server takes none of the filters; [`Subscription::codes`] tells which it takes.
    ///
    /// ```no_run
    /// use hikyaku_client::{Acknowledge, Connector, Options, Properties, QoS, SubscribeOptions, Version};
    ///
    /// # fn main() -> Result<(), hikyaku_client::Error> {
    /// let options = Options {
    ///     clean_start: false,
    ///     session_expiry_s: 3600,
    ///     acknowledge: Acknowledge::Manually,
    ///     ..Options::new(Version::V5, "worker")
    /// };
    /// let filters = [("jobs/+", SubscribeOptions::new(QoS::AtLeastOnce))];
    /// let (client, jobs) =
    ///     Connector::new("localhost", options)?.connect_subscribed(&filters, Properties::EMPTY)?;
    /// for job in &jobs {
    ///     println!("doing {}", job.topic());
    ///     job.ack();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_subscribed(
        self,
        filters: &[(&str, SubscribeOptions)],
        properties: Properties<'_>,
    ) -> Result<(Client, Subscription), Error> {
        let (client, subscription) = self.connect_requesting(filters, properties)?;
        if let Err(Error::Rejected(_)) = subscription {
            // Whoever ends now has said goodbye, and leaves no will.
            let _ = client.disconnect(GOODBYE);
        }
        Ok((client, subscription?))
    }

    /// As [`Connector::connect_subscribed`], with the client also if it may not subscribe.
    pub(crate) fn connect_requesting(
        self,
        filters: &[(&str, SubscribeOptions)],
        properties: Properties<'_>,
    ) -> Result<(Client, Result<Subscription, Error>), Error> {
        let deadline = self.deadline();
        let (client, driver) = self.prepare()?;
        let (number, queue) = client.inner.state.lock().add_subscription(filters, properties, true);
        let subscription = Subscription::new(client.inner.clone(), number, queue);
        spawn(driver)?;
        client.wait_connected(deadline)?;
        if filters.is_empty() {
            return Ok((client, Ok(subscription)));
        }
        let timeout = client.inner.behavior.request_timeout;
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()).min(timeout));
        let subscription = client.request(subscription, left);
        Ok((client, subscription))
    }

    /// Where the way goes, and what is said there, for who drives connections by itself.
    #[cfg(feature = "tools")]
    pub(crate) fn into_parts(self) -> (Route, Options) {
        (self.route, self.options)
    }

    fn deadline(&self) -> Option<Instant> {
        self.limit.and_then(|limit| Instant::now().checked_add(limit))
    }

    #[cfg_attr(not(feature = "tls"), allow(unused_mut, reason = "there is no TLS"))]
    fn prepare(mut self) -> Result<(Client, Driver), Error> {
        let scheme = self.route.address.scheme;
        if scheme.is_tls() && !cfg!(feature = "tls") || scheme.is_websocket() && !cfg!(feature = "websocket")
        {
            let what = "hikyaku-client was built without the feature that this address needs";
            return Err(Error::Io(io::Error::new(io::ErrorKind::Unsupported, what)));
        }
        #[cfg(feature = "tls")]
        if scheme.is_tls() && self.route.tls.is_none() {
            self.route.tls = Some(crate::Tls::default().config()?);
        }
        let (inner, driver) = Driver::start(self.route, self.options, self.behavior, self.method)?;
        Ok((Client { inner }, driver))
    }
}

fn spawn(driver: Driver) -> Result<(), Error> {
    std::thread::Builder::new().name(String::from("hikyaku-client")).spawn(move || driver.run())?;
    Ok(())
}

impl Client {
    /// The thread reports the first answer, whatever it is, within the timeouts of the options.
    fn wait_connected(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        loop {
            match &mut state.status {
                // It may have been lost again already.
                Status::Connected | Status::Waiting => return Ok(()),
                Status::Ended(_) => return Err(state.end()),
                Status::Starting => {
                    state = inner.state.wait(state, deadline).ok_or(Error::Timeout)?;
                }
            }
        }
    }
}
