//! The numbered normative statements of MQTT 5.0 and 3.1.1, each proven by a test of its name: scripts of bytes against a
//! broker ([`common::Rig`]) or a client ([`common::script::Script`]) in virtual time.
//!
//! Each test shows what is asked for, and, where there is one, what must not be. Statements about transports are proven in
//! `server/tests` and `client/tests`. A test of `hikyaku-tests` makes sure that none is missing.

#[path = "../common/mod.rs"]
mod common;

mod v3_connect;
mod v3_delivery;
mod v3_packets;
mod v5_acks;
mod v5_connack;
mod v5_connect;
mod v5_delivery;
mod v5_disconnect;
mod v5_errors;
mod v5_limits;
mod v5_message;
mod v5_packets;
mod v5_publish;
mod v5_qos;
mod v5_subscribe;
mod v5_topics;
