//! What can go wrong, for the caller of a blocking function.

use crate::AddressError;
use hikyaku_proto::client::{By, Dropped, SendError};
use hikyaku_proto::codec::ReasonCode;
use std::{fmt, io};

/// Why a call did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// The address could not be resolved, or nobody could be reached there.
    Io(io::Error),
    /// The text is no address.
    Address(AddressError),
    /// The TLS options cannot be used.
    #[cfg(feature = "tls")]
    Tls(crate::TlsError),
    /// Authentication by SCRAM came to nothing on our side.
    #[cfg(feature = "scram")]
    Scram(crate::ScramError),
    /// The server did not let us in.
    Refused(ReasonCode),
    /// The connection ended.
    Disconnected(By),
    /// The request cannot be sent; nothing has changed.
    Send(SendError),
    /// The server got the message or subscription and did not take it.
    Rejected(ReasonCode),
    /// The request was given up.
    Dropped(Dropped),
    /// It took longer than the caller would wait. What was begun goes on.
    Timeout,
    /// The client has been closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "cannot connect: {error}"),
            Error::Address(error) => write!(f, "the address is wrong: {error}"),
            #[cfg(feature = "tls")]
            Error::Tls(error) => error.fmt(f),
            #[cfg(feature = "scram")]
            Error::Scram(error) => error.fmt(f),
            Error::Refused(reason) => write!(f, "the server refused the connection: {reason}"),
            Error::Disconnected(by) => by.fmt(f),
            Error::Send(error) => write!(f, "cannot send: {error}"),
            Error::Rejected(reason) => write!(f, "the server refused the request: {reason}"),
            Error::Dropped(Dropped::Expired) => f.write_str("the message expired before it could be sent"),
            Error::Dropped(Dropped::ConnectionLost) => {
                f.write_str("the connection was lost before the answer")
            }
            Error::Dropped(Dropped::SessionLost) => {
                f.write_str("the server lost the session: the message may or may not have arrived")
            }
            Error::Dropped(Dropped::Refused(error)) => write!(f, "the message was given up: {error}"),
            Error::Timeout => f.write_str("no answer in time"),
            Error::Closed => f.write_str("the client has been closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            Error::Send(error) => Some(error),
            _ => None,
        }
    }
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        Error::Address(error)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(feature = "tls")]
impl From<crate::TlsError> for Error {
    fn from(error: crate::TlsError) -> Self {
        Error::Tls(error)
    }
}

#[cfg(feature = "scram")]
impl From<crate::ScramError> for Error {
    fn from(error: crate::ScramError) -> Self {
        Error::Scram(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        Error::Send(error)
    }
}
