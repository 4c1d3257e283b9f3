//! MQTT.js, the client of Node.js and of most browsers.

use std::process::Command;

use hikyaku_tests::process::{client_script, installed};

use crate::script::script_cases;

pub fn client() -> Command {
    let mut node = Command::new("node");
    node.arg(client_script("mqttjs.mjs")).env("MQTT_JS", installed("node"));
    node
}

script_cases! {
    both {
        qos_0
        qos_1
        qos_2
        qos_is_the_lower_of_both
        retained_set_get_and_clear
        will_when_killed
        no_will_after_disconnect
        wildcard_plus
        wildcard_hash
        dollar_topics_are_hidden_from_wildcards
        session_resumes_with_queued_messages
        clean_session_forgets
        takeover_disconnects_the_first
        payload_of_1_mib
        shared_subscription
        unsubscribe_stops
        ten_thousand_in_order
        keep_alive_pings
    }
    v5 {
        properties_pass_through
        will_properties
        message_expiry_counts_down
        subscription_identifier
        topic_alias_to_the_broker
        topic_alias_assigned_by_the_client
        topic_alias_from_the_broker
        no_local
        retain_as_published
        retain_handling
        assigned_client_id
        session_expiry_0_ends_the_session
        request_and_response
    }
}
