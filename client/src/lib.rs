//! A blocking MQTT client.
