//! The broker binary under the clients that people use, and under bytes that no client sends.
//!
//! `./tests/run` builds the broker, installs the clients and runs this. `HIKYAKU_TEST_BROKER` names another
//! broker binary to put in its place.
#![cfg(feature = "real-clients")]

mod auth;
mod browser;
mod command_line;
mod connections;
mod import;
mod mosquitto;
mod mqttjs;
mod mutations;
mod paho;
mod script;
mod tools;
mod transports;
mod tutorial;
