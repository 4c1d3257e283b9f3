//! Properties as the option `-D` names them.

use super::Failure;
use crate::{PropertiesBuf, Property};
use hikyaku_proto::codec::{PacketType, Properties, PropertyContext};

/// Which packet the properties are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Will,
}

/// A command and its context; without a [`Command`] where there are such packets, but not here.
fn command(name: &str) -> Option<(Option<Command>, PropertyContext)> {
    let of = |packet| PropertyContext::Packet(packet);
    Some(match name {
        "connect" => (Some(Command::Connect), of(PacketType::Connect)),
        "publish" => (Some(Command::Publish), of(PacketType::Publish)),
        "subscribe" => (Some(Command::Subscribe), of(PacketType::Subscribe)),
        "unsubscribe" => (Some(Command::Unsubscribe), of(PacketType::Unsubscribe)),
        "disconnect" => (Some(Command::Disconnect), of(PacketType::Disconnect)),
        "will" => (Some(Command::Will), PropertyContext::Will),
        "auth" => (None, of(PacketType::Auth)),
        "connack" => (None, of(PacketType::ConnAck)),
        "puback" => (None, of(PacketType::PubAck)),
        "pubrec" => (None, of(PacketType::PubRec)),
        "pubrel" => (None, of(PacketType::PubRel)),
        "pubcomp" => (None, of(PacketType::PubComp)),
        "suback" => (None, of(PacketType::SubAck)),
        "unsuback" => (None, of(PacketType::UnsubAck)),
        _ => return None,
    })
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Kind {
    Byte(fn(u8) -> Property<'static>),
    Two(fn(u16) -> Property<'static>),
    Four(fn(u32) -> Property<'static>),
    Text(for<'a> fn(&'a str) -> Property<'a>),
    Data(for<'a> fn(&'a [u8]) -> Property<'a>),
    Pair,
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "payload-format-indicator" => Kind::Byte(Property::PayloadFormatIndicator),
        "message-expiry-interval" => Kind::Four(Property::MessageExpiryInterval),
        "content-type" => Kind::Text(|v| Property::ContentType(v)),
        "response-topic" => Kind::Text(|v| Property::ResponseTopic(v)),
        "correlation-data" => Kind::Data(|v| Property::CorrelationData(v)),
        "subscription-identifier" => Kind::Four(Property::SubscriptionIdentifier),
        "session-expiry-interval" => Kind::Four(Property::SessionExpiryInterval),
        "assigned-client-identifier" => Kind::Text(|v| Property::AssignedClientIdentifier(v)),
        "server-keep-alive" => Kind::Two(Property::ServerKeepAlive),
        "authentication-method" => Kind::Text(|v| Property::AuthenticationMethod(v)),
        "authentication-data" => Kind::Data(|v| Property::AuthenticationData(v)),
        "request-problem-information" => Kind::Byte(Property::RequestProblemInformation),
        "will-delay-interval" => Kind::Four(Property::WillDelayInterval),
        "request-response-information" => Kind::Byte(Property::RequestResponseInformation),
        "response-information" => Kind::Text(|v| Property::ResponseInformation(v)),
        "server-reference" => Kind::Text(|v| Property::ServerReference(v)),
        "reason-string" => Kind::Text(|v| Property::ReasonString(v)),
        "receive-maximum" => Kind::Two(Property::ReceiveMaximum),
        "topic-alias-maximum" => Kind::Two(Property::TopicAliasMaximum),
        "topic-alias" => Kind::Two(Property::TopicAlias),
        "maximum-qos" => Kind::Byte(Property::MaximumQoS),
        "retain-available" => Kind::Byte(Property::RetainAvailable),
        "user-property" => Kind::Pair,
        "maximum-packet-size" => Kind::Four(Property::MaximumPacketSize),
        "wildcard-subscription-available" => Kind::Byte(Property::WildcardSubscriptionAvailable),
        "subscription-identifier-available" => Kind::Byte(Property::SubscriptionIdentifierAvailable),
        "shared-subscription-available" => Kind::Byte(Property::SharedSubscriptionAvailable),
        _ => return None,
    })
}

/// How many values `-D command name` takes: 2 for a user property.
pub(super) fn values(name: &str) -> usize {
    if name == "user-property" { 2 } else { 1 }
}

/// Appends a property to those of its command, which `list` finds.
pub(super) fn add<'a>(
    [packet, name]: [&str; 2],
    values: &[&str],
    list: impl FnOnce(Command) -> &'a mut PropertiesBuf,
) -> Result<Command, Failure> {
    let fail = |text: String| Failure::usage(format!("{text} in --property argument."));
    let Some((command, context)) = command(packet) else {
        return Err(Failure::usage(format!("Invalid command {packet} given in --property argument.")));
    };
    let Some(kind) = kind(name) else {
        return Err(Failure::usage(format!("Invalid property name {name} given in --property argument.")));
    };
    if !allowed(kind, context) {
        return Err(fail(format!("{name} property not allowed for {packet}")));
    }
    let Some(command) = command.filter(|c| *c != Command::Publish || name != "subscription-identifier")
    else {
        return Err(fail(format!("{name} property not supported for {packet}")));
    };
    let value = values.first().copied().unwrap_or_default();
    let number = |most: u32| {
        let number = value.trim().parse::<i128>().ok().filter(|n| (0..=i128::from(most)).contains(n));
        number.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            Failure::usage(format!("Property value ({value}) out of range for property {name}."))
        })
    };
    let property = match kind {
        Kind::Byte(make) => make(number(u8::MAX.into())? as u8),
        Kind::Two(make) => make(number(u16::MAX.into())? as u16),
        Kind::Four(make) => make(number(u32::MAX)?),
        Kind::Text(make) => make(value),
        Kind::Data(make) => make(value.as_bytes()),
        Kind::Pair => Property::UserProperty(value, values.get(1).copied().unwrap_or_default()),
    };
    let list = list(command);
    let mut longer = list.clone();
    let added = longer.try_push(property).map_err(|error| error.to_string());
    let checked = added.and_then(|()| {
        let all = Properties::validate(longer.as_properties().raw(), context);
        all.map(drop).map_err(|error| error.to_string())
    });
    checked.map_err(|error| Failure::usage(format!("Cannot add property {name} for {packet}: {error}.")))?;
    *list = longer;
    Ok(command)
}

