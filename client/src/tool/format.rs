//! The output format of `-F`: checked once, then written for each message.

use super::json::Json;
use crate::Message;
use crate::Property;
use jiff::ZonedDateTime;
use jiff::fmt::strtime;

/// What may stand between bytes in hexadecimal.
const SEPARATORS: &[u8] = b"!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~ ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    width: usize,
    precision: Option<usize>,
    separator: u8,
    left: bool,
    pad: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Field(u8, Field),
    /// A part of the time, by its letter.
    Time(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Piece>);

impl Format {
    pub fn parse(text: &[u8]) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let push = |byte: u8, pieces: &mut Vec<Piece>| match pieces.last_mut() {
            Some(Piece::Bytes(bytes)) => bytes.push(byte),
            _ => pieces.push(Piece::Bytes(vec![byte])),
        };
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            match byte {
                b'%' => {
                    let (letter, field, tail) = parse_field(rest)?;
                    rest = tail;
                    match letter {
                        b'%' => push(b'%', &mut pieces),
                        letter => pieces.push(Piece::Field(letter, field)),
                    }
                }
                b'@' => match rest.split_first() {
                    None => return Err(String::from("Incomplete format specifier.")),
                    Some((b'@', tail)) => {
                        rest = tail;
                        push(b'@', &mut pieces);
                    }
                    Some((&letter, tail)) => {
                        rest = tail;
                        pieces.push(Piece::Time(letter));
                    }
                },
                b'\\' => {
                    let Some((&letter, tail)) = rest.split_first() else {
                        return Err(String::from("Incomplete escape specifier."));
                    };
                    rest = tail;
                    push(escape(letter)?, &mut pieces);
                }
                byte => push(byte, &mut pieces),
            }
        }
        Ok(Format(pieces))
    }

    /// Appends a message; gives what is wrong with it, if it is not what the format takes it for.
    pub fn write(&self, message: &Message, pretty: bool, out: &mut Vec<u8>) -> Option<String> {
        let mut wrong = None;
        let mut now = None;
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Time(letter) => time_part(now.get_or_insert_with(ZonedDateTime::now), *letter, out),
                Piece::Field(letter, field) => {
                    let now = now.get_or_insert_with(ZonedDateTime::now);
                    wrong = field.write(*letter, message, now, pretty, out).or(wrong);
                }
            }
        }
        wrong
    }
}

fn escape(letter: u8) -> Result<u8, String> {
    Ok(match letter {
        b'\\' => b'\\',
        b'0' => 0,
        b'a' => 0x07,
        b'e' => 0x1b,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        other => return Err(format!("Invalid escape specifier '{}'.", char::from(other))),
    })
}

fn parse_field(text: &[u8]) -> Result<(u8, Field, &[u8]), String> {
    let mut field = Field { width: 0, precision: None, separator: b' ', left: false, pad: b' ' };
    let mut rest = text;
    if let [b'-', tail @ ..] = rest {
        (field.left, rest) = (true, tail);
    }
    if let [b'0', tail @ ..] = rest {
        (field.pad, rest) = (b'0', tail);
    }
    (field.width, rest) = digits(rest);
    if let [b'.', tail @ ..] = rest {
        let (precision, tail) = digits(tail);
        (field.precision, rest) = (Some(precision), tail);
    }
    if let [separator, tail @ ..] = rest
        && SEPARATORS.contains(separator)
    {
        (field.separator, rest) = (*separator, tail);
    }
    match rest {
        [] => Err(String::from("Incomplete format specifier.")),
        [letter, tail @ ..] if b"%ACDEFIlmPpqRSrtjJUxXfd".contains(letter) => Ok((*letter, field, tail)),
        [letter, ..] => Err(format!("Invalid format specifier '{}'.", char::from(*letter))),
    }
}

/// A number of any length; beyond reason it stops to grow.
fn digits(text: &[u8]) -> (usize, &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number =
        text[..count].iter().fold(0usize, |n, digit| (n * 10 + usize::from(digit - b'0')).min(65536));
    (number, &text[count..])
}

