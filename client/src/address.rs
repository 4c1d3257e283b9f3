//! Where a server is, as a URL says it.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Over TCP.
    Mqtt,
    /// Over TLS.
    Mqtts,
    /// In WebSocket frames over TCP.
    Ws,
    /// In WebSocket frames over TLS.
    Wss,
    /// Over a Unix socket.
    Unix,
}

impl Scheme {
    /// The port a URL without one means: 1883, with TLS 8883, also for WebSocket; none for a Unix socket.
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Mqtt | Scheme::Ws => 1883,
            Scheme::Mqtts | Scheme::Wss => 8883,
            Scheme::Unix => 0,
        }
    }

    /// Whether there is TLS.
    pub const fn is_tls(self) -> bool {
        matches!(self, Scheme::Mqtts | Scheme::Wss)
    }

    /// Whether there are WebSocket frames.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }
}

/// Where a server is.
///
/// It is read from `scheme://[user[:password]@]host[:port][/topic]` with the schemes `mqtt`, `mqtts`, `ws` and
/// `wss`, from `unix://PATH`, and from plain `host[:port]`. Percent escapes in user and password are
/// decoded; the topic is taken as it stands.
///
/// ```
/// use hikyaku_client::{Address, Scheme};
///
/// let address: Address = "wss://me:secret@broker.example:8084/sensors/1".parse()?;
/// assert_eq!((address.scheme, address.host.as_str(), address.port), (Scheme::Wss, "broker.example", 8084));
/// assert_eq!(address.topic.as_deref(), Some("sensors/1"));
/// # Ok::<(), hikyaku_client::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// How to get there.
    pub scheme: Scheme,
    /// A host name or IP address; for a Unix socket its path.
    pub host: String,
    /// The port; 0 for a Unix socket.
    pub port: u16,
    /// The user name. It counts where the options have none.
    pub username: Option<String>,
    /// The password. It counts where the options have none.
    pub password: Option<String>,
    /// What stands behind the host. The client itself has no use for it.
    pub topic: Option<String>,
}

impl Address {
    /// An address without credentials and topic.
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Address {
        Address { scheme, host: String::from(host), port, username: None, password: None, topic: None }
    }

    /// The host as it stands in a URL or in a Host header.
    pub(crate) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let (host, port) = host_and_port(text, Scheme::Mqtt.default_port())?;
            return Ok(Address::new(Scheme::Mqtt, host, port));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => Scheme::Mqtt,
            "mqtts" | "ssl" => Scheme::Mqtts,
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            "unix" => Scheme::Unix,
            _ => return Err(AddressError::Scheme),
        };
        if scheme == Scheme::Unix {
            if rest.is_empty() {
                return Err(AddressError::NoHost);
            }
            return Ok(Address::new(scheme, rest, 0));
        }
        let (authority, topic) = match rest.split_once('/') {
            Some((authority, topic)) => (authority, Some(topic)),
            None => (rest, None),
        };
        let (credentials, host) = credentials_and_host(authority)?;
        let (host, port) = host_and_port(host, scheme.default_port())?;
        let mut address = Address::new(scheme, host, port);
        address.topic = topic.filter(|topic| !topic.is_empty()).map(String::from);
        (address.username, address.password) = credentials;
        Ok(address)
    }
}

/// A SOCKS 5 proxy to connect through. It looks the server's name up.
///
/// It is read from `socks5h://[user[:password]@]host[:port]`; the port is 1080 if nothing else is said. Percent
/// escapes in user and password are decoded.
///
/// ```
/// use hikyaku_client::Proxy;
///
/// let proxy: Proxy = "socks5h://me:secret@proxy.example".parse()?;
/// assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 1080));
/// # Ok::<(), hikyaku_client::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A host name or IP address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user name, if the proxy wants one: up to 255 bytes.
    pub username: Option<String>,
    /// The password: up to 255 bytes.
    pub password: Option<String>,
}

impl FromStr for Proxy {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Proxy, AddressError> {
        let authority = text.strip_prefix("socks5h://").ok_or(AddressError::ProxyScheme)?;
        let (credentials, host) = credentials_and_host(authority)?;
        let (host, port) = host_and_port(host, PROXY_PORT)?;
        let (username, password) = credentials;
        Ok(Proxy { host: String::from(host), port, username, password })
    }
}

