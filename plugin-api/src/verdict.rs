//! What a handler can answer.

use crate::{Later, Message, PropertiesBuf, Property, ReasonCode};

/// Makes a Reason Code with properties: a refusal and a disconnection differ in meaning, not in shape.
macro_rules! reason_with_properties {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            /// Why, in the protocol's words.
            pub reason_code: ReasonCode,
            /// Properties of the packet that tells the client (5.0 only): Reason String, User Properties, Server
            /// Reference.
            pub properties: PropertiesBuf,
        }

        impl $name {
            /// Just the Reason Code.
            #[must_use]
            pub const fn new(reason_code: ReasonCode) -> Self {
                Self { reason_code, properties: PropertiesBuf::new() }
            }

            /// Adds a Reason String, for people to read.
            #[must_use]
            pub fn reason_string(self, reason: &str) -> Self {
                self.property(Property::ReasonString(reason))
            }

            /// Adds a property. One that cannot be sent is left out; see [`PropertiesBuf::with`].
            #[must_use]
            pub fn property(mut self, property: Property<'_>) -> Self {
                self.properties = self.properties.with(property);
                self
            }
        }

        impl From<ReasonCode> for $name {
            fn from(reason_code: ReasonCode) -> Self {
                Self::new(reason_code)
            }
        }
    };
}

reason_with_properties! {
    /// A refusal. The Reason Code has to be an error, 0x80 or above. One that the packet which tells the client cannot have
    /// (CONNACK, PUBACK, PUBREC, each with a table of its own in the specification) is sent as 0x80, and logged.
    Reject
}

reason_with_properties! {
    /// An end of the connection, with a DISCONNECT packet for 5.0 clients. The Reason Code is 0 (normal) or an error. An
    /// error that a server cannot send in DISCONNECT, such as 0x86, is sent as 0x80, and logged.
    Disconnect
}

/// The answer of [`handle_connect`](crate::Handler::handle_connect).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectVerdict {
    /// Let the client in, unless a later plugin refuses.
    Accept(Accept),
    /// Do not let it in: CONNACK with the Reason Code.
    Reject(Reject),
    /// The answer comes later, by a ticket: see [`Host::ticket`](crate::Host::ticket).
    Later(Later<ConnectVerdict>),
}

impl ConnectVerdict {
    /// Let the client in as it asked.
    #[must_use]
    pub const fn accept() -> Self {
        Self::Accept(Accept::new())
    }

    /// Do not let it in.
    #[must_use]
    pub const fn reject(reason_code: ReasonCode) -> Self {
        Self::Reject(Reject::new(reason_code))
    }
}

/// What the server changes of what the client asked for; 5.0 clients are told in CONNACK. The default changes nothing.
///
/// ```
/// # use plugin_api::{Accept, ConnectVerdict};
/// let verdict = ConnectVerdict::Accept(Accept::new().keep_alive_secs(30).user_property("shard", "7"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accept {
    /// The Client Identifier that the client gets, whatever it sent. Later plugins see this one.
    pub client_id: Option<String>,
    /// The Keep Alive in seconds that the server enforces.
    pub keep_alive_secs: Option<u16>,
    /// The Session Expiry Interval in seconds.
    pub session_expiry_secs: Option<u32>,
    /// Further properties of CONNACK: Reason String, User Properties, Response Information.
    pub properties: PropertiesBuf,
}

impl Accept {
    /// Changes nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { client_id: None, keep_alive_secs: None, session_expiry_secs: None, properties: PropertiesBuf::new() }
    }

    /// Gives the client this Client Identifier, whatever it sent.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Enforces this Keep Alive, in seconds; 0 turns it off.
    #[must_use]
    pub const fn keep_alive_secs(mut self, secs: u16) -> Self {
        self.keep_alive_secs = Some(secs);
        self
    }

    /// Sets the Session Expiry Interval, in seconds.
    #[must_use]
    pub const fn session_expiry_secs(mut self, secs: u32) -> Self {
        self.session_expiry_secs = Some(secs);
        self
    }

    /// Adds a User Property to CONNACK.
    #[must_use]
    pub fn user_property(self, name: &str, value: &str) -> Self {
        self.property(Property::UserProperty(name, value))
    }

    /// Adds a property to CONNACK. One that cannot be sent is left out; see [`PropertiesBuf::with`].
    #[must_use]
    pub fn property(mut self, property: Property<'_>) -> Self {
        self.properties = self.properties.with(property);
        self
    }
}

