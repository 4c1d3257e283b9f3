//! `hikyaku-rr`.

use super::Failure;
use super::config::Config;
use super::output::Output;
use super::session::{self, LONG, TIMED_OUT, failure, no_answer, warn};
use crate::{Client, Error, Message, Property, PublishRequest, Reconnect, Subscription};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn run(config: Config) -> Result<u8, Failure> {
    let payload = session::payload(&config)?;
    let (Some(topic), Some(payload), Some(response_topic)) =
        (config.topics.first(), payload, &config.response_topic)
    else {
        return Err(Failure::usage("All of topic, message, and response topic must be supplied."));
    };
    let mut properties = session::publish_properties(&config);
    if properties.as_properties().response_topic().is_some() {
        return Err(Failure::run(1, "Error in PUBLISH properties: Duplicate response topic."));
    }
    properties.push(Property::ResponseTopic(response_topic));
    session::show_packets(&config);
    let deadline = config.timeout.map(|timeout| Instant::now() + timeout);
    let ending = session::on_signals(&config)?;
    let mut connector = session::connector(&config, Reconnect::Never)?;
    if let Some(timeout) = config.timeout {
        connector = connector.time_limit(timeout);
    }
    let options = crate::SubscribeOptions { qos: config.qos, ..config.subscribe_options };
    let filters = [(response_topic.as_str(), options)];
    let connected = connector.connect_requesting(&filters, config.subscribe_properties.as_properties());
    let (client, messages) = match connected {
        Ok((client, Ok(messages))) => (Arc::new(client), messages),
        Ok((client, Err(Error::Rejected(reason)))) => {
            warn(&config, &reason.to_string());
            session::goodbye(&client, &config);
            return Ok(0);
        }
        Ok((_, Err(_))) | Err(_) if deadline.is_some_and(|at| at <= Instant::now()) => return timed_out(),
        Ok((_, Err(error))) | Err(error) => return Err(no_answer(&error, &config)),
    };
    ending.set(&client);
    let sent_at = Instant::now();
    let request = PublishRequest {
        topic,
        payload: &payload,
        qos: config.qos,
        retain: false,
        properties: properties.as_properties(),
    };
    client.publish_with(&request).map_err(|error| failure(&error, config.version))?;
    let Some(message) = response(&config, &client, &messages, deadline)? else {
        session::goodbye(&client, &config);
        return timed_out();
    };
    let latency = sent_at.elapsed();
    // Where nobody reads it there is nothing left to do either.
    let _ = Output::default().show(&config, &message);
    message.ack();
    session::goodbye(&client, &config);
    if config.latency {
        let _ = writeln!(io::stdout(), "Latency: {}", readable(latency));
    }
    Ok(0)
}

fn timed_out() -> Result<u8, Failure> {
    Err(Failure::run(TIMED_OUT, "Timed out"))
}

fn response(
    config: &Config,
    client: &Client,
    messages: &Subscription,
    deadline: Option<Instant>,
) -> Result<Option<Message>, Failure> {
    loop {
        let left = deadline.map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
        // However much there is that is no answer.
        if left.is_zero() {
            return Ok(None);
        }
        match messages.recv(left) {
            Ok(Some(message)) if message.retain() && config.no_retained => message.ack(),
            Ok(None) => {}
            Ok(answer) => return Ok(answer),
            Err(_) => {
                let why = client.disconnect(Duration::ZERO).err().unwrap_or(Error::Closed);
                return Err(failure(&why, config.version));
            }
        }
    }
}

fn readable(latency: Duration) -> String {
    let ns = latency.as_nanos() as f64;
    match latency {
        l if l >= Duration::from_secs(1) => format!("{}.{:09}", l.as_secs(), l.subsec_nanos()),
        l if l < Duration::from_micros(1) => format!("{}ns", l.as_nanos()),
        l if l < Duration::from_millis(1) => format!("{:.6}µs", ns / 1e3),
        _ => format!("{:.6}ms", ns / 1e6),
    }
}
