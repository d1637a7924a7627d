//! The plugin of the simulation: it denies some topics, does what it is asked by `send_info`, and answers later now and
//! then.

use std::sync::{Arc, Mutex};

use plugin_api::{
    Deferrable, DeliverVerdict, Disconnect, Error, Host, InfoAction, Later, Message, PublishVerdict, QoS, ReasonCode,
    SubscribeVerdict, UnsubscribeVerdict,
};

use super::super::handler::Scripted;
use super::super::judge::Judges;
use super::super::net::lock;
use super::rng::Rng;

/// Topics that nobody may publish to.
pub(super) const DENIED: &str = "deny/";

/// Answers that the plugin owes.
#[derive(Clone, Default)]
pub(super) struct Owed(Arc<Mutex<Vec<Answer>>>);

type Answer = Box<dyn FnOnce() + Send>;

impl Owed {
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Gives one of them.
    pub(super) fn give(&self, place: usize) {
        let answer = lock(&self.0).swap_remove(place);
        answer();
    }

    /// Answers at once, or owes the answer.
    fn answer<A: Deferrable>(&self, host: &Host, later: bool, answer: A, wrap: fn(Later<A>) -> A) -> Result<A, Error> {
        if !later {
            return Ok(answer);
        }
        let (ticket, proof) = host.ticket()?;
        // Nobody waits for it any more where the connection has ended.
        lock(&self.0).push(Box::new(move || ticket.answer(answer).unwrap_or_default()));
        Ok(wrap(proof))
    }
}

/// `later_percent`: so many of a hundred questions are answered later.
pub(super) fn script(scripted: &Scripted, seed: u64, later_percent: usize) -> Owed {
    let owed = Owed::default();
    let mut script = scripted.script();
    let draw = |number| {
        let mut rng = Rng::new(seed ^ number);
        move || later_percent != 0 && rng.percent(later_percent)
    };
    let (owes, mut later) = (owed.clone(), draw(1 << 60));
    script.publish = Some(Box::new(move |asked| {
        let denied = asked.message.as_ref().is_some_and(|message| message.topic.starts_with(DENIED));
        let reject = || PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        let answer = if denied { reject() } else { PublishVerdict::Forward };
        owes.answer(&asked.host, later(), answer, PublishVerdict::Later)
    }));
    if later_percent != 0 {
        let (owes, mut later) = (owed.clone(), draw(2 << 60));
        script.subscribe = Some(Box::new(move |asked| {
            owes.answer(&asked.host, later(), SubscribeVerdict::Grant, SubscribeVerdict::Later)
        }));
        let (owes, mut later) = (owed.clone(), draw(3 << 60));
        script.unsubscribe = Some(Box::new(move |asked| {
            owes.answer(&asked.host, later(), UnsubscribeVerdict::Allow, UnsubscribeVerdict::Later)
        }));
    }
    // The line is `info <client> <kind> <sender>`.
    script.info = Some(Box::new(|asked| {
        let kind = asked.line.split(' ').nth(2).unwrap_or_default();
        let action = match kind.split_once(':') {
            Some((qos, topic)) => {
                let qos = QoS::from_u8(qos.parse()?).ok_or("no QoS")?;
                InfoAction::Publish(Message::new(topic, asked.data.clone().unwrap_or_default()).qos(qos))
            }
            None if kind == "kick" => InfoAction::Disconnect(Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION)),
            None => InfoAction::Stop("enough".into()),
        };
        Ok(vec![action])
    }));
    owed
}

/// Every message may pass; some are given anew, as they are.
pub(super) fn judge(judges: &Judges) {
    judges.of(0).deliver = Some(Box::new(|seen| {
        let again = seen.message.payload.len() % 2 == 0;
        Ok(if again { DeliverVerdict::SendChanged(seen.message.clone()) } else { DeliverVerdict::Send })
    }));
}
