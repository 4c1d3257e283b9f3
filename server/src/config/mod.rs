//! The configuration, in the syntax of mosquitto.conf.

mod settings;

pub use settings::{
    Endpoint, ListenerSettings, LogDestination, LogSettings, LogTypes, PersistenceSettings, Place, Problem,
    Protocol, SecuritySettings, Settings, Severity, TlsSettings, TlsVersion,
};
