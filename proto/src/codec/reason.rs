//! The reason codes of MQTT 5.0, and what they are in a 3.1.1 CONNACK.

use core::fmt;

use super::{DecodeError, PacketType};

macro_rules! reason_codes {
    ($($value:literal $name:ident $text:literal in $($packet:ident)+;)+) => {
        /// A reason code of MQTT 5.0. Versions 3.1 and 3.1.1 know the six of their CONNACK.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode {
            $(#[doc = $text] $name = $value,)+
        }

        impl ReasonCode {
            /// The reason code of a number, `None` when the standard has none for it.
            #[inline]
            pub const fn from_u8(value: u8) -> Option<ReasonCode> {
                match value {
                    $($value => Some(ReasonCode::$name),)+
                    _ => None,
                }
            }

            const fn text(self) -> &'static str {
                match self {
                    $(ReasonCode::$name => $text,)+
                }
            }

            // One bit per packet type.
            const fn packets(self) -> u16 {
                match self {
                    $(ReasonCode::$name => $(1 << PacketType::$packet as u16)|+,)+
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success" in ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth;
    0x01 GrantedQoS1 "Granted QoS 1" in SubAck;
    0x02 GrantedQoS2 "Granted QoS 2" in SubAck;
    0x04 DisconnectWithWillMessage "Disconnect with Will Message" in Disconnect;
    0x10 NoMatchingSubscribers "No matching subscribers" in PubAck PubRec;
    0x11 NoSubscriptionExisted "No subscription existed" in UnsubAck;
    0x18 ContinueAuthentication "Continue authentication" in Auth;
    0x19 ReAuthenticate "Re-authenticate" in Auth;
    0x80 UnspecifiedError "Unspecified error" in ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x81 MalformedPacket "Malformed Packet" in ConnAck Disconnect;
    0x82 ProtocolError "Protocol Error" in ConnAck Disconnect;
    0x83 ImplementationSpecificError "Implementation specific error"
        in ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" in ConnAck;
    0x85 ClientIdentifierNotValid "Client Identifier not valid" in ConnAck;
    0x86 BadUserNameOrPassword "Bad User Name or Password" in ConnAck;
    0x87 NotAuthorized "Not authorized" in ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x88 ServerUnavailable "Server unavailable" in ConnAck;
    0x89 ServerBusy "Server busy" in ConnAck Disconnect;
    0x8a Banned "Banned" in ConnAck;
    0x8b ServerShuttingDown "Server shutting down" in Disconnect;
    0x8c BadAuthenticationMethod "Bad authentication method" in ConnAck Disconnect;
    0x8d KeepAliveTimeout "Keep Alive timeout" in Disconnect;
    0x8e SessionTakenOver "Session taken over" in Disconnect;
    0x8f TopicFilterInvalid "Topic Filter invalid" in SubAck UnsubAck Disconnect;
    0x90 TopicNameInvalid "Topic Name invalid" in ConnAck PubAck PubRec Disconnect;
    0x91 PacketIdentifierInUse "Packet identifier in use" in PubAck PubRec SubAck UnsubAck;
    0x92 PacketIdentifierNotFound "Packet identifier not found" in PubRel PubComp;
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" in Disconnect;
    0x94 TopicAliasInvalid "Topic Alias invalid" in Disconnect;
    0x95 PacketTooLarge "Packet too large" in ConnAck Disconnect;
    0x96 MessageRateTooHigh "Message rate too high" in Disconnect;
    0x97 QuotaExceeded "Quota exceeded" in ConnAck PubAck PubRec SubAck Disconnect;
    0x98 AdministrativeAction "Administrative action" in Disconnect;
    0x99 PayloadFormatInvalid "Payload format invalid" in ConnAck PubAck PubRec Disconnect;
    0x9a RetainNotSupported "Retain not supported" in ConnAck Disconnect;
    0x9b QoSNotSupported "QoS not supported" in ConnAck Disconnect;
    0x9c UseAnotherServer "Use another server" in ConnAck Disconnect;
    0x9d ServerMoved "Server moved" in ConnAck Disconnect;
    0x9e SharedSubscriptionsNotSupported "Shared Subscriptions not supported" in SubAck Disconnect;
    0x9f ConnectionRateExceeded "Connection rate exceeded" in ConnAck Disconnect;
    0xa0 MaximumConnectTime "Maximum connect time" in Disconnect;
    0xa1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported" in SubAck Disconnect;
    0xa2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported" in SubAck Disconnect;
}

impl ReasonCode {
    /// What 0x00 is called in a DISCONNECT.
    #[allow(non_upper_case_globals)]
    pub const NormalDisconnection: ReasonCode = ReasonCode::Success;

    /// What 0x00 is called in a SUBACK.
    #[allow(non_upper_case_globals)]
    pub const GrantedQoS0: ReasonCode = ReasonCode::Success;

    /// Whether the code says that something failed: 0x80 and above.
    #[inline]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether the standard lists the code for this packet type.
    #[inline]
    pub const fn allowed_in(self, packet_type: PacketType) -> bool {
        self.packets() & 1 << packet_type as u16 != 0
    }

    /// Reads a reason code as one of `packet_type`.
    #[inline]
    pub(super) fn read(
        value: u8,
        packet_type: PacketType,
        clause: &'static str,
    ) -> Result<ReasonCode, DecodeError> {
        let Some(reason) = ReasonCode::from_u8(value) else {
            return Err(DecodeError::protocol("the reason code does not exist", clause));
        };
        if !reason.allowed_in(packet_type) {
            return Err(DecodeError::protocol("the reason code does not belong to its packet", clause));
        }
        Ok(reason)
    }

    /// The CONNACK return code of 3.1 and 3.1.1 that comes closest.
    pub const fn to_v3_connack(self) -> u8 {
        match self {
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::BadUserNameOrPassword => 4,
            ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => 5,
            _ if self.is_error() => 3,
            _ => 0,
        }
    }

    /// The reason code of a CONNACK return code of 3.1 and 3.1.1, `None` above 5.
    pub const fn from_v3_connack(value: u8) -> Option<ReasonCode> {
        Some(match value {
            0 => ReasonCode::Success,
            1 => ReasonCode::UnsupportedProtocolVersion,
            2 => ReasonCode::ClientIdentifierNotValid,
            3 => ReasonCode::ServerUnavailable,
            4 => ReasonCode::BadUserNameOrPassword,
            5 => ReasonCode::NotAuthorized,
            _ => return None,
        })
    }
}

/// The name in the standard.
impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}
