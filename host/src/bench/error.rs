//! What keeps a load from being measured.

/// Why nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The load was not started: the broker was not reached, or this machine cannot do it.
    NotStarted(String),
    /// The broker refused what the load needs.
    Refused(String),
    /// The broker closed a connection, or sent what is not MQTT.
    Lost(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::NotStarted(text) | Self::Refused(text) | Self::Lost(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}
