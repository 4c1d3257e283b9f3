//! paho-mqtt, the client of Python.

use std::process::Command;

use hikyaku_tests::process::{client_script, installed};

use crate::script::script_cases;

fn client() -> Command {
    let mut python = Command::new(installed("python/bin/python"));
    python.arg(client_script("paho_client.py"));
    python
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
        no_local
        retain_as_published
        retain_handling
        assigned_client_id
        session_expiry_0_ends_the_session
        puback_says_when_nobody_subscribes
        unsuback_says_when_nothing_was_subscribed
    }
}