impl Field {
    fn write(
        &self,
        letter: u8,
        message: &Message,
        now: &ZonedDateTime,
        pretty: bool,
        out: &mut Vec<u8>,
    ) -> Option<String> {
        let properties = message.properties();
        match letter {
            b'A' => self.number_or_blank(message.topic_alias, out),
            b'C' => match properties.content_type() {
                Some(text) => self.text(text, out),
                None => self.blank(out),
            },
            b'D' => out.extend_from_slice(properties.correlation_data().unwrap_or_default()),
            b'E' => self.number_or_blank(message.message_expiry_s, out),
            b'F' => self.number_or_blank(properties.payload_format_indicator(), out),
            b'I' => self.text(&formatted(now, "%Y-%m-%dT%H:%M:%S%z"), out),
            b'U' => out.extend_from_slice(
                format!("{}.{:09}", now.timestamp().as_second(), now.subsec_nanosecond()).as_bytes(),
            ),
            b'j' | b'J' => match as_json(message, now, letter == b'J') {
                Some(json) => json.write(pretty, out),
                None => {
                    let topic = message.topic();
                    return Some(format!("Error: Message payload is not valid JSON on topic {topic}."));
                }
            },
            b'l' => self.number(message.payload().len() as u64, out),
            b'm' => self.number(message.packet_id.into(), out),
            b'P' => {
                let pairs = properties.user_properties().map(|(name, value)| format!("{name}:{value}"));
                out.extend_from_slice(pairs.collect::<Vec<_>>().join(" ").as_bytes());
            }
            b'p' => self.bytes(message.payload(), out),
            b'q' => out.push(b'0' + message.qos() as u8),
            b'R' => {
                if let Some(topic) = properties.response_topic() {
                    self.text(topic, out);
                }
            }
            b'r' => out.push(if message.retain() { b'1' } else { b'0' }),
            b'S' => self.number_or_blank(message.subscription_ids.as_slice().first().copied(), out),
            b't' => self.text(message.topic(), out),
            b'x' => self.hex(message.payload(), b"0123456789abcdef", out),
            b'X' => self.hex(message.payload(), b"0123456789ABCDEF", out),
            b'f' => match message.payload().try_into() {
                Ok(bytes) => self.float(f32::from_ne_bytes(bytes).into(), out),
                Err(_) => return Some(String::from("requested float printing, but non-float data received")),
            },
            b'd' => match message.payload().try_into() {
                Ok(bytes) => self.float(f64::from_ne_bytes(bytes), out),
                Err(_) => {
                    return Some(String::from("requested double printing, but non-double data received"));
                }
            },
            _ => {}
        }
        None
    }

    fn blank(&self, out: &mut Vec<u8>) {
        out.extend(std::iter::repeat_n(self.pad, self.width));
    }

    fn padded(&self, text: &[u8], pad: u8, out: &mut Vec<u8>) {
        let room = self.width.saturating_sub(text.len());
        if self.left {
            out.extend_from_slice(text);
            out.extend(std::iter::repeat_n(b' ', room));
        } else {
            // Zeros come behind the sign.
            let sign = usize::from(pad == b'0' && text.first() == Some(&b'-'));
            out.extend_from_slice(&text[..sign]);
            out.extend(std::iter::repeat_n(pad, room));
            out.extend_from_slice(&text[sign..]);
        }
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        let most = self.precision.unwrap_or(usize::MAX).min(text.len());
        self.padded(&text.as_bytes()[..most], b' ', out);
    }

    fn number(&self, number: u64, out: &mut Vec<u8>) {
        self.padded(number.to_string().as_bytes(), self.pad, out);
    }

    fn number_or_blank(&self, number: Option<impl Into<u64>>, out: &mut Vec<u8>) {
        match number {
            Some(number) => self.number(number.into(), out),
            None => self.blank(out),
        }
    }

    fn float(&self, number: f64, out: &mut Vec<u8>) {
        let text = match number {
            n if n.is_nan() => String::from(if n.is_sign_negative() { "-nan" } else { "nan" }),
            n => format!("{n:.*}", self.precision.unwrap_or(6)),
        };
        let pad = if number.is_finite() { self.pad } else { b' ' };
        self.padded(text.as_bytes(), pad, out);
    }

