//! JSON as mosquitto_sub writes it: on one line, or with tabs.

/// How deep values may nest.
const DEPTH: usize = 500;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    /// Null, true, false and numbers, as they are written.
    Plain(String),
    /// The bytes of a string. They need not be UTF-8: payloads come from anyone.
    Text(Vec<u8>),
    Array(Vec<Json>),
    Object(Vec<(Vec<u8>, Json)>),
}

impl Json {
    pub fn number(number: impl std::fmt::Display) -> Json {
        Json::Plain(number.to_string())
    }

    pub fn text(text: impl AsRef<[u8]>) -> Json {
        Json::Text(text.as_ref().to_vec())
    }

    /// A whole text; `None` when it is not JSON.
    pub fn parse(text: &[u8]) -> Option<Json> {
        let mut parser = Parser { text, at: 0 };
        let json = parser.value(0)?;
        parser.space();
        (parser.at == text.len()).then_some(json)
    }

    pub fn write(&self, pretty: bool, out: &mut Vec<u8>) {
        self.write_at(0, pretty, out);
    }

    fn write_at(&self, depth: usize, pretty: bool, out: &mut Vec<u8>) {
        match self {
            Json::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Json::Text(text) => write_text(text, out),
            Json::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.extend_from_slice(if pretty { b", " } else { b"," });
                    }
                    item.write_at(depth + 1, pretty, out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                let line = |depth: usize, out: &mut Vec<u8>| {
                    if pretty {
                        out.push(b'\n');
                        out.extend(std::iter::repeat_n(b'\t', depth));
                    }
                };
                out.push(b'{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    line(depth + 1, out);
                    write_text(name, out);
                    out.extend_from_slice(if pretty { b":\t" } else { b":" });
                    value.write_at(depth + 1, pretty, out);
                }
                line(depth, out);
                out.push(b'}');
            }
        }
    }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH {
            return None;
        }
        self.space();
        match self.peek()? {
            b'"' => self.string().map(Json::Text),
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            b'-' | b'0'..=b'9' => self.number(),
            _ => ["null", "true", "false"].into_iter().find_map(|word| {
                let found = self.text[self.at..].starts_with(word.as_bytes());
                found.then(|| {
                    self.at += word.len();
                    Json::Plain(String::from(word))
                })
            }),
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.eat(b'[')?;
        let mut items = Vec::new();
        if self.eat(b']').is_some() {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.eat(b',').is_none() {
                self.eat(b']')?;
                return Some(Json::Array(items));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.eat(b'{')?;
        let mut members = Vec::new();
        if self.eat(b'}').is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.eat(b':')?;
            members.push((name, self.value(depth + 1)?));
            if self.eat(b',').is_none() {
                self.eat(b'}')?;
                return Some(Json::Object(members));
            }
        }
    }

    /// Integers stay as they are, however large; others take the shortest form with the same value.
    fn number(&mut self) -> Option<Json> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|b| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
        let text = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
        if whole == 0
            || whole > 1 && digits.starts_with('0')
            || digits.ends_with('.')
            || digits.contains(".e")
        {
            return None;
        }
        let value: f64 = text.parse().ok()?;
        self.at += text.len();
        let plain = whole == digits.len() || !value.is_finite();
        Some(if plain { Json::Plain(String::from(text)) } else { Json::number(value) })
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(out),
                b'\\' => self.escape(&mut out)?,
                0..0x20 => return None,
                _ => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) {
                    if !self.text[self.at..].starts_with(b"\\u") {
                        return None;
                    }
                    self.at += 2;
                    let low = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    code = 0x10000 + ((code - 0xd800) << 10) + low;
                }
                let letter = char::from_u32(code)?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        });
        Some(())
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str, pretty: bool) -> Option<String> {
        let mut out = Vec::new();
        Json::parse(text.as_bytes())?.write(pretty, &mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn json_is_written_on_one_line_or_with_tabs() {
        let text = r#" { "a" : [1, -2.50, 1e3, true,null] , "b\u00e9\ud83d\ude00\n":{}, "c": 12345678901234567890 } "#;
        let line = "{\"a\":[1,-2.5,1000,true,null],\"bé😀\\n\":{},\"c\":12345678901234567890}";
        assert_eq!(again(text, false).unwrap(), line);
        assert_eq!(
            again("{\"a\":{\"b\":[1,2]}}", true).unwrap(),
            "{\n\t\"a\":\t{\n\t\t\"b\":\t[1, 2]\n\t}\n}"
        );
        assert_eq!(again("{}", true).unwrap(), "{\n}");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in
            ["", "x", "{", "[1,]", "{\"a\"}", "\"\\x\"", "\"\\ud800\"", "01", "1.", "nul", "1 2", "\"", "-"]
        {
            assert_eq!(again(text, false), None, "{text}");
        }
        assert_eq!(again(&"[".repeat(100_000), false), None);
    }
}
