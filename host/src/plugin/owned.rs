//! Requests that outlive the packet that they are about: copies of views, for calls on other threads.

use std::net::SocketAddr;

use abi_stable::std_types::RStr;
use plugin_api::Callback;
use plugin_api::abi::{
    RawAck, RawAuth, RawConnect, RawConnected, RawDeliver, RawDisconnect, RawInfo, RawMessageNotice, RawPeer,
    RawPublish, RawRetained, RawState, RawSubscribe, RawSubscription, RawSwapped, RawUnsubscribe,
};

use zeroize::Zeroize;

use super::request::{ConnectionInfo, NO_EXTENSION};
use super::transport::{Transport, show};
use crate::core::peer::PeerDetails;

/// Makes the owned counterpart of a view from its fields: text, bytes, and what is copied as it is.
macro_rules! owned {
    ($($name:ident: $raw:ident { text: $($text:ident)*; bytes: $($bytes:ident)*; copied: $($copied:ident: $type:ty)*; })+) => {$(
        #[derive(Clone)]
        pub(super) struct $name {
            $($text: Box<str>,)*
            $($bytes: Box<[u8]>,)*
            $($copied: $type,)*
        }

        impl From<&$raw<'_>> for $name {
            fn from(raw: &$raw<'_>) -> Self {
                Self {
                    $($text: raw.$text.as_str().into(),)*
                    $($bytes: raw.$bytes.as_slice().into(),)*
                    $($copied: raw.$copied,)*
                }
            }
        }

        impl $name {
            /// The bytes behind it.
            fn bytes(&self) -> usize {
                0 $(+ self.$text.len())* $(+ self.$bytes.len())*
            }

            pub(super) fn raw(&self) -> $raw<'_> {
                $raw {
                    $($text: (&*self.$text).into(),)*
                    $($bytes: (&*self.$bytes).into(),)*
                    $($copied: self.$copied,)*
                    extension: NO_EXTENSION,
                }
            }
        }
    )+};
}

owned! {
    OwnedAuth: RawAuth { text: method; bytes: data properties; copied: step: u8 flags: u8; }
    OwnedPublish: RawPublish { text: topic; bytes: payload properties; copied: packet_id: u16 qos: u8 flags: u8; }
    OwnedSubscription: RawSubscription {
        text: filter share_name; bytes: ; copied: qos: u8 retain_handling: u8 flags: u8 reason_code: u8;
    }
    OwnedMessageForInfo: RawInfo { text: kind; bytes: data; copied: connection: u64 timer: u64 sender: u8; }
    OwnedDisconnect: RawDisconnect { text: text; bytes: ; copied: kind: u8 reason_code: u8; }
    OwnedConnected: RawConnected {
        text: client_id; bytes: ; copied: connection: u64 session_expiry: u32 keep_alive: u16 flags: u8;
    }
    OwnedMessageNotice: RawMessageNotice {
        text: client_id topic; bytes: payload properties;
        copied: token: u64 packet_id: u16 qos: u8 flags: u8 reason: u8 reason_code: u8;
    }
    OwnedRetained: RawRetained { text: topic; bytes: payload properties; copied: qos: u8 change: u8; }
}

/// A connection that has just been accepted.
#[derive(Clone)]
pub(super) struct OwnedInfo {
    connection: u64,
    peer: SocketAddr,
    listener: Box<str>,
    details: Option<Box<PeerDetails>>,
}

impl From<&ConnectionInfo<'_>> for OwnedInfo {
    fn from(info: &ConnectionInfo<'_>) -> Self {
        let &ConnectionInfo { connection, peer, listener, transport } = info;
        Self { connection, peer, listener: listener.into(), details: transport.to_details() }
    }
}

impl OwnedInfo {
    /// The bytes behind it.
    pub(super) fn bytes(&self) -> usize {
        self.listener.len() + self.details.as_ref().map_or(0, |details| details.bytes())
    }

