//! An Application Message that a handler makes.

use crate::{Deliver, Properties, PropertiesBuf, Property, Publish, QoS};

/// An Application Message.
///
/// ```
/// use plugin_api::{Message, Property, QoS};
/// let message = Message::new("plant/1/state", "running")
///     .qos(QoS::AtLeastOnce)
///     .retain(true)
///     .property(Property::ContentType("text/plain"));
/// assert_eq!(message.payload, b"running");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name. The host refuses one that is not valid: empty, with a wildcard, or longer than 65,535 bytes.
    pub topic: String,
    /// Application payload.
    pub payload: Vec<u8>,
    /// The QoS to deliver it with at most.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Properties of a PUBLISH packet, without Topic Alias and Subscription Identifier, which are the host's.
    pub properties: PropertiesBuf,
    /// A number of the handler's own that comes back in [`handle_puback`](crate::Handler::handle_puback) when the client
    /// acknowledges the message; 0 for none. It counts only for a message to one client ([`Host::send`](crate::Host::send)
    /// and [`InfoAction::Publish`](crate::InfoAction::Publish)); one that a handler changes on its way keeps the token that it
    /// was sent with.
    pub token: u64,
}

impl Message {
    /// A message with QoS 0, not retained, without properties.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: PropertiesBuf::new(),
            token: 0,
        }
    }

    /// Another Topic Name.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Another payload.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// A number that comes back when the client acknowledges the message; see the field.
    #[must_use]
    pub const fn token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// Another QoS.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// Retained or not.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Adds a property. One that cannot be sent is left out; see [`PropertiesBuf::with`].
    #[must_use]
    pub fn property(mut self, property: Property<'_>) -> Self {
        self.properties = self.properties.with(property);
        self
    }
}

/// A copy, to change and to send instead. It keeps what is left of the Message Expiry Interval.
impl From<&Deliver<'_>> for Message {
    fn from(deliver: &Deliver<'_>) -> Self {
        Self {
            topic: deliver.topic().to_owned(),
            payload: deliver.payload().to_vec(),
            qos: deliver.qos(),
            retain: deliver.retain(),
            properties: deliver.properties().into(),
            token: 0,
        }
    }
}

/// A copy, to change and to forward instead.
impl From<&Publish<'_>> for Message {
    fn from(publish: &Publish<'_>) -> Self {
        Self {
            topic: publish.topic().to_owned(),
            payload: publish.payload().to_vec(),
            qos: publish.qos(),
            retain: publish.retain(),
            properties: properties_to_forward(publish.properties()),
            token: 0,
        }
    }
}

/// A Topic Alias belongs to the connection that it came on, and must not stick to another topic.
pub(crate) fn properties_to_forward(properties: Properties<'_>) -> PropertiesBuf {
    let keeps = |property: &Property<'_>| !matches!(property, Property::TopicAlias(_));
    properties.iter().filter(keeps).fold(PropertiesBuf::new(), PropertiesBuf::with)
}