impl fmt::Debug for Proxy {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

const PROXY_PORT: u16 = 1080;

type Credentials = (Option<String>, Option<String>);

fn credentials_and_host(authority: &str) -> Result<(Credentials, &str), AddressError> {
    let Some((user, host)) = authority.rsplit_once('@') else { return Ok(((None, None), authority)) };
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (user, None),
    };
    Ok(((Some(decode(name)?), password.map(decode).transpose()?), host))
}

fn host_and_port(text: &str, default: u16) -> Result<(&str, u16), AddressError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::NoHost)?;
            (
                host,
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(AddressError::Port)?) },
            )
        }
        // More than one colon is an IPv6 address without a port.
        None if text.matches(':').count() > 1 => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    let port = match port {
        None => default,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(AddressError::Port)?,
    };
    Ok((host, port))
}

fn decode(text: &str) -> Result<String, AddressError> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).map_err(|_| AddressError::Escape)
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Address, AddressError> {
        text.parse()
    }
}

impl From<SocketAddr> for Address {
    /// Over TCP.
    fn from(addr: SocketAddr) -> Address {
        Address::new(Scheme::Mqtt, &addr.ip().to_string(), addr.port())
    }
}

impl fmt::Display for Address {
    /// As a URL, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Mqtt => "mqtt",
            Scheme::Mqtts => "mqtts",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Unix => return write!(f, "unix://{}", self.host),
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Address {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The scheme is none of `mqtt`, `mqtts`, `ws`, `wss` and `unix`.
    Scheme,
    /// A proxy's scheme is not `socks5h`.
    ProxyScheme,
    /// There is no host, or no path for `unix`.
    NoHost,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The percent escapes of user or password do not make UTF-8.
    Escape,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::Scheme => "the scheme is none of mqtt, mqtts, ws, wss and unix",
            AddressError::ProxyScheme => "the scheme of a proxy is socks5h",
            AddressError::NoHost => "the host is missing",
            AddressError::Port => "the port is not a number from 1 to 65535",
            AddressError::Escape => "the percent escapes of user or password are not UTF-8",
        })
    }
}

impl std::error::Error for AddressError {}

impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        let proxy: Proxy = "socks5h://us%40er:p%3a@[::1]:99".parse().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 99));
        assert_eq!((proxy.username.as_deref(), proxy.password.as_deref()), (Some("us@er"), Some("p:")));
        assert!(!format!("{proxy:?}").contains("p:"));
        for (text, error) in [
            ("socks4://x", AddressError::ProxyScheme),
            ("socks5h://", AddressError::NoHost),
            ("socks5h://x:0", AddressError::Port),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
        }
    }

    #[test]
    fn urls_are_read() {
        let read = |text: &str| text.parse::<Address>();
        let plain = read("host").unwrap();
        assert_eq!((plain.scheme, plain.host.as_str(), plain.port), (Scheme::Mqtt, "host", 1883));
        let all = read("MQTTS://us%40er:p%3a:@[::1]:99/a/b").unwrap();
        assert_eq!((all.scheme, all.host.as_str(), all.port), (Scheme::Mqtts, "::1", 99));
        assert_eq!((all.username.as_deref(), all.password.as_deref()), (Some("us@er"), Some("p::")));
        assert_eq!(all.topic.as_deref(), Some("a/b"));
        assert_eq!(all.to_string(), "mqtts://[::1]:99");
        let unix = read("unix:///run/broker.sock").unwrap();
        assert_eq!((unix.scheme, unix.host.as_str()), (Scheme::Unix, "/run/broker.sock"));
        assert_eq!(read("::1").unwrap().authority(), "[::1]:1883");
        for (text, error) in [
            ("http://x", AddressError::Scheme),
            ("mqtt:///x", AddressError::NoHost),
            ("", AddressError::NoHost),
            ("unix://", AddressError::NoHost),
            ("mqtt://x:0", AddressError::Port),
            ("mqtt://x:65536", AddressError::Port),
            ("[::1]1883", AddressError::Port),
            ("mqtt://%ff@x", AddressError::Escape),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }
}