    pub(super) fn with<T>(&self, see: impl FnOnce(&ConnectionInfo<'_>) -> T) -> T {
        let Self { connection, peer, ref listener, ref details } = *self;
        show(details.as_deref(), |transport| see(&ConnectionInfo { connection, peer, listener, transport }))
    }
}

#[derive(Clone)]
pub(super) struct OwnedConnect {
    client_id: Box<str>,
    username: Box<str>,
    password: Box<[u8]>,
    properties: Box<[u8]>,
    will: Option<OwnedPublish>,
    listener: Box<str>,
    connection: u64,
    peer: RawPeer,
    details: Option<Box<PeerDetails>>,
    keep_alive: u16,
    protocol_version: u8,
    flags: u8,
}

/// A message on its way to one client: for recordings, as the question itself is answered at once.
#[derive(Clone)]
pub(super) struct OwnedDeliver {
    topic: Box<str>,
    payload: Box<[u8]>,
    properties: Box<[u8]>,
    client_id: Box<str>,
    plugin: Box<str>,
    identifiers: Box<[u32]>,
    token: u64,
    qos: u8,
    flags: u8,
    origin: u8,
    cause: u8,
}

/// A connection that comes from another instance.
#[derive(Clone)]
pub(super) struct OwnedSwapped {
    info: OwnedInfo,
    client_id: Box<str>,
    from_version: Box<str>,
    keep_alive: u16,
    protocol_version: u8,
    flags: u8,
}

/// Nothing of a password or of Authentication Data is left behind in memory that is given back.
impl Drop for OwnedConnect {
    fn drop(&mut self) {
        self.password.zeroize();
        self.properties.zeroize();
    }
}

impl Drop for OwnedAuth {
    fn drop(&mut self) {
        self.data.zeroize();
        self.properties.zeroize();
    }
}

impl OwnedSwapped {
    /// The bytes behind it.
    pub(super) fn bytes(&self) -> usize {
        self.info.bytes() + self.client_id.len() + self.from_version.len()
    }

    pub(super) fn new(info: &ConnectionInfo<'_>, raw: &RawSwapped<'_>) -> Self {
        Self {
            info: info.into(),
            client_id: raw.client_id.as_str().into(),
            from_version: raw.from_version.as_str().into(),
            keep_alive: raw.keep_alive,
            protocol_version: raw.protocol_version,
            flags: raw.flags,
        }
    }

    pub(super) fn with<T>(&self, see: impl FnOnce(&ConnectionInfo<'_>, &RawSwapped<'_>) -> T) -> T {
        self.info.with(|info| {
            see(
                info,
                &RawSwapped {
                    info: info.raw(),
                    client_id: (&*self.client_id).into(),
                    from_version: (&*self.from_version).into(),
                    keep_alive: self.keep_alive,
                    protocol_version: self.protocol_version,
                    flags: self.flags,
                    extension: NO_EXTENSION,
                },
            )
        })
    }
}

/// What a plugin is asked, or told.
#[derive(Clone)]
pub(super) enum Request {
    Connect(Box<OwnedConnect>),
    Auth(OwnedAuth),
    Publish(OwnedPublish),
    Subscribe(Vec<OwnedSubscription>, Box<[u8]>),
    Unsubscribe(Vec<Box<str>>, Box<[u8]>),
    Puback {
        packet_id: u16,
        kind: u8,
        reason_code: u8,
        token: u64,
    },
    Info(OwnedMessageForInfo),
    Disconnect(OwnedDisconnect),
    Connected(OwnedConnected),
    Swapped(Box<OwnedSwapped>),
    SessionExpired {
        client_id: Box<str>,
        state: Option<(u32, Box<[u8]>)>,
    },
    /// What has become of a message, for one of three callbacks.
    Message(Callback, Box<OwnedMessageNotice>),
    Retained(OwnedRetained),
    Event(OwnedMessageForInfo),
    Deliver(Box<OwnedDeliver>),
    /// Another configuration: for recordings, as the operator waits for the answer.
    Config(Box<str>),
}

impl Request {
    pub(super) fn session_expired(client_id: &str, state: Option<&RawState<'_>>) -> Self {
        let state = state.map(|state| (state.version, state.bytes.as_slice().into()));
        Self::SessionExpired { client_id: client_id.into(), state }
    }

