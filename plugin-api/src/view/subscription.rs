//! SUBSCRIBE and UNSUBSCRIBE.

use std::fmt;

use crate::abi::{RawSubscribe, RawSubscription, RawUnsubscribe};
use crate::{Properties, QoS, ReasonCode, topic};

/// When a subscription gets the retained messages that match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    Send = 0,
    /// At a SUBSCRIBE that is not a repetition.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// One entry of a SUBSCRIBE packet.
#[derive(Clone, Copy)]
pub struct Subscription<'a> {
    raw: &'a RawSubscription<'a>,
}

impl<'a> Subscription<'a> {
    const fn flag(&self, flag: u8) -> bool {
        self.raw.flags & flag != 0
    }

    /// Topic Filter, without `$share/{ShareName}/`.
    #[must_use]
    pub fn filter(&self) -> &'a str {
        self.raw.filter.as_str()
    }

    /// The levels of the Topic Filter.
    pub fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        topic::levels(self.filter())
    }

    /// ShareName of a Shared Subscription.
    #[must_use]
    pub fn share_name(&self) -> Option<&'a str> {
        self.flag(RawSubscription::SHARED).then(|| self.raw.share_name.as_str())
    }

    /// Requested QoS.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.raw.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// No Local: the client does not want its own messages back.
    #[must_use]
    pub const fn no_local(&self) -> bool {
        self.flag(RawSubscription::NO_LOCAL)
    }

    /// Retain As Published: messages keep the RETAIN that they were published with.
    #[must_use]
    pub const fn retain_as_published(&self) -> bool {
        self.flag(RawSubscription::RETAIN_AS_PUBLISHED)
    }

    /// Retain Handling.
    #[must_use]
    pub const fn retain_handling(&self) -> RetainHandling {
        match self.raw.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        }
    }

    /// Whether the subscription is there already, and is asked about again: its client is back to its session, or
    /// [`Host::reauthorise`](crate::Host::reauthorise) has asked for it. An error removes it. Who cannot tell answers
    /// [`SubscribeVerdict::Disconnect`](crate::SubscribeVerdict::Disconnect): the client is asked about when it is back.
    #[must_use]
    pub const fn again(&self) -> bool {
        self.flag(RawSubscription::AGAIN)
    }

    /// The Reason Code as it stands: the QoS that the server and earlier plugins grant, or the error they refuse with.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        ReasonCode(self.raw.reason_code)
    }
}

impl fmt::Debug for Subscription<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("filter", &self.filter())
            .field("share_name", &self.share_name())
            .field("qos", &self.qos())
            .finish_non_exhaustive()
    }
}

/// A SUBSCRIBE packet.
#[derive(Clone, Copy)]
pub struct Subscribe<'a> {
    raw: &'a RawSubscribe<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) const fn new(raw: &'a RawSubscribe<'a>) -> Self {
        Self { raw }
    }

    /// Its entries, in order; at least one.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = Subscription<'a>> + use<'a> {
        self.raw.subscriptions.as_slice().iter().map(|raw| Subscription { raw })
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

impl fmt::Debug for Subscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.subscriptions()).finish()
    }
}

/// An UNSUBSCRIBE packet.
#[derive(Clone, Copy)]
pub struct Unsubscribe<'a> {
    raw: &'a RawUnsubscribe<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) const fn new(raw: &'a RawUnsubscribe<'a>) -> Self {
        Self { raw }
    }

    /// Its Topic Filters, in order, as they were sent ([`topic::split_share`] takes a shared one apart); at least one.
    pub fn filters(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.raw.filters.as_slice().iter().map(|filter| filter.as_str())
    }

    /// Properties of the packet; empty for 3.x.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_trusted(self.raw.properties.as_slice())
    }
}

impl fmt::Debug for Unsubscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.filters()).finish()
    }
}