    /// Cut to the width where there is one.
    fn cut<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        if self.width == 0 { payload } else { &payload[..payload.len().min(self.width)] }
    }

    fn bytes(&self, payload: &[u8], out: &mut Vec<u8>) {
        let payload = self.cut(payload);
        let room = self.width.saturating_sub(payload.len());
        if self.left {
            out.extend_from_slice(payload);
            out.extend(std::iter::repeat_n(b' ', room));
        } else {
            out.extend(std::iter::repeat_n(self.pad, room));
            out.extend_from_slice(payload);
        }
    }

    /// A separator comes after each `precision` digits, but not at the end.
    fn hex(&self, payload: &[u8], letters: &[u8; 16], out: &mut Vec<u8>) {
        let payload = self.cut(payload);
        let room = self.width.saturating_sub(payload.len() * 2);
        let mut count = 0;
        let mut put = |byte: u8, last: bool, out: &mut Vec<u8>| {
            out.push(byte);
            count += 1;
            if !last && self.precision.is_some_and(|group| group > 0 && count % group == 0) {
                out.push(self.separator);
            }
        };
        if !self.left {
            (0..room).for_each(|_| put(self.pad, false, out));
        }
        for (i, byte) in payload.iter().enumerate() {
            put(letters[usize::from(byte >> 4)], false, out);
            put(letters[usize::from(byte & 15)], i + 1 == payload.len(), out);
        }
        if self.left {
            out.extend(std::iter::repeat_n(b' ', room));
        }
    }
}

fn formatted(now: &ZonedDateTime, format: &str) -> String {
    strtime::format(format, now).unwrap_or_default()
}

/// As `strftime` in the C locale.
fn time_part(now: &ZonedDateTime, letter: u8, out: &mut Vec<u8>) {
    let text = match letter {
        b'N' => format!("{:09}", now.subsec_nanosecond()),
        b'c' => formatted(now, "%a %b %e %H:%M:%S %Y"),
        b'x' | b'D' => formatted(now, "%m/%d/%y"),
        b'X' | b'T' => formatted(now, "%H:%M:%S"),
        b'r' => formatted(now, "%I:%M:%S %p"),
        b'%' => String::from("%"),
        letter => formatted(now, &format!("%{}", char::from(letter))),
    };
    out.extend_from_slice(text.as_bytes());
}

fn as_json(message: &Message, now: &ZonedDateTime, parsed: bool) -> Option<Json> {
    let mut members: Vec<(Vec<u8>, Json)> = Vec::new();
    let mut put = |name: &str, value: Json| members.push((name.as_bytes().to_vec(), value));
    put("tst", Json::text(formatted(now, "%Y-%m-%dT%H:%M:%S.%6f%z")));
    put("topic", Json::text(message.topic()));
    put("qos", Json::number(message.qos() as u8));
    put("retain", Json::number(message.retain()));
    put("payloadlen", Json::number(message.payload().len()));
    if message.packet_id != 0 {
        put("mid", Json::number(message.packet_id));
    }
    let properties = properties(message);
    if !properties.is_empty() {
        put("properties", Json::Object(properties));
    }
    let payload = match message.payload() {
        [] => Json::Plain(String::from("null")),
        payload if parsed => Json::parse(payload)?,
        payload => Json::text(payload),
    };
    put("payload", payload);
    Some(Json::Object(members))
}

fn properties(message: &Message) -> Vec<(Vec<u8>, Json)> {
    let mut members: Vec<(Vec<u8>, Json)> = Vec::new();
    let mut put = |name: &str, value: Json| members.push((name.as_bytes().to_vec(), value));
    let mut users = Vec::new();
    for property in message.properties() {
        match property {
            Property::PayloadFormatIndicator(n) => put("payload-format-indicator", Json::number(n)),
            Property::ContentType(text) => put("content-type", Json::text(text)),
            Property::ResponseTopic(text) => put("response-topic", Json::text(text)),
            Property::CorrelationData(data) => put("correlation-data", Json::text(data)),
            Property::UserProperty(name, value) => {
                users.push(Json::Object(vec![(name.as_bytes().to_vec(), Json::text(value))]));
            }
            _ => {}
        }
    }
    if let Some(seconds) = message.message_expiry_s {
        put("message-expiry-interval", Json::number(seconds));
    }
    if let Some(alias) = message.topic_alias {
        put("topic-alias", Json::number(alias));
    }
    for id in message.subscription_ids.as_slice() {
        put("subscription-identifier", Json::number(id));
    }
    if !users.is_empty() {
        put("user-properties", Json::Array(users));
    }
    members
}
