//! Subscriptions that plugins make and end for clients, connected or not.

use plugin_api::abi::{AnswerKey, Status};
use plugin_api::{QoS, ReasonCode};

use super::Core;
use super::mail::SubscribeMail;
use super::subscribe::Asked;
use crate::codec::SubscribeOptions;
use crate::plugin::Pieces;

impl Core {
    /// Makes or ends a subscription, and says what came of it.
    pub(super) fn subscribe_for(&mut self, request: &SubscribeMail) {
        let Some(session_slot) = self.session_of_target(&request.target) else {
            return request.poll.not_here();
        };
        let done = match request.subscription {
            Some((options, identifier)) => self.make_subscription(session_slot, &request.filter, options, identifier),
            None => self.end_subscription(session_slot, &request.filter),
        };
        request.poll.answer(done.as_ref().map_err(|why| *why));
    }

    /// As SUBSCRIBE does, but nobody is asked: it comes from the operator's own code.
    fn make_subscription(
        &mut self,
        session_slot: u32,
        filter: &str,
        options: SubscribeOptions,
        identifier: u32,
    ) -> Result<Pieces, Status> {
        if identifier != 0 && !self.limits_of(session_slot).subscription_identifiers_available {
            return Err(Status::INVALID);
        }
        let asked = Asked::new(filter, options);
        let mut code = self.check_filter(session_slot, &asked);
        if !code.is_error() {
            code = self.subscribe(session_slot, &asked, code, identifier);
        }
        match (code, QoS::from_u8(code.0)) {
            (_, Some(granted)) => {
                let mut pieces = Pieces::default();
                pieces.put(AnswerKey::QOS, granted as u64, &[]);
                Ok(pieces)
            }
            (ReasonCode::QUOTA_EXCEEDED, None) => Err(Status::FULL),
            (_, None) => Err(Status::INVALID),
        }
    }

    /// As UNSUBSCRIBE does.
    fn end_subscription(&mut self, session_slot: u32, filter: &str) -> Result<Pieces, Status> {
        let mut left = Vec::new();
        self.pay_for(filter);
        if !self.unsubscribe(session_slot, filter, &mut left) {
            return Err(Status::NOT_FOUND);
        }
        if !left.is_empty() {
            self.hand_on_queued(session_slot, &left);
        }
        Ok(Pieces::default())
    }
}