/// The answer of [`handle_auth`](crate::Handler::handle_auth).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthVerdict {
    /// The client is who it says.
    Ok,
    /// The client is who it says, and gets these last data.
    OkWith(Vec<u8>),
    /// The client gets these data and has to answer.
    Continue(Vec<u8>),
    /// Refused. [`ReasonCode::BAD_AUTHENTICATION_METHOD`] at the start means: not my method, ask the next plugin.
    Error(Reject),
    /// The answer comes later, by a ticket: see [`Host::ticket`](crate::Host::ticket).
    Later(Later<AuthVerdict>),
}

impl AuthVerdict {
    /// Refused.
    #[must_use]
    pub const fn error(reason_code: ReasonCode) -> Self {
        Self::Error(Reject::new(reason_code))
    }
}

/// The answer of [`handle_publish`](crate::Handler::handle_publish).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishVerdict {
    /// Deliver it, unless a later plugin objects.
    Forward,
    /// Deliver this instead. Later plugins see it; if the topic is another one, the earlier plugins are asked once more.
    ForwardChanged(Message),
    /// Acknowledge it and do not deliver it: the handler has dealt with it. Later plugins are not asked.
    Handled,
    /// Do not deliver it; a 5.0 client learns the Reason Code if it asked for QoS 1 or 2.
    Reject(Reject),
    /// Do not deliver it, and end the connection.
    Disconnect(Disconnect),
    /// The answer comes later, by a ticket: see [`Host::ticket`](crate::Host::ticket).
    Later(Later<PublishVerdict>),
}

impl PublishVerdict {
    /// Do not deliver it.
    #[must_use]
    pub const fn reject(reason_code: ReasonCode) -> Self {
        Self::Reject(Reject::new(reason_code))
    }

    /// Do not deliver it, and end the connection.
    #[must_use]
    pub const fn disconnect(reason_code: ReasonCode) -> Self {
        Self::Disconnect(Disconnect::new(reason_code))
    }
}

/// The answer of [`handle_subscribe`](crate::Handler::handle_subscribe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// Everything as it was asked for.
    Grant,
    /// One Reason Code for each Topic Filter, in order: the granted QoS (a higher one than was asked for is lowered to
    /// it), or an error.
    Codes(Vec<ReasonCode>),
    /// End the connection.
    Disconnect(Disconnect),
    /// The answer comes later, by a ticket: see [`Host::ticket`](crate::Host::ticket).
    Later(Later<SubscribeVerdict>),
}

/// The answer of [`handle_unsubscribe`](crate::Handler::handle_unsubscribe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnsubscribeVerdict {
    /// Everything as it was asked for.
    Allow,
    /// One Reason Code for each Topic Filter, in order: [`ReasonCode::SUCCESS`], or an error, which keeps the
    /// subscription.
    Codes(Vec<ReasonCode>),
    /// End the connection.
    Disconnect(Disconnect),
    /// The answer comes later, by a ticket: see [`Host::ticket`](crate::Host::ticket).
    Later(Later<UnsubscribeVerdict>),
}

/// The answer of [`handle_deliver`](crate::Handler::handle_deliver).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliverVerdict {
    /// Send it.
    Send,
    /// Send this instead: to this client, with at most the QoS that it would have had.
    SendChanged(Message),
    /// Do not send it to this client.
    Drop,
}

/// One thing that [`handle_info`](crate::Handler::handle_info) can have done to its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoAction {
    /// Send this message to this client, whatever it subscribed to.
    Publish(Message),
    /// End the connection with a DISCONNECT packet.
    Disconnect(Disconnect),
    /// Close the connection without one. The text, which says why, reaches
    /// [`handle_disconnect`](crate::Handler::handle_disconnect).
    Stop(String),
    /// What to do is said later, by a ticket: see [`Host::ticket`](crate::Host::ticket). It stands alone in the list.
    Later(Later<Vec<InfoAction>>),
}
