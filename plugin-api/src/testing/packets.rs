//! What a client does, put to the handler, and what comes of it.

use abi_stable::std_types::RStr;

use super::Inner;
use super::client::Delivery;
use super::connection::{Ending, unusable};
use super::plugin::{Failed, LATE};
use super::services::LATE_CODE;
use super::world::Granted;
use crate::abi::{RawAck, RawDeliver, RawInfo, RawPublish, RawSubscribe, RawSubscription, RawUnsubscribe};
use crate::reading::{
    self, DeliverAnswer, InfoAction, InfoOutcome, MessageView, OwnedMessage, PublishAnswer, PublishOutcome,
    SubscribeOutcome,
};
use crate::topic::{self, Share};
use crate::{
    AckKind, Callback, DeliverVerdict, Disconnect, Message, PublishVerdict, QoS, ReasonCode, Reject, SubscribeVerdict,
    UnsubscribeVerdict,
};

impl Inner {
    /// A client publishes. Ends the connection if that is what comes of it.
    pub(super) fn publish(&self, number: u64, message: &Message) -> PublishVerdict {
        let packet_id = if message.qos == QoS::AtMostOnce { 0 } else { 1 };
        let verdict = match self.ask_publish(number, message, 0, packet_id) {
            Ok(verdict) => verdict,
            Err(failed) => {
                self.end(number, Ending::failed(failed));
                return PublishVerdict::disconnect(LATE_CODE);
            }
        };
        match &verdict {
            PublishVerdict::Forward if message.retain => self.set_retained(message),
            PublishVerdict::ForwardChanged(changed) if changed.retain => self.set_retained(changed),
            PublishVerdict::Disconnect(end) => self.end_by(number, end.clone()),
            _ => {}
        }
        verdict
    }

    pub(super) fn ask_publish(
        &self,
        number: u64,
        message: &Message,
        flags: u8,
        id: u16,
    ) -> Result<PublishVerdict, Failed> {
        let plugin = self.plugin();
        if !plugin.implements(Callback::Publish) {
            return Ok(PublishVerdict::Forward);
        }
        let who = self.connection(number).client_id;
        let (verdict, answer) = plugin.publish(number, &raw_publish(message, flags, id))?;
        if verdict == LATE {
            return Ok(PublishVerdict::reject(LATE_CODE));
        }
        Ok(match reading::read_publish::<()>(&*plugin, &who, verdict, &answer) {
            PublishAnswer::Forward => PublishVerdict::Forward,
            PublishAnswer::Changed(view) => PublishVerdict::ForwardChanged(changed(&view)),
            PublishAnswer::End(PublishOutcome::Handled) => PublishVerdict::Handled,
            PublishAnswer::End(PublishOutcome::Reject { reason_code, properties }) => {
                PublishVerdict::Reject(Reject { reason_code, properties })
            }
            PublishAnswer::End(PublishOutcome::Disconnect { reason_code, properties }) => {
                PublishVerdict::Disconnect(Disconnect { reason_code, properties })
            }
            PublishAnswer::End(_) | PublishAnswer::Later(_) => return Err(unusable(Callback::Publish)),
        })
    }

    /// A client subscribes.
    pub(super) fn subscribe(&self, number: u64, wanted: &[(String, Granted)]) -> SubscribeVerdict {
        let codes = match self.ask_subscribe(number, wanted, 0) {
            Ok(Ok(codes)) => codes,
            Ok(Err(end)) => {
                self.end_by(number, end.clone());
                return SubscribeVerdict::Disconnect(end);
            }
            Err(failed) => {
                self.end(number, Ending::failed(failed));
                return SubscribeVerdict::Disconnect(Disconnect::new(LATE_CODE));
            }
        };
        let client_id = self.connection(number).client_id;
        let mut world = self.services.world();
        for ((filter, granted), code) in wanted.iter().zip(&codes) {
            if let (Some(qos), Some(session)) = (QoS::from_u8(code.0), world.sessions.get_mut(&client_id)) {
                session.subscriptions.insert(filter.clone(), Granted { qos, ..*granted });
            }
        }
        let is_as_asked = wanted.iter().zip(&codes).all(|((_, granted), code)| code.0 == granted.qos as u8);
        if is_as_asked { SubscribeVerdict::Grant } else { SubscribeVerdict::Codes(codes) }
    }

