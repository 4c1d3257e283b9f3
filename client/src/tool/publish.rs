//! `hikyaku-pub`.

use super::Failure;
use super::config::{Config, Payload};
use super::session::{self, LONG, PAYLOAD_MAX, failure, no_answer, warn};
use crate::{Client, Delivery, Error, PublishRequest, ReasonCode, Reconnect};
use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn run(config: Config) -> Result<u8, Failure> {
    let payload = session::payload(&config)?;
    if config.topics.is_empty() || config.payload.is_none() {
        return Err(Failure::usage("Both topic and message must be supplied."));
    }
    session::show_packets(&config);
    // Who sends what is typed goes on when the connection is back; a single message is the caller's to repeat.
    let reconnect = match config.payload {
        Some(Payload::Lines) => Reconnect::After { first: Duration::from_secs(1), most: LONG / 60 },
        _ => Reconnect::Never,
    };
    let ending = session::on_signals(&config)?;
    let connected = session::connector(&config, reconnect)?.connect();
    let client = Arc::new(connected.map_err(|error| no_answer(&error, &config))?);
    ending.set(&client);
    let properties = session::publish_properties(&config);
    let request = PublishRequest {
        topic: &config.topics[0],
        payload: payload.as_deref().unwrap_or_default(),
        qos: config.qos,
        retain: config.retain,
        properties: properties.as_properties(),
    };
    let sender = Sender { client: &client, config: &config, underway: VecDeque::new(), count: 0 };
    match payload {
        Some(_) => sender.repeat(&request),
        None => sender.lines(&request),
    }?;
    session::goodbye(&client, &config);
    Ok(0)
}

struct Sender<'a> {
    client: &'a Client,
    config: &'a Config,
    underway: VecDeque<(u64, Delivery)>,
    count: u64,
}

impl Sender<'_> {
    fn repeat(mut self, request: &PublishRequest<'_>) -> Result<(), Failure> {
        for i in 0..self.config.repeat {
            if i > 0 {
                std::thread::sleep(self.config.repeat_delay);
            }
            self.send(request)?;
            self.finish(0)?;
        }
        Ok(())
    }

    /// A message for each line of standard input, without its end.
    fn lines(mut self, request: &PublishRequest<'_>) -> Result<(), Failure> {
        let mut stdin = io::stdin().lock();
        let mut line = Vec::new();
        let wrong = loop {
            match read_line(&mut stdin, &mut line, PAYLOAD_MAX) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
            self.send(&PublishRequest { payload: &line, ..*request })?;
            // Those at the front are done first. An answer comes out once.
            while let Some((number, delivery)) = self.underway.front() {
                let Some(result) = delivery.poll() else { break };
                self.settle(*number, result)?;
                self.underway.pop_front();
            }
        };
        self.finish(0)?;
        let Some(error) = wrong else { return Ok(()) };
        // The lines before it are good.
        session::goodbye(self.client, self.config);
        Err(Failure::run(1, format!("Error: {error}.")))
    }

    fn send(&mut self, request: &PublishRequest<'_>) -> Result<(), Failure> {
        let delivery = loop {
            match self.client.publish_within(request, LONG) {
                Err(Error::Timeout) => {}
                result => break result.map_err(|error| failure(&error, self.config.version))?,
            }
        };
        self.count += 1;
        self.underway.push_back((self.count, delivery));
        Ok(())
    }

    /// Waits until not more than `most` are underway.
    fn finish(&mut self, most: usize) -> Result<(), Failure> {
        while self.underway.len() > most {
            let Some((number, delivery)) = self.underway.front() else { break };
            match delivery.wait(LONG) {
                Err(Error::Timeout) => continue,
                result => self.settle(*number, result)?,
            }
            self.underway.pop_front();
        }
        Ok(())
    }

    /// Takes the answer to a message.
    fn settle(&self, number: u64, result: Result<ReasonCode, Error>) -> Result<(), Failure> {
        match result {
            Ok(_) => Ok(()),
            Err(Error::Rejected(reason)) => {
                warn(self.config, &format!("Warning: Publish {number} failed: {reason}."));
                Ok(())
            }
            Err(Error::Closed) => {
                // The client knows why.
                let why = self.client.disconnect(Duration::ZERO).err().unwrap_or(Error::Closed);
                Err(failure(&why, self.config.version))
            }
            Err(other) => Err(failure(&other, self.config.version)),
        }
    }
}

/// Reads a line without its end, which is in memory as far as it has come; `false` if there is none.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    line.clear();
    let mut begun = false;
    loop {
        let chunk = match input.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            return Ok(begun);
        }
        begun = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if part.len() > most - line.len() {
            return Err(io::Error::other(format!("A line of the input is longer than {most} bytes")));
        }
        line.try_reserve(part.len())
            .map_err(|_| io::Error::other("There is not enough memory for a line of the input"))?;
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, repeat};

    #[test]
    fn lines_are_read_however_they_are_cut() {
        for capacity in 1..10 {
            let mut input = BufReader::with_capacity(capacity, &b"one\n\n\xff\r\nfour"[..]);
            let (mut line, mut lines) = (Vec::new(), Vec::new());
            while read_line(&mut input, &mut line, 4).unwrap() {
                lines.push(line.clone());
            }
            assert_eq!(lines, [&b"one"[..], b"", b"\xff\r", b"four"], "{capacity}");
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let mut line = Vec::new();
        let error = read_line(&mut BufReader::new(repeat(b'x')), &mut line, 100_000).unwrap_err();
        assert_eq!(error.to_string(), "A line of the input is longer than 100000 bytes");
        assert!(line.len() <= 100_000);
        assert!(read_line(&mut &b"12345"[..], &mut line, 4).is_err());
    }
}
