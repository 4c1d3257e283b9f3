//! `hikyaku-pub`.

use super::config::{Config, Payload};
use super::session::{self, LONG, failure, warn};
use super::{Failure, options, say};
use crate::{Client, Delivery, Error, PublishRequest, ReasonCode, Reconnect};
use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn run(config: Config) -> Result<u8, Failure> {
    let payload = session::payload(&config)?;
    if config.topics.is_empty() || config.payload.is_none() {
        say("Error: Both topic and message must be supplied.");
        let _ = io::stdout().write_all(options::help(config.tool).as_bytes());
        return Err(Failure::Exit(1));
    }
    session::show_packets(&config);
    // Who sends what is typed goes on when the connection is back; a single message is the caller's to repeat.
    let reconnect = match config.payload {
        Some(Payload::Lines) => Reconnect::After { first: Duration::from_secs(1), most: LONG / 60 },
        _ => Reconnect::Never,
    };
    let ending = session::on_signals(&config)?;
    let connected = session::connector(&config, reconnect)?.connect();
    let client = Arc::new(connected.map_err(|error| failure(&error, config.version))?);
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
        loop {
            line.clear();
            let read = stdin.read_until(b'\n', &mut line);
            if read.map_err(|error| Failure::run(1, format!("Error: {error}.")))? == 0 {
                break;
            }
            let payload = line.strip_suffix(b"\n").unwrap_or(&line);
            self.send(&PublishRequest { payload, ..*request })?;
            // Those at the front are done first. An answer comes out once.
            while let Some((number, delivery)) = self.underway.front() {
                let Some(result) = delivery.poll() else { break };
                self.settle(*number, result)?;
                self.underway.pop_front();
            }
        }
        self.finish(0)
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