    /// The memory behind it, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Connect(connect) => {
                let own = connect.client_id.len() + connect.username.len() + connect.password.len();
                let peer = connect.listener.len() + connect.details.as_ref().map_or(0, |details| details.bytes());
                own + peer + connect.properties.len() + connect.will.as_ref().map_or(0, OwnedPublish::bytes)
            }
            Self::Auth(auth) => auth.bytes(),
            Self::Publish(publish) => publish.bytes(),
            Self::Subscribe(items, properties) => {
                properties.len() + size_of_val(&**items) + items.iter().map(OwnedSubscription::bytes).sum::<usize>()
            }
            Self::Unsubscribe(filters, properties) => {
                properties.len() + size_of_val(&**filters) + filters.iter().map(|filter| filter.len()).sum::<usize>()
            }
            Self::Puback { .. } => 0,
            Self::Info(info) | Self::Event(info) => info.bytes(),
            Self::Config(config) => config.len(),
            Self::Disconnect(reason) => reason.bytes(),
            Self::Connected(connected) => connected.bytes(),
            Self::Swapped(swapped) => swapped.bytes(),
            Self::SessionExpired { client_id, state } => {
                client_id.len() + state.as_ref().map_or(0, |(_, bytes)| bytes.len())
            }
            Self::Message(_, notice) => notice.bytes(),
            Self::Retained(retained) => retained.bytes(),
            Self::Deliver(deliver) => {
                let names = deliver.client_id.len() + deliver.plugin.len() + size_of_val(&*deliver.identifiers);
                deliver.topic.len() + deliver.payload.len() + deliver.properties.len() + names
            }
        }
    }

    /// Whether it is about a connection, whose state the call needs.
    pub(super) fn has_state(&self) -> bool {
        !matches!(
            self,
            Self::SessionExpired { .. } | Self::Message(..) | Self::Retained(_) | Self::Event(_) | Self::Config(_)
        )
    }

    pub(super) fn callback(&self) -> Callback {
        match self {
            Self::Connect(_) => Callback::Connect,
            Self::Auth(_) => Callback::Auth,
            Self::Publish(_) => Callback::Publish,
            Self::Subscribe(..) => Callback::Subscribe,
            Self::Unsubscribe(..) => Callback::Unsubscribe,
            Self::Puback { .. } => Callback::Puback,
            Self::Info(_) => Callback::Info,
            Self::Disconnect(_) => Callback::Disconnect,
            Self::Connected(_) => Callback::Connected,
            Self::Swapped(_) => Callback::Swapped,
            Self::SessionExpired { .. } => Callback::SessionExpired,
            Self::Message(callback, _) => *callback,
            Self::Retained(_) => Callback::Retained,
            Self::Event(_) => Callback::Event,
            Self::Deliver(_) => Callback::Deliver,
            Self::Config(_) => Callback::Config,
        }
    }
}

impl OwnedConnect {
    /// Shows it: a view of a Will Message is part of it.
    pub(super) fn with<T>(&self, see: impl FnOnce(&RawConnect<'_>) -> T) -> T {
        let will = self.will.as_ref().map(OwnedPublish::raw);
        show(self.details.as_deref(), |transport| {
            see(&RawConnect {
                client_id: (&*self.client_id).into(),
                username: (&*self.username).into(),
                password: (&*self.password).into(),
                properties: (&*self.properties).into(),
                will: will.as_ref(),
                listener: (&*self.listener).into(),
                connection: self.connection,
                peer: self.peer,
                keep_alive: self.keep_alive,
                protocol_version: self.protocol_version,
                flags: self.flags,
                extension: transport.extension(),
            })
        })
    }
}

impl OwnedDeliver {
    pub(super) fn raw(&self) -> RawDeliver<'_> {
        RawDeliver {
            topic: (&*self.topic).into(),
            payload: (&*self.payload).into(),
            properties: (&*self.properties).into(),
            client_id: (&*self.client_id).into(),
            plugin: (&*self.plugin).into(),
            identifiers: (&*self.identifiers).into(),
            token: self.token,
            qos: self.qos,
            flags: self.flags,
            origin: self.origin,
            cause: self.cause,
            extension: NO_EXTENSION,
        }
    }
}

