//! A message on its way to the server.

use crate::state::Answer;
use crate::{Error, ReasonCode};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// A message on its way to the server. It goes its way whether or not somebody waits.
#[derive(Debug)]
pub struct Delivery {
    /// `None` for QoS 0: there is nothing to wait for.
    answer: Option<Receiver<Answer>>,
}

impl Delivery {
    pub(crate) fn new(answer: Option<Receiver<Answer>>) -> Delivery {
        Delivery { answer }
    }

    /// Waits until the server has the message: success, or `NoMatchingSubscribers`. At QoS 0 it returns at once.
    /// After [`Error::Timeout`] one may wait again; an answer comes out once.
    pub fn wait(&self, timeout: Duration) -> Result<ReasonCode, Error> {
        let Some(answer) = &self.answer else { return Ok(ReasonCode::Success) };
        Ok(result(answer.recv_timeout(timeout).map_err(of_wait)?)?.0)
    }

    /// As [`Delivery::wait`], without waiting: `None` when there is no answer yet.
    pub fn poll(&self) -> Option<Result<ReasonCode, Error>> {
        let Some(answer) = &self.answer else { return Some(Ok(ReasonCode::Success)) };
        match answer.try_recv() {
            Ok(answer) => Some(result(answer).map(|codes| codes.0)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Error::Closed)),
        }
    }
}

pub(crate) fn of_wait(error: RecvTimeoutError) -> Error {
    match error {
        RecvTimeoutError::Timeout => Error::Timeout,
        RecvTimeoutError::Disconnected => Error::Closed,
    }
}

/// An error when every code is one.
pub(crate) fn result(answer: Answer) -> Result<(ReasonCode, Vec<ReasonCode>), Error> {
    match answer {
        Ok((first, rest)) if first.is_error() && rest.iter().all(|code| code.is_error()) => {
            Err(Error::Rejected(first))
        }
        Ok(codes) => Ok(codes),
        Err(why) => Err(Error::Dropped(why)),
    }
}
