//! The plugin of the simulation: it denies some topics, and does what it is asked by `send_info`.

use plugin_api::{DeliverVerdict, Disconnect, InfoAction, Message, PublishVerdict, QoS, ReasonCode};

use super::super::handler::Scripted;
use super::super::judge::Judges;

/// Topics that nobody may publish to.
pub(super) const DENIED: &str = "deny/";

pub(super) fn script(scripted: &Scripted) {
    let mut script = scripted.script();
    script.publish = Some(Box::new(|asked| {
        let denied = asked.message.as_ref().is_some_and(|message| message.topic.starts_with(DENIED));
        let reject = || PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        Ok(if denied { reject() } else { PublishVerdict::Forward })
    }));
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
}

/// Every message may pass; some are given anew, as they are.
pub(super) fn judge(judges: &Judges) {
    judges.of(0).deliver = Some(Box::new(|seen| {
        let again = seen.message.payload.len() % 2 == 0;
        Ok(if again { DeliverVerdict::SendChanged(seen.message.clone()) } else { DeliverVerdict::Send })
    }));
}