    /// What is granted, or with what the connection ends.
    fn ask_subscribe(
        &self,
        number: u64,
        wanted: &[(String, Granted)],
        flags: u8,
    ) -> Result<Result<Vec<ReasonCode>, Disconnect>, Failed> {
        let plugin = self.plugin();
        let mut codes: Vec<ReasonCode> = wanted.iter().map(|(_, granted)| ReasonCode(granted.qos as u8)).collect();
        if !plugin.implements(Callback::Subscribe) {
            return Ok(Ok(codes));
        }
        let subscriptions: Vec<RawSubscription<'_>> =
            wanted.iter().map(|(filter, granted)| raw_subscription(filter, granted, flags)).collect();
        let raw = RawSubscribe {
            subscriptions: subscriptions.as_slice().into(),
            properties: (&[][..]).into(),
            extension: std::ptr::null(),
        };
        let (verdict, answer) = plugin.subscribe(number, &raw)?;
        if verdict == LATE && flags == RawSubscription::AGAIN {
            return Err(Failed("no answer in time about subscriptions that are there".to_owned()));
        }
        if verdict == LATE {
            return Ok(Ok(vec![LATE_CODE; codes.len()]));
        }
        let who = self.connection(number).client_id;
        let end = reading::fold_codes::<()>(&*plugin, Callback::Subscribe, &who, verdict, &answer, &mut codes);
        decided(end, Callback::Subscribe, codes)
    }

    /// A connection's subscriptions are asked about again. How many were removed.
    pub(super) fn ask_again(&self, number: u64) -> u64 {
        let client_id = self.connection(number).client_id;
        let wanted: Vec<(String, Granted)> = {
            let world = self.services.world();
            let session = world.sessions.get(&client_id);
            session.into_iter().flat_map(|session| session.subscriptions.clone()).collect()
        };
        if wanted.is_empty() {
            return 0;
        }
        let codes = match self.ask_subscribe(number, &wanted, RawSubscription::AGAIN) {
            Ok(Ok(codes)) => codes,
            Ok(Err(end)) => {
                self.end_by(number, end);
                return 0;
            }
            Err(failed) => {
                self.end(number, Ending::failed(failed));
                return 0;
            }
        };
        let mut world = self.services.world();
        let Some(session) = world.sessions.get_mut(&client_id) else { return 0 };
        let mut removed = 0;
        for ((filter, _), code) in wanted.iter().zip(&codes) {
            match (QoS::from_u8(code.0), session.subscriptions.get_mut(filter)) {
                (Some(qos), Some(granted)) => granted.qos = qos,
                _ => removed += u64::from(session.subscriptions.remove(filter).is_some()),
            }
        }
        removed
    }