/// Asks the codec, with a value that is right for all.
fn allowed(kind: Kind, context: PropertyContext) -> bool {
    let property = match kind {
        Kind::Byte(make) => make(1),
        Kind::Two(make) => make(1),
        Kind::Four(make) => make(1),
        Kind::Text(make) => make("x"),
        Kind::Data(make) => make(b"x"),
        Kind::Pair => Property::UserProperty("x", "x"),
    };
    let mut one = PropertiesBuf::default();
    // Authentication data is nothing without a method.
    if matches!(property, Property::AuthenticationData(_)) {
        one.push(Property::AuthenticationMethod("x"));
    }
    one.push(property);
    Properties::validate(one.as_properties().raw(), context).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add_one(args: [&str; 2], values: &[&str]) -> Result<PropertiesBuf, String> {
        let mut list = PropertiesBuf::default();
        match add(args, values, |_| &mut list) {
            Ok(_) => Ok(list),
            Err(Failure::Usage(text)) => Err(text),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn properties_are_checked_against_their_packet_and_type() {
        let expiry = add_one(["publish", "message-expiry-interval"], &["7"]).unwrap();
        assert_eq!(expiry.as_properties().message_expiry_interval(), Some(7));
        let pair = add_one(["will", "user-property"], &["a", "b"]).unwrap();
        assert_eq!(pair.as_properties().user_properties().next(), Some(("a", "b")));
        for (args, value, wanted) in [
            (["x", "y"], "", "Error: Invalid command x given in --property argument."),
            (["publish", "y"], "", "Error: Invalid property name y given in --property argument."),
            (["subscribe", "topic-alias"], "1", "Error: topic-alias property not allowed for subscribe in"),
            (
                ["auth", "authentication-method"],
                "1",
                "Error: authentication-method property not supported for auth",
            ),
            (
                ["connect", "receive-maximum"],
                "65536",
                "Error: Property value (65536) out of range for property",
            ),
            (["connect", "receive-maximum"], "x", "Error: Property value (x) out of range for property"),
            (["publish", "response-topic"], "a/+", "Error: Cannot add property response-topic for publish: "),
        ] {
            let error = add_one(args, &[value]).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
