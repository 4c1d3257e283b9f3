//! SOCKS 5 (RFC 1928), with user name and password (RFC 1929): the way through a proxy, before all else.
//!
//! The proxy looks the server's name up, as `socks5h` means it.

use crate::{Address, Proxy};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Has the proxy at the other end of `stream` connect us with `server`.
pub(super) fn connect(stream: &mut (impl Read + Write), proxy: &Proxy, server: &Address) -> io::Result<()> {
    let methods: &[u8] = match proxy.username {
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
        None => &[VERSION, 1, NO_AUTHENTICATION],
    };
    stream.write_all(methods)?;
    match (read(stream)?, &proxy.username) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, USER_AND_PASSWORD], Some(username)) => {
            let mut request = vec![1];
            push(&mut request, username.as_bytes(), "the user name for the proxy")?;
            let password = proxy.password.as_deref().unwrap_or_default();
            push(&mut request, password.as_bytes(), "the password for the proxy")?;
            stream.write_all(&request)?;
            let [_, status] = read(stream)?;
            if status != 0 {
                return Err(refused("the proxy does not take user name and password"));
            }
        }
        ([VERSION, _], Some(_)) => return Err(refused("the proxy does not take user name and password")),
        ([VERSION, _], None) => return Err(refused("the proxy wants a user name and a password")),
        _ => return Err(malformed()),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match server.host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.push(NAME);
            push(&mut request, server.host.as_bytes(), "the host's name")?;
        }
    }
    request.extend(server.port.to_be_bytes());
    stream.write_all(&request)?;
    let [version, reply, _, kind] = read(stream)?;
    if version != VERSION {
        return Err(malformed());
    }
    if reply != 0 {
        return Err(explain(reply));
    }
    // Where the proxy connects from; nobody needs it.
    match kind {
        IPV4 => read::<4>(stream).map(drop)?,
        IPV6 => read::<16>(stream).map(drop)?,
        NAME => {
            let [length] = read(stream)?;
            stream.read_exact(&mut vec![0; usize::from(length)])?;
        }
        _ => return Err(malformed()),
    }
    read::<2>(stream).map(drop)
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the proxy closed the connection"),
        _ => error,
    })?;
    Ok(bytes)
}

fn push(to: &mut Vec<u8>, text: &[u8], what: &str) -> io::Result<()> {
    let long = |_| io::Error::new(ErrorKind::InvalidInput, format!("{what} is longer than 255 bytes"));
    to.push(u8::try_from(text.len()).map_err(long)?);
    to.extend(text);
    Ok(())
}

/// Whether the proxy let us in is told by the kind of the error: `PermissionDenied`.
fn refused(text: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, text)
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what the proxy says is not SOCKS 5; is it the right port?")
}

fn explain(reply: u8) -> io::Error {
    let (kind, text) = match reply {
        2 => (ErrorKind::PermissionDenied, "the proxy does not allow this connection"),
        3 => (ErrorKind::NetworkUnreachable, "the proxy cannot reach the network"),
        4 => (ErrorKind::HostUnreachable, "the proxy cannot reach the host"),
        5 => (ErrorKind::ConnectionRefused, "the server refused the proxy's connection"),
        6 => (ErrorKind::TimedOut, "the proxy's way to the server was too long"),
        7 | 8 => (ErrorKind::Unsupported, "the proxy cannot connect to such an address"),
        _ => (ErrorKind::Other, "the proxy failed"),
    };
    io::Error::new(kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// What the proxy says, and what it has been told.
    struct Script(Cursor<&'static [u8]>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn talk(proxy: &str, host: &str, answers: &'static [u8]) -> (io::Result<()>, Vec<u8>, usize) {
        let mut script = Script(Cursor::new(answers), Vec::new());
        let server = Address::new(crate::Scheme::Mqtt, host, 1883);
        let result = connect(&mut script, &proxy.parse().unwrap(), &server);
        let read = script.0.position() as usize;
        (result, script.1, read)
    }

    #[test]
    fn nothing_behind_the_answer_is_read() {
        let (result, said, read) =
            talk("socks5h://proxy", "10.0.0.1", b"\x05\x00\x05\x00\x00\x03\x02ab\x00\x50rest");
        result.unwrap();
        assert_eq!(said, b"\x05\x01\x00\x05\x01\x00\x01\x0A\x00\x00\x01\x07\x5B");
        assert_eq!(read, 11);
    }

    #[test]
    fn user_and_password_are_told_if_they_are_asked_for() {
        let answers = b"\x05\x02\x01\x00\x05\x00\x00\x01\x7F\x00\x00\x01\x00\x50";
        let (result, said, _) = talk("socks5h://me:p%3aw@proxy", "broker.example", answers);
        result.unwrap();
        assert_eq!(
            said,
            b"\x05\x02\x00\x02\x01\x02me\x03p:w\x05\x01\x00\x03\x0Ebroker.example\x07\x5B".to_vec()
        );
        let (result, said, _) = talk("socks5h://me:pw@proxy", "::1", b"\x05\x00\x05\x05\x00\x01");
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(said.len(), 4 + 22);
    }

    #[test]
    fn a_proxy_that_refuses_or_is_none_is_an_error() {
        for (answers, kind) in [
            (&b"\x05\x02\x01\x01"[..], ErrorKind::PermissionDenied),
            (b"\x05\xFF", ErrorKind::PermissionDenied),
            (b"HTTP/1.1 400", ErrorKind::InvalidData),
            (b"\x05\x00\x05\x00\x00\x09", ErrorKind::InvalidData),
            (b"\x05\x00\x05", ErrorKind::UnexpectedEof),
        ] {
            assert_eq!(talk("socks5h://me@proxy", "h", answers).0.unwrap_err().kind(), kind, "{answers:?}");
        }
        let long = "x".repeat(256);
        assert_eq!(
            talk("socks5h://proxy", &long, b"\x05\x00").0.unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}
