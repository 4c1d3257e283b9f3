//! The little HTTP that is spoken before a WebSocket: one head, one answer.

use super::detect::{Gate, HTTP_WITHOUT_TLS};
use httparse::{Header, Request, Status};
use std::net::{Ipv4Addr, Ipv6Addr};
use tungstenite::handshake::derive_accept_key;

/// The head of a request, as far as it has come.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    oversize: bool,
    /// It came without TLS where there has to be TLS.
    without_tls: bool,
}

/// What is to be said to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It becomes a WebSocket.
    Upgrade(Vec<u8>),
    /// Say this and close; this is for the log, if it is something an operator has decided.
    Page(Vec<u8>, Option<Box<str>>),
}

/// The subprotocols that are taken, by their names in Sec-WebSocket-Protocol, the best first.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const HEADERS_MAX: usize = 64;

impl Head {
    pub(super) fn new(without_tls: bool) -> Self {
        Head { bytes: Vec::new(), oversize: false, without_tls }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what belongs to the head, at most `max` bytes in all. Returns how much that was once the
    /// head is complete or too long.
    pub(super) fn take(&mut self, input: &[u8], max: usize) -> Option<usize> {
        let before = self.bytes.len();
        let taken = input.len().min(max.saturating_sub(before));
        self.bytes.extend_from_slice(&input[..taken]);
        // The empty line may have begun in what came before. Nothing is looked at more than twice.
        let from = before.saturating_sub(3);
        if let Some(end) = end_of_head(&self.bytes[from..]) {
            let end = from + end;
            self.bytes.truncate(end);
            return Some(end - before);
        }
        self.oversize = taken < input.len() || self.bytes.len() >= max;
        self.oversize.then_some(taken)
    }
}

/// Answers a head that is complete or too long.
pub(super) fn answer(head: &Head, gate: &Gate) -> Answer {
    judge(head, gate).map_or_else(|(page, refusal)| Answer::Page(page, refusal), Answer::Upgrade)
}

const HEAD_TOO_LONG: &str = "the head of its HTTP request is longer than 'websockets_headers_size' allows";

/// A page, and what the log says of it.
type Page = (Vec<u8>, Option<Box<str>>);

fn judge(head: &Head, gate: &Gate) -> Result<Vec<u8>, Page> {
    let is_head = head.bytes.starts_with(b"HEAD ");
    let page = |status, extra, text| (page(status, extra, text, is_head), None);
    if head.without_tls {
        let (page, _) = page("400 Bad Request", "", "This port wants TLS: use wss:// or mqtts://.");
        return Err((page, Some(HTTP_WITHOUT_TLS.into())));
    }
    if head.oversize {
        let (page, _) = page("431 Request Header Fields Too Large", "", "The request's head is too long.");
        return Err((page, Some(HEAD_TOO_LONG.into())));
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(&head.bytes) {
        Ok(Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(page("431 Request Header Fields Too Large", "", "The request has too many headers."));
        }
        Ok(Status::Partial) | Err(_) => return Err(page("400 Bad Request", "", "This is no HTTP request.")),
    }
    let headers = &*request.headers;
    let wants = has_token(headers, "upgrade", "websocket") && has_token(headers, "connection", "upgrade");
    match request.method {
        Some("GET") => {}
        Some("HEAD") if !wants => {}
        _ => return Err(page("405 Method Not Allowed", "Allow: GET, HEAD\r\n", PLAIN)),
    }
    if !wants {
        return Err(page("426 Upgrade Required", UPGRADE, PLAIN));
    }
    if request.version != Some(1) {
        return Err(page("400 Bad Request", "", "A WebSocket takes HTTP/1.1."));
    }
    if value(headers, "sec-websocket-version") != Some("13") {
        return Err(page("426 Upgrade Required", UPGRADE, "Version 13 of WebSocket is spoken here."));
    }
    let Some(key) = value(headers, "sec-websocket-key").filter(|key| is_key(key)) else {
        return Err(page("400 Bad Request", "", "Sec-WebSocket-Key has to be 16 bytes in base64."));
    };
    if !permits(gate, headers) {
        let text = if gate.local_only { FOREIGN_LOCAL } else { FOREIGN };
        let (page, _) = page("403 Forbidden", "", text);
        let origin = value(headers, "origin").unwrap_or("?").chars().take(256).collect::<String>();
        let wanted = if gate.local_only { "this machine's" } else { "among websockets_origin" };
        let refusal = format!("its page's origin '{}' is not {wanted}", origin.escape_debug());
        return Err((page, Some(refusal.into())));
    }
    Ok(upgrade(key, subprotocol(headers)))
}

const UPGRADE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
const PLAIN: &str = "\
This is hikyaku, an MQTT broker, and no web site. MQTT clients connect to this port, programs in a browser\n\
by WebSocket: mqtt.connect('ws://HOST:PORT'), or wss:// where this page came by https://.";
const FOREIGN: &str = "\
Pages of this origin may not connect: it is not among the websockets_origin of this listener.";
const FOREIGN_LOCAL: &str = "\
Without a configuration only pages of this machine (http://localhost) may connect. A configuration with a\n\
listener, and websockets_origin for the pages that may, opens it.";

/// A whole response with a short text.
fn page(status: &str, extra: &str, text: &str, is_head: bool) -> Vec<u8> {
    let mut page = format!(
        "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len() + 1
    );
    if !is_head {
        page.push_str(text);
        page.push('\n');
    }
    page.into_bytes()
}

fn upgrade(key: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        response.push_str("Sec-WebSocket-Protocol: ");
        response.push_str(subprotocol);
        response.push_str("\r\n");
    }
    response.push_str("\r\n");
    response.into_bytes()
}

/// The best subprotocol offered: `mqtt` wherever it is. Small clients offer none, or what they please, and
/// then speak MQTT: they are let in, and told of none.
fn subprotocol(headers: &[Header<'_>]) -> Option<&'static str> {
    // [MQTT-6.0.0-3] [MQTT-6.0.0-4]
    let offers = |name| tokens(headers, "sec-websocket-protocol").any(|offered| offered == name);
    SUBPROTOCOLS.into_iter().find(|name| offers(*name))
}

/// Whether pages of this origin may connect. Who is no browser names none.
fn permits(gate: &Gate, headers: &[Header<'_>]) -> bool {
    let mut origins = values(headers, "origin").peekable();
    if gate.origins.is_empty() && gate.local_only {
        return origins.all(|origin| origin.is_some_and(is_loopback));
    }
    // As in mosquitto, a list is for those who name an origin.
    gate.origins.is_empty()
        || origins.all(|origin| origin.is_some_and(|origin| gate.origins.iter().any(|o| o == origin)))
}

/// Whether `origin` (`http://localhost:8000`) is a page that this machine serves.
fn is_loopback(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => return is_port(port) && host.parse() == Ok(Ipv6Addr::LOCALHOST),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let name = host.to_ascii_lowercase();
    is_port(port)
        && (name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()))
}

fn is_port(port: &str) -> bool {
    port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok())
}

fn is_key(key: &str) -> bool {
    let (Some(body), 24) = (key.strip_suffix("=="), key.len()) else { return false };
    body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    let named = headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
    named.map(|h| std::str::from_utf8(h.value).ok().map(str::trim))
}

/// The value of a header that may come once only.
fn value<'a>(headers: &'a [Header<'_>], name: &'a str) -> Option<&'a str> {
    let mut values = values(headers, name);
    let first = values.next()??;
    values.next().is_none().then_some(first)
}

fn tokens<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    values(headers, name).flatten().flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

/// Where the empty line ends that ends a head.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let (mut after_line, mut before) = (false, 0);
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if after_line => return Some(i + 1),
            b'\n' => after_line = true,
            // One, or where the head ends would depend on how it is cut.
            b'\r' if before == b'\n' => {}
            _ => after_line = false,
        }
        before = byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenerSettings;

    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn ask(settings: ListenerSettings, request: &str) -> String {
        let gate = Gate::new(&settings, None, &mut Vec::new()).unwrap();
        let mut head = Head::new(false);
        // Byte by byte: where the head ends is found though it comes in pieces.
        for (i, byte) in request.bytes().enumerate() {
            if head.take(&[byte], 1024).is_some() {
                assert!(i + 1 == request.len() || head.oversize);
                return match answer(&head, &gate) {
                    Answer::Upgrade(bytes) | Answer::Page(bytes, _) => String::from_utf8(bytes).unwrap(),
                };
            }
        }
        panic!("no end of the head");
    }

    fn ask_with(headers: &str) -> String {
        ask(ListenerSettings::default(), &format!("{REQUEST}{headers}\r\n"))
    }

    #[test]
    fn an_upgrade_is_answered_with_the_subprotocol_that_is_known() {
        let none = ask_with("");
        assert!(none.starts_with("HTTP/1.1 101 "), "{none}");
        assert!(none.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{none}");
        assert!(!none.contains("Protocol:"), "{none}");
        for (offered, taken) in [("mqtt", "mqtt"), ("chat, mqttv3.1", "mqttv3.1"), ("mqttv3.1,mqtt", "mqtt")]
        {
            let answer = ask_with(&format!("Sec-WebSocket-Protocol: {offered}\r\n"));
            assert!(answer.contains(&format!("Sec-WebSocket-Protocol: {taken}\r\n")), "{answer}");
        }
        assert!(ask_with("Sec-WebSocket-Protocol: chat\r\n").starts_with("HTTP/1.1 101 "));
    }

    #[test]
    fn what_is_no_upgrade_is_told_why() {
        let ask = |request: &str| ask(ListenerSettings::default(), request);
        let page = ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 426 ") && page.contains("MQTT broker"), "{page}");
        assert!(ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask("GET /\n\n").starts_with("HTTP/1.1 400 "));
        assert!(ask("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(ask(&(REQUEST.replace("13", "8") + "\r\n")).starts_with("HTTP/1.1 426 "));
        assert!(ask(&(REQUEST.replace("==", "=") + "\r\n")).starts_with("HTTP/1.1 400 "));
        assert!(ask(&(REQUEST.replace("HTTP/1.1", "HTTP/1.0") + "\r\n")).starts_with("HTTP/1.1 400 "));
        assert!(ask_with("Sec-WebSocket-Version: 13\r\n").starts_with("HTTP/1.1 426 "), "twice");
        assert!(ask(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2000))).starts_with("HTTP/1.1 431 "));
        assert!(ask_with(&"a: b\r\n".repeat(60)).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn origins_are_held_against_the_list() {
        let ask = |settings: &ListenerSettings, origin: &str| {
            let answer = ask(settings.clone(), &format!("{REQUEST}Origin: {origin}\r\n\r\n"));
            answer.starts_with("HTTP/1.1 101 ")
        };
        let open = ListenerSettings::default();
        assert!(ask(&open, "http://example.com"));
        let listed =
            ListenerSettings { websockets_origins: vec!["https://a.example".into()], ..open.clone() };
        assert!(ask(&listed, "https://a.example"));
        assert!(!ask(&listed, "https://a.example:8443") && !ask(&listed, "https://a.exampl"));
        let local = ListenerSettings { local_only_default: true, ..open };
        for origin in ["http://localhost", "https://LocalHost:8443", "http://127.0.0.2:80", "http://[::1]:80"]
        {
            assert!(ask(&local, origin), "{origin}");
        }
        for origin in
            ["http://example.com", "null", "http://localhost.evil.com", "http://localhost:x@evil.com"]
        {
            assert!(!ask(&local, origin), "{origin}");
        }
    }
}
