//! MQTT 5.0.
