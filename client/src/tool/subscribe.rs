//! `hikyaku-sub`.

use super::Failure;
use super::config::Config;
use super::output::Output;
use super::session::{self, Ending, GOODBYE, LONG, TIMED_OUT, failure, no_answer, warn};
use crate::{
    Client, Error, Message, Properties, PublishRequest, QoS, ReasonCode, Reconnect, Subscription, Version,
};
use hikyaku_proto::topic::TopicFilter;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What comes of a message.
enum Next {
    Message,
    End,
}

pub(super) fn run(config: Config) -> Result<u8, Failure> {
    session::show_packets(&config);
    let deadline = config.timeout.map(|timeout| Instant::now() + timeout);
    let ending = session::on_signals(&config)?;
    let mut output = Output::begin(&config).map_err(|_| Failure::Exit(0))?;
    let reconnect = Reconnect::After { first: Duration::from_secs(1), most: Duration::from_secs(5) };
    let mut connector = session::connector(&config, reconnect)?;
    if let Some(timeout) = config.timeout {
        connector = connector.time_limit(timeout);
    }
    let options = crate::SubscribeOptions { qos: config.qos, ..config.subscribe_options };
    let filters: Vec<_> = config.topics.iter().map(|topic| (topic.as_str(), options)).collect();
    let connected = connector.connect_requesting(&filters, config.subscribe_properties.as_properties());
    let (client, messages) = match connected {
        Ok((client, Ok(messages))) => (Arc::new(client), messages),
        Ok((client, Err(Error::Rejected(reason)))) => {
            if config.debug && !config.quiet {
                let _ = output.line(&format!("Subscribed (mid: 1): {}", reason as u8));
            }
            warn(&config, "All subscription requests were denied.");
            session::goodbye(&client, &config);
            return Ok(0);
        }
        Ok((_, Err(_))) | Err(_) if deadline.is_some_and(|at| at <= Instant::now()) => return timed_out(),
        Ok((_, Err(error))) | Err(error) => return Err(no_answer(&error, &config)),
    };
    ending.set(&client);
    let mut program = Program { config: &config, client: &client, output, shown: 0 };
    let begun = program.begin(&messages, deadline);
    let result = begun.and_then(|()| match config {
        Config { exit_after_sub: true, .. } => Ok(Next::End),
        Config { message_rate: true, .. } => program.rate(&messages, deadline),
        _ => program.messages(&messages, deadline, &ending),
    });
    match result {
        Ok(_) if ending.is_stopped() => Ok(0),
        Ok(_) => {
            session::goodbye(&client, &config);
            Ok(0)
        }
        Err(Error::Timeout) if deadline.is_some() => {
            // As mosquitto does: the will tells others.
            let (reason, properties) = match config.version {
                Version::V5 => {
                    (ReasonCode::DisconnectWithWillMessage, config.disconnect_properties.as_properties())
                }
                _ => (ReasonCode::NormalDisconnection, Properties::EMPTY),
            };
            let _ = client.disconnect_with(reason, properties, GOODBYE);
            timed_out()
        }
        Err(_) if ending.is_stopped() => Ok(0),
        // The client knows why.
        Err(Error::Closed) => {
            let why = client.disconnect(Duration::ZERO).err().unwrap_or(Error::Closed);
            Err(failure(&why, config.version))
        }
        // Nobody reads what is shown.
        Err(Error::Io(_)) => {
            session::goodbye(&client, &config);
            Ok(0)
        }
        Err(error) => Err(failure(&error, config.version)),
    }
}

fn timed_out() -> Result<u8, Failure> {
    Err(Failure::run(TIMED_OUT, "Timed out"))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

struct Program<'a> {
    config: &'a Config,
    client: &'a Client,
    output: Output,
    shown: u32,
}

impl Program<'_> {
    fn begin(&mut self, messages: &Subscription, deadline: Option<Instant>) -> Result<(), Error> {
        let config = self.config;
        if config.debug && !config.quiet && !messages.codes().is_empty() {
            let codes: Vec<_> = messages.codes().iter().map(|code| (*code as u8).to_string()).collect();
            let _ = self.output.line(&format!("Subscribed (mid: 1): {}", codes.join(", ")));
        }
        for filter in &config.unsubscribe {
            let properties = config.unsubscribe_properties.as_properties();
            match deadline {
                None => self.client.unsubscribe(&[filter], properties)?,
                Some(at) => self.client.unsubscribe_within(&[filter], properties, left(at))?,
            };
        }
        Ok(())
    }

    fn messages(
        &mut self,
        messages: &Subscription,
        deadline: Option<Instant>,
        ending: &Ending,
    ) -> Result<Next, Error> {
        loop {
            // However much there is to be shown.
            if deadline.is_some_and(|at| left(at).is_zero()) {
                return Err(Error::Timeout);
            }
            match messages.recv(deadline.map_or(LONG, left))? {
                // After a signal what came before is no longer shown.
                _ if ending.is_stopped() => return Ok(Next::End),
                Some(message) => {
                    if let Next::End = self.message(message)? {
                        return Ok(Next::End);
                    }
                }
                None => {}
            }
        }
    }

    fn message(&mut self, message: Message) -> Result<Next, Error> {
        let config = self.config;
        if config.retained_only && !message.retain() {
            return Ok(Next::End);
        }
        let topic = message.topic();
        let out = |filter: &String| TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic));
        if message.retain() && config.no_retained || config.filter_out.iter().any(out) {
            message.ack();
            return Ok(Next::Message);
        }
        if config.remove_retained && message.retain() {
            let empty =
                PublishRequest { topic, qos: QoS::AtLeastOnce, retain: true, ..PublishRequest::default() };
            self.client.publish_within(&empty, LONG)?;
        }
        self.output.show(config, &message)?;
        // Only now: what was not shown comes again to whoever goes on with the session.
        message.ack();
        self.shown += 1;
        Ok(if config.count == Some(self.shown) { Next::End } else { Next::Message })
    }

    fn rate(&mut self, messages: &Subscription, deadline: Option<Instant>) -> Result<Next, Error> {
        let mut second = Instant::now();
        loop {
            second += Duration::from_secs(1);
            let mut count = 0u64;
            loop {
                let until = deadline.map_or(second, |at| at.min(second));
                match messages.recv(left(until))? {
                    Some(message) => {
                        message.ack();
                        count += 1;
                    }
                    None => break,
                }
                if left(until).is_zero() {
                    break;
                }
            }
            self.output.line(&format!("{count} msgs/s"))?;
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(Error::Timeout);
            }
        }
    }
}
