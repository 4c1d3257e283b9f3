//! Enhanced authentication (5.0): what a method says at connecting, and in between.

use crate::delivery::of_wait;
use crate::state::State;
use crate::{Client, Error, Properties, ReasonCode, SendError};
use hikyaku_proto::time::Instant;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// A method that this crate knows.
#[derive(Clone, Debug)]
pub(crate) enum Method {
    #[cfg(feature = "scram")]
    Scram(crate::scram::Scram),
}

/// The method of a client, and who waits for the end of a re-authentication.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {
    pub method: Option<Method>,
    waiting: Option<SyncSender<Result<(), Error>>>,
}

impl Method {
    /// What to say first, in CONNECT or AUTH.
    fn first(&mut self) -> Result<Vec<u8>, Error> {
        match self {
            #[cfg(feature = "scram")]
            Method::Scram(scram) => Ok(scram.first()?),
            #[cfg(not(feature = "scram"))]
            _ => Err(Error::Closed),
        }
    }

    /// What to say to what the server has said.
    #[cfg_attr(not(feature = "scram"), allow(unused_variables, reason = "there is no method"))]
    fn next(&mut self, data: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            #[cfg(feature = "scram")]
            Method::Scram(scram) => Ok(scram.last(data)?),
            #[cfg(not(feature = "scram"))]
            _ => Err(Error::Closed),
        }
    }

    /// Whether the server has said what it had to, now that it lets us in.
    #[cfg_attr(not(feature = "scram"), allow(unused_variables, reason = "there is no method"))]
    fn verify(&mut self, data: Option<&[u8]>) -> Result<(), Error> {
        match self {
            #[cfg(feature = "scram")]
            Method::Scram(scram) => Ok(scram.verify(data)?),
            #[cfg(not(feature = "scram"))]
            _ => Err(Error::Closed),
        }
    }
}

impl Authenticator {
    /// The re-authentication is over, if there was one.
    pub fn end(&mut self, result: Result<(), Error>) {
        if let Some(waiting) = self.waiting.take() {
            // Nobody may be waiting.
            let _ = waiting.try_send(result);
        }
    }
}

impl State {
    /// A CONNECT is about to be made.
    pub fn prepare_authentication(&mut self) -> Result<(), Error> {
        if let Some(method) = &mut self.authenticator.method {
            let first = method.first()?;
            self.client.set_authentication_data(&first);
        }
        Ok(())
    }

    /// The server lets us in; may it?
    pub fn verify_server(&mut self, now: Instant, properties: Properties<'_>) -> bool {
        let Some(method) = &mut self.authenticator.method else { return true };
        let verified = method.verify(properties.authentication_data());
        verified.map_err(|error| self.distrust(now, error)).is_ok()
    }

    pub fn on_auth(&mut self, now: Instant, reason: ReasonCode, properties: Properties<'_>) {
        let data = properties.authentication_data();
        let done = match &mut self.authenticator.method {
            None => Err(Error::Refused(ReasonCode::BadAuthenticationMethod)),
            Some(method) if reason == ReasonCode::Success => method.verify(data),
            Some(method) => match method.next(data.unwrap_or_default()) {
                Ok(answer) => return self.answer_auth(now, &answer),
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(()) => self.authenticator.end(Ok(())),
            Err(error) => self.distrust(now, error),
        }
    }

    fn answer_auth(&mut self, now: Instant, answer: &[u8]) {
        if let Err(error) = self.client.authenticate(now, answer) {
            self.distrust(now, Error::Send(error));
        }
    }

    /// The server is not who we want to talk to: the end, whatever it may have sent besides.
    fn distrust(&mut self, now: Instant, error: Error) {
        log::info!("The server is left: {error}.");
        match self.authenticator.waiting.is_some() {
            true => {
                self.authenticator.end(Err(error));
                self.finish(Error::Closed);
            }
            false => self.finish(error),
        }
        let _ = self.stop(now, ReasonCode::UnspecifiedError, Properties::EMPTY);
        self.stopping = true;
        while self.client.poll_event().is_some() {}
    }

    fn reauthenticate(&mut self, now: Instant) -> Result<Receiver<Result<(), Error>>, Error> {
        if !self.client.is_connected() {
            return Err(Error::Send(SendError::NotConnected));
        }
        let Authenticator { method: Some(method), waiting: None } = &mut self.authenticator else {
            return Err(Error::Send(SendError::NotAuthenticating));
        };
        let first = method.first()?;
        self.client.reauthenticate(now, &first)?;
        let (sender, receiver) = sync_channel(1);
        self.authenticator.waiting = Some(sender);
        Ok(receiver)
    }
}

impl Client {
    /// Authenticates anew on the open connection, with the method it was made with (5.0), and waits for the end of it.
    /// Everything else goes on meanwhile. What the server does not accept ends the connection:
    /// [`Error::Disconnected`].
    ///
    /// It is an error if there is no such method, or a re-authentication is underway already: one that took longer
    /// than its `timeout` goes on.
    pub fn reauthenticate(&self, timeout: Duration) -> Result<(), Error> {
        let done = self.inner.command(State::reauthenticate)?;
        done.recv_timeout(timeout).map_err(of_wait)?
    }
}