    /// A client unsubscribes.
    pub(super) fn unsubscribe(&self, number: u64, filters: &[&str]) -> UnsubscribeVerdict {
        let (plugin, client_id) = (self.plugin(), self.connection(number).client_id);
        let subscriptions = {
            let world = self.services.world();
            world.sessions.get(&client_id).map(|session| session.subscriptions.clone()).unwrap_or_default()
        };
        let code = |filter: &&str| match subscriptions.contains_key(*filter) {
            true => ReasonCode::SUCCESS,
            false => ReasonCode::NO_SUBSCRIPTION_EXISTED,
        };
        let mut codes: Vec<ReasonCode> = filters.iter().map(code).collect();
        if plugin.implements(Callback::Unsubscribe) {
            let views: Vec<RStr<'_>> = filters.iter().map(|filter| RStr::from_str(filter)).collect();
            let (filters, properties) = (views.as_slice().into(), (&[][..]).into());
            let asked =
                plugin.unsubscribe(number, &RawUnsubscribe { filters, properties, extension: std::ptr::null() });
            let decided = asked.and_then(|(verdict, answer)| {
                if verdict == LATE {
                    return Ok(Ok(vec![LATE_CODE; codes.len()]));
                }
                let callback = Callback::Unsubscribe;
                let end = reading::fold_codes::<()>(&*plugin, callback, &client_id, verdict, &answer, &mut codes);
                decided(end, callback, codes)
            });
            codes = match decided {
                Ok(Ok(codes)) => codes,
                Ok(Err(end)) => {
                    self.end_by(number, end.clone());
                    return UnsubscribeVerdict::Disconnect(end);
                }
                Err(failed) => {
                    self.end(number, Ending::failed(failed));
                    return UnsubscribeVerdict::Disconnect(Disconnect::new(LATE_CODE));
                }
            };
        }
        if let Some(session) = self.services.world().sessions.get_mut(&client_id) {
            let ended = filters.iter().zip(&codes).filter(|(_, code)| !code.is_error());
            for (filter, _) in ended {
                session.subscriptions.remove(*filter);
            }
        }
        if codes.iter().any(|code| code.is_error()) {
            UnsubscribeVerdict::Codes(codes)
        } else {
            UnsubscribeVerdict::Allow
        }
    }

    /// A message is to be delivered to a client.
    pub(super) fn deliver(&self, number: u64, delivery: &Delivery) -> DeliverVerdict {
        let (plugin, client_id) = (self.plugin(), self.connection(number).client_id);
        let message = &delivery.message;
        let verdict = if plugin.implements(Callback::Deliver) {
            let (origin, plugin_name) = delivery.origin();
            let (retain, shared) = (u8::from(message.retain), u8::from(delivery.shared));
            let flags = (retain * RawDeliver::RETAIN) | (shared * RawDeliver::SHARED);
            let raw = RawDeliver {
                topic: message.topic.as_str().into(),
                payload: message.payload.as_slice().into(),
                properties: message.properties.as_bytes().into(),
                client_id: client_id.as_str().into(),
                plugin: plugin_name.into(),
                identifiers: delivery.identifiers.as_slice().into(),
                token: message.token,
                qos: message.qos as u8,
                flags,
                origin,
                cause: delivery.cause(),
                extension: std::ptr::null(),
            };
            match plugin.deliver(number, &raw) {
                Ok((verdict, answer)) => match reading::read_deliver(&*plugin, &client_id, verdict, &answer) {
                    DeliverAnswer::Send => Ok(DeliverVerdict::Send),
                    // A delivery is raised to no QoS that the client has not subscribed with.
                    DeliverAnswer::Changed(view) => {
                        Ok(DeliverVerdict::SendChanged(Message { qos: view.qos.min(message.qos), ..changed(&view) }))
                    }
                    DeliverAnswer::Drop | DeliverAnswer::Later => Ok(DeliverVerdict::Drop),
                    DeliverAnswer::Failed => Err(unusable(Callback::Deliver)),
                },
                Err(failed) => Err(failed),
            }
        } else {
            Ok(DeliverVerdict::Send)
        };
        match &verdict {
            Ok(DeliverVerdict::Send) => self.receive(number, message.clone()),
            Ok(DeliverVerdict::SendChanged(changed)) => self.receive(number, changed.clone()),
            _ => {}
        }
        verdict.unwrap_or_else(|failed| {
            self.end(number, Ending::failed(failed));
            DeliverVerdict::Drop
        })
    }

    fn receive(&self, number: u64, message: Message) {
        if let Some(client) = self.services.world().clients.get_mut(&number) {
            client.received.push(message);
        }
    }

