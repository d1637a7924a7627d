//! Subscriptions that a handler makes, ends and has asked about again.

use crate::abi::{AnswerKey, RawSubscribeRequest, RawSubscription};
use crate::ask::{Asking, Pieces};
use crate::{Host, InfoTarget, QoS, RetainHandling};

/// A subscription that a handler makes for a client.
///
/// ```
/// # use plugin_api::{NewSubscription, QoS, RetainHandling};
/// let commands = NewSubscription::new("commands/press-7", QoS::AtLeastOnce)
///     .retain_handling(RetainHandling::DoNotSend);
/// let shared = NewSubscription::new("$share/workers/jobs/#", QoS::AtLeastOnce);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct NewSubscription<'a> {
    filter: &'a str,
    qos: QoS,
    flags: u8,
    retain_handling: RetainHandling,
    identifier: u32,
}

impl<'a> NewSubscription<'a> {
    /// A subscription to a Topic Filter as a client would write it, `$share/…` included.
    #[must_use]
    pub const fn new(filter: &'a str, qos: QoS) -> Self {
        Self { filter, qos, flags: 0, retain_handling: RetainHandling::Send, identifier: 0 }
    }

    /// No Local: the client does not get its own messages. Not for a Shared Subscription.
    #[must_use]
    pub const fn no_local(self) -> Self {
        Self { flags: self.flags | RawSubscription::NO_LOCAL, ..self }
    }

    /// Retain As Published: messages keep the RETAIN that they were published with.
    #[must_use]
    pub const fn retain_as_published(self) -> Self {
        Self { flags: self.flags | RawSubscription::RETAIN_AS_PUBLISHED, ..self }
    }

    /// Which retained messages it gets: as if the client had subscribed.
    #[must_use]
    pub const fn retain_handling(self, retain_handling: RetainHandling) -> Self {
        Self { retain_handling, ..self }
    }

    /// Subscription Identifier, from 1 to 268,435,455; 0 for none. 5.0 clients get it with each message.
    #[must_use]
    pub const fn identifier(self, identifier: u32) -> Self {
        Self { identifier, ..self }
    }

    fn raw<'r>(&self, target: &'r InfoTarget<'_>) -> RawSubscribeRequest<'r>
    where
        'a: 'r,
    {
        RawSubscribeRequest {
            target: target.raw(),
            filter: self.filter.as_bytes().into(),
            identifier: self.identifier,
            qos: self.qos as u8,
            retain_handling: self.retain_handling as u8,
            flags: self.flags,
            extension: std::ptr::null(),
        }
    }
}

/// What became of it that subscriptions were asked about again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reauthorised {
    /// Sessions that it was about.
    pub sessions: u64,
    /// Those of them that are decided later, and not counted in the other numbers: when their client is back, or when a handler
    /// has answered that does so later.
    pub later: u64,
    /// Subscriptions that were removed.
    pub removed: u64,
    /// Messages that were taken out of queues, as no subscription that is left matches them.
    pub dropped: u64,
}

impl Host {
    /// Subscribes for a client, by [`InfoTarget::Client`], connected or not, or by [`InfoTarget::Connection`]. It is as if
    /// the client had subscribed, but no handler is asked, and the client is told nothing; retained messages follow as
    /// [`NewSubscription::retain_handling`] says. The answer is the QoS that was granted.
    ///
    /// Errors are [`HostError::NotFound`](crate::HostError::NotFound): there is no such client or connection;
    /// [`Invalid`](crate::HostError::Invalid): the Topic Filter is not valid or too long, or something is asked for that the
    /// server does not offer; [`Full`](crate::HostError::Full): the client has as many subscriptions as it may have.
    ///
    /// ```no_run
    /// # use plugin_api::{Host, HostError, InfoTarget, NewSubscription, QoS};
    /// // In `handle_connected`, for example:
    /// fn let_it_hear_commands(host: &Host, client_id: &str) -> Result<(), HostError> {
    ///     let filter = format!("commands/{client_id}");
    ///     host.subscribe(InfoTarget::Client(client_id), NewSubscription::new(&filter, QoS::AtLeastOnce)).start()
    /// }
    /// ```
    pub fn subscribe<'a>(&'a self, target: InfoTarget<'a>, subscription: NewSubscription<'a>) -> Asking<'a, QoS> {
        let request = move |reply| self.raw.subscribe(&subscription.raw(&target), reply);
        Asking::new(request, |answer| QoS::from_u8(answer.small(AnswerKey::QOS)).unwrap_or(QoS::AtMostOnce))
    }

    /// Ends a subscription of a client, by its Topic Filter as the client wrote it. No handler is asked, and the client is told
    /// nothing. What has been queued for it stays.
    ///
    /// Errors as in [`subscribe`](Host::subscribe); [`NotFound`](crate::HostError::NotFound) also if there is no such
    /// subscription.
    pub fn unsubscribe<'a>(&'a self, target: InfoTarget<'a>, filter: &'a str) -> Asking<'a, ()> {
        let request =
            move |reply| self.raw.unsubscribe(&NewSubscription::new(filter, QoS::AtMostOnce).raw(&target), reply);
        Asking::new(request, |_| ())
    }

    /// Has the subscriptions of a connection, a client or everybody put to `handle_subscribe` again (of all plugins in the
    /// chain), flagged with [`Subscription::again`](crate::Subscription::again): after permissions have changed.
    ///
    /// Those that are refused are removed; if a lower QoS is granted, it counts from now on. What waits in the client's queue
    /// and no subscription that is left matches is dropped; what is in flight is completed, and what was sent to this very
    /// client stays. The client is told nothing. Sessions without a connection are asked about when their client is back,
    /// before anything is sent to it. Nothing is sent by subscriptions either while a handler takes its time to answer; if it
    /// does not answer, they are removed.
    ///
    /// Errors: [`NotFound`](crate::HostError::NotFound): there is no such client or connection.
    ///
    /// ```no_run
    /// # use plugin_api::{Host, HostError, InfoTarget};
    /// // `press-7` may read less from now on.
    /// fn revoke(host: &Host) -> Result<(), HostError> {
    ///     let log = host.clone();
    ///     host.reauthorise(InfoTarget::Client("press-7")).then(move |done| match done {
    ///         Ok(done) => log.info(format_args!("{} subscriptions removed", done.removed)),
    ///         Err(error) => log.warn(error),
    ///     })
    /// }
    /// ```
    pub fn reauthorise<'a>(&'a self, target: InfoTarget<'a>) -> Asking<'a, Reauthorised> {
        Asking::new(move |reply| self.raw.reauthorise(&target.raw(), reply), reauthorised)
    }
}

fn reauthorised(answer: Pieces<'_>) -> Reauthorised {
    Reauthorised {
        sessions: answer.number(AnswerKey::COUNT),
        later: answer.number(AnswerKey::IN_FLIGHT),
        removed: answer.number(AnswerKey::SUBSCRIPTIONS),
        dropped: answer.number(AnswerKey::QUEUED),
    }
}
