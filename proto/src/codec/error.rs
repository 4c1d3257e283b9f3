//! Two kinds of error that must not be mixed up: the peer's bytes are bad, or our caller asked for the impossible.

use core::error::Error;
use core::fmt;

use super::ReasonCode;

/// Whether the bytes could not be read at all, or were read and break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The packet cannot be parsed.
    Malformed,
    /// The packet was parsed, and what it says is not allowed.
    Protocol,
}

/// Why a peer's bytes are no valid packet. The connection they came from cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Unreadable or illegal.
    pub kind: ErrorKind,
    /// The MQTT 5.0 reason code to answer with, also when the peer speaks a version that cannot carry it.
    pub reason: ReasonCode,
    /// What is wrong, as one sentence.
    pub what: &'static str,
    /// The statement of the standard that is broken, for example `MQTT-3.3.1-2`, or the section.
    pub clause: &'static str,
    /// Whether to close without an answer: packets can no longer be told apart, the peer has said goodbye, or its
    /// credentials are at fault.
    pub quiet: bool,
}

impl DecodeError {
    #[cold]
    pub(crate) const fn malformed(what: &'static str, clause: &'static str) -> DecodeError {
        DecodeError {
            kind: ErrorKind::Malformed,
            reason: ReasonCode::MalformedPacket,
            what,
            clause,
            quiet: false,
        }
    }

    #[cold]
    pub(crate) const fn protocol(what: &'static str, clause: &'static str) -> DecodeError {
        DecodeError {
            kind: ErrorKind::Protocol,
            reason: ReasonCode::ProtocolError,
            what,
            clause,
            quiet: false,
        }
    }

    pub(crate) const fn with_reason(self, reason: ReasonCode) -> DecodeError {
        DecodeError { reason, ..self }
    }

    pub(crate) const fn quietly(self) -> DecodeError {
        DecodeError { quiet: true, ..self }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ErrorKind::Malformed => "malformed packet",
            ErrorKind::Protocol => "protocol error",
        };
        write!(f, "{kind}: {} [{}] (0x{:02x})", self.what, self.clause, self.reason as u8)
    }
}

impl Error for DecodeError {}

/// Why a packet cannot be encoded: a mistake of the caller, not of the peer. The buffer is left as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    StringTooLong,
    /// A string contains U+0000, which no MQTT string may.
    StringHasNul,
    /// A string contains another control character or a code point that is no character, which receivers refuse.
    StringHasControl,
    /// The packet would have a Remaining Length above 268,435,455.
    PacketTooLarge,
    /// The packet needs a packet identifier and was given 0.
    PacketIdZero,
    /// A value does not fit its field, for example a Subscription Identifier above 268,435,455.
    ValueOutOfRange,
    /// The chosen protocol version has no such packet or combination.
    NotInVersion,
    /// A SUBSCRIBE or UNSUBSCRIBE without topic filters, a SUBACK or UNSUBACK without codes.
    Empty,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeError::StringTooLong => "a string or binary field is longer than 65,535 bytes",
            EncodeError::StringHasNul => "a string contains the null character",
            EncodeError::StringHasControl => "a string contains a control character or what is no character",
            EncodeError::PacketTooLarge => "the packet is longer than MQTT allows (268,435,455 bytes)",
            EncodeError::PacketIdZero => "the packet identifier is zero",
            EncodeError::ValueOutOfRange => "a value does not fit its field",
            EncodeError::NotInVersion => "the protocol version has no such packet",
            EncodeError::Empty => "the packet needs at least one topic filter or code",
        })
    }
}

impl Error for EncodeError {}