    /// A client acknowledges a message.
    pub(super) fn acknowledge(&self, number: u64, token: u64, kind: AckKind, reason_code: ReasonCode) {
        let plugin = self.plugin();
        if plugin.implements(Callback::Puback) {
            let (kind, reason_code) = (kind as u8, reason_code.0);
            let raw = RawAck { packet_id: 1, kind, reason_code, token, extension: std::ptr::null() };
            if let Err(failed) = plugin.puback(number, &raw) {
                self.end(number, Ending::failed(failed));
            }
        }
    }

    /// Hands a connection a message of the handler to itself, and does what it says.
    pub(super) fn hand_info(&self, number: u64, info: &RawInfo<'_>) {
        let (plugin, client_id) = (self.plugin(), self.connection(number).client_id);
        if !plugin.implements(Callback::Info) {
            return;
        }
        let mut actions = Vec::new();
        let folded = plugin.info(number, info).and_then(|(verdict, answer)| {
            if verdict == LATE {
                return Ok(());
            }
            match reading::fold_info::<()>(&*plugin, &client_id, verdict, &answer, &mut actions) {
                None | Some(InfoOutcome::Actions(_)) => Ok(()),
                Some(InfoOutcome::Failed | InfoOutcome::Deferred(())) => Err(unusable(Callback::Info)),
            }
        });
        if let Err(failed) = folded {
            return self.end(number, Ending::failed(failed));
        }
        for action in actions {
            match action {
                InfoAction::Publish(message) => self.receive(number, owned(message)),
                InfoAction::Disconnect { reason_code, properties } => {
                    return self.end_by(number, Disconnect { reason_code, properties });
                }
                InfoAction::Stop { reason } => return self.end(number, Ending::stopped(reason)),
            }
        }
    }
}

/// What is decided about the Topic Filters of a packet, or with what the connection ends.
fn decided(
    end: Option<SubscribeOutcome<()>>,
    callback: Callback,
    codes: Vec<ReasonCode>,
) -> Result<Result<Vec<ReasonCode>, Disconnect>, Failed> {
    match end {
        None | Some(SubscribeOutcome::Done) => Ok(Ok(codes)),
        Some(SubscribeOutcome::Disconnect { reason_code, properties }) => {
            Ok(Err(Disconnect { reason_code, properties }))
        }
        Some(SubscribeOutcome::Failed | SubscribeOutcome::Deferred(())) => Err(unusable(callback)),
    }
}

/// A message that the handler has put in the place of another one.
fn changed(view: &MessageView<'_>) -> Message {
    Message {
        topic: view.topic.to_owned(),
        payload: view.payload.to_vec(),
        qos: view.qos,
        retain: view.retain,
        properties: view.properties.into(),
        token: view.token,
    }
}

fn owned(message: OwnedMessage) -> Message {
    let OwnedMessage { topic, payload, properties, qos, retain, token } = message;
    let properties = crate::Properties::from_trusted(&properties).into();
    Message { topic, payload, qos, retain, properties, token }
}

pub(super) fn raw_publish(message: &Message, flags: u8, packet_id: u16) -> RawPublish<'_> {
    RawPublish {
        topic: message.topic.as_str().into(),
        payload: message.payload.as_slice().into(),
        properties: message.properties.as_bytes().into(),
        packet_id,
        qos: message.qos as u8,
        flags: flags | if message.retain { RawPublish::RETAIN } else { 0 },
        extension: std::ptr::null(),
    }
}

fn raw_subscription<'a>(filter: &'a str, granted: &Granted, flags: u8) -> RawSubscription<'a> {
    let (filter, share_name, shared) = match topic::split_share(filter) {
        Share::Group { share_name, filter } => (filter, share_name, RawSubscription::SHARED),
        _ => (filter, "", 0),
    };
    RawSubscription {
        filter: filter.into(),
        share_name: share_name.into(),
        qos: granted.qos as u8,
        retain_handling: granted.retain_handling,
        flags: flags | granted.flags | shared,
        reason_code: granted.qos as u8,
        extension: std::ptr::null(),
    }
}