/// Shows a SUBSCRIBE packet.
pub(super) fn with_subscribe<T>(
    items: &[OwnedSubscription],
    properties: &[u8],
    show: impl FnOnce(&RawSubscribe<'_>) -> T,
) -> T {
    let subscriptions: Vec<RawSubscription<'_>> = items.iter().map(OwnedSubscription::raw).collect();
    let (subscriptions, properties) = (subscriptions.as_slice().into(), properties.into());
    show(&RawSubscribe { subscriptions, properties, extension: NO_EXTENSION })
}

/// Shows an UNSUBSCRIBE packet.
pub(super) fn with_unsubscribe<T>(
    filters: &[Box<str>],
    properties: &[u8],
    show: impl FnOnce(&RawUnsubscribe<'_>) -> T,
) -> T {
    let filters: Vec<RStr<'_>> = filters.iter().map(|filter| (&**filter).into()).collect();
    let (filters, properties) = (filters.as_slice().into(), properties.into());
    show(&RawUnsubscribe { filters, properties, extension: NO_EXTENSION })
}

/// A view that can be kept.
pub(super) trait Own {
    fn copy(&self) -> Request;

    /// The same for a question that another thread is to ask: a delivery is decided on at once or not at all.
    fn own(&self) -> Option<Request> {
        Some(self.copy())
    }
}

impl Own for RawDeliver<'_> {
    fn copy(&self) -> Request {
        Request::Deliver(Box::new(OwnedDeliver {
            topic: self.topic.as_str().into(),
            payload: self.payload.as_slice().into(),
            properties: self.properties.as_slice().into(),
            client_id: self.client_id.as_str().into(),
            plugin: self.plugin.as_str().into(),
            identifiers: self.identifiers.as_slice().into(),
            token: self.token,
            qos: self.qos,
            flags: self.flags,
            origin: self.origin,
            cause: self.cause,
        }))
    }

    fn own(&self) -> Option<Request> {
        None
    }
}

impl Own for RawConnect<'_> {
    fn copy(&self) -> Request {
        Request::Connect(Box::new(OwnedConnect {
            client_id: self.client_id.as_str().into(),
            username: self.username.as_str().into(),
            password: self.password.as_slice().into(),
            properties: self.properties.as_slice().into(),
            will: self.will.map(OwnedPublish::from),
            listener: self.listener.as_str().into(),
            connection: self.connection,
            peer: self.peer,
            details: Transport::of(self).to_details(),
            keep_alive: self.keep_alive,
            protocol_version: self.protocol_version,
            flags: self.flags,
        }))
    }
}

impl Own for RawAuth<'_> {
    fn copy(&self) -> Request {
        Request::Auth(self.into())
    }
}

impl Own for RawPublish<'_> {
    fn copy(&self) -> Request {
        Request::Publish(self.into())
    }
}

impl Own for RawSubscribe<'_> {
    fn copy(&self) -> Request {
        let items = self.subscriptions.iter().map(OwnedSubscription::from).collect();
        Request::Subscribe(items, self.properties.as_slice().into())
    }
}

impl Own for RawUnsubscribe<'_> {
    fn copy(&self) -> Request {
        let filters = self.filters.iter().map(|filter| filter.as_str().into()).collect();
        Request::Unsubscribe(filters, self.properties.as_slice().into())
    }
}

impl Own for RawAck {
    fn copy(&self) -> Request {
        let Self { packet_id, kind, reason_code, token, .. } = *self;
        Request::Puback { packet_id, kind, reason_code, token }
    }
}

impl Own for RawInfo<'_> {
    fn copy(&self) -> Request {
        Request::Info(self.into())
    }
}

impl Own for RawDisconnect<'_> {
    fn copy(&self) -> Request {
        Request::Disconnect(self.into())
    }
}

impl Own for RawConnected<'_> {
    fn copy(&self) -> Request {
        Request::Connected(self.into())
    }
}
