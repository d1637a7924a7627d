#![doc = include_str!("../README.md")]

mod rules;
mod template;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use plugin_api::{
    Connected, ConnectionId, ConnectionInfo, Deferrable, Error, Handler, Host, HostError, InfoTarget, Message,
    NewSubscription, Publish, PublishVerdict, QoS, ReasonCode, Subscribe, SubscribeVerdict, Subscription, Swapped,
    Ticket, Unsubscribe, UnsubscribeVerdict, handler, topic,
};

pub use rules::{Config, Renamed, Rules};

/// The handler.
pub struct Rewrite {
    host: Host,
    rules: RwLock<Arc<Rules>>,
}

/// What is remembered of a connection.
pub struct Connection {
    id: ConnectionId,
    client_id: String,
}

/// A packet whose subscriptions are being made, or ended, under their new names.
struct Pending<A: Deferrable> {
    ticket: Option<Ticket<A>>,
    codes: Vec<ReasonCode>,
    left: usize,
    answer: fn(Vec<ReasonCode>) -> A,
}

impl Rewrite {
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the subscriptions, and answers when all have been made.
    fn subscribe(
        &self,
        connection: ConnectionId,
        subscribe: &Subscribe<'_>,
        codes: Vec<ReasonCode>,
        renamed: Vec<(usize, String)>,
    ) -> Result<SubscribeVerdict, Error> {
        let (ticket, later) = self.host.ticket()?;
        let identifier = subscribe.properties().subscription_identifiers().next().unwrap_or_default();
        let pending = Pending::new(ticket, codes, renamed.len(), SubscribeVerdict::Codes);
        for (index, filter) in renamed {
            let Some(subscription) = subscribe.subscriptions().nth(index) else { continue };
            let request = on_behalf(&subscription, &filter, identifier);
            let (log, done) = (self.host.clone(), Arc::clone(&pending));
            let target = InfoTarget::Connection(connection);
            self.host.subscribe(target, request).then(move |granted| {
                let code = granted.map(|qos| ReasonCode(qos as u8)).unwrap_or_else(|error| {
                    log.warn(format_args!("a subscription was not made under its new name: {error}"));
                    ReasonCode::UNSPECIFIED_ERROR
                });
                Pending::done(&done, index, code);
            })?;
        }
        Ok(SubscribeVerdict::Later(later))
    }

    /// Ends the subscriptions, and answers when all have ended.
    fn unsubscribe(
        &self,
        connection: ConnectionId,
        filters: usize,
        renamed: Vec<(usize, String)>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let (ticket, later) = self.host.ticket()?;
        let codes = vec![ReasonCode::SUCCESS; filters];
        let pending = Pending::new(ticket, codes, renamed.len(), UnsubscribeVerdict::Codes);
        for (index, filter) in renamed {
            let done = Arc::clone(&pending);
            let target = InfoTarget::Connection(connection);
            self.host.unsubscribe(target, &filter).then(move |ended| {
                let code = match ended {
                    // It may have been made before there was a rule.
                    Ok(()) | Err(HostError::NotFound) => ReasonCode::SUCCESS,
                    Err(_) => ReasonCode::UNSPECIFIED_ERROR,
                };
                Pending::done(&done, index, code);
            })?;
        }
        Ok(UnsubscribeVerdict::Later(later))
    }
}

impl<A: Deferrable> Pending<A> {
    fn new(
        ticket: Ticket<A>,
        codes: Vec<ReasonCode>,
        left: usize,
        answer: fn(Vec<ReasonCode>) -> A,
    ) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { ticket: Some(ticket), codes, left, answer }))
    }

    fn done(pending: &Mutex<Self>, index: usize, code: ReasonCode) {
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.codes[index] = code;
        pending.left -= 1;
        if pending.left == 0
            && let Some(ticket) = pending.ticket.take()
        {
            let codes = std::mem::take(&mut pending.codes);
            // If nobody waits any more, there is nothing to answer.
            let _ = ticket.answer((pending.answer)(codes));
        }
    }
}

/// The same subscription to another filter.
fn on_behalf<'a>(subscription: &Subscription<'_>, filter: &'a str, identifier: u32) -> NewSubscription<'a> {
    let granted = QoS::from_u8(subscription.reason_code().0).unwrap_or(QoS::AtMostOnce);
    let mut request =
        NewSubscription::new(filter, granted).retain_handling(subscription.retain_handling()).identifier(identifier);
    if subscription.no_local() {
        request = request.no_local();
    }
    if subscription.retain_as_published() {
        request = request.retain_as_published();
    }
    request
}

/// A Topic Filter as a client writes it.
fn with_share(share_name: Option<&str>, filter: String) -> String {
    match share_name {
        Some(share_name) => format!("$share/{share_name}/{filter}"),
        None => filter,
    }
}

#[handler]
impl Handler for Rewrite {
    type Connection = Connection;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        Ok(Self { host, rules: RwLock::new(Arc::new(Rules::new(config)?)) })
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        let rules = Arc::new(Rules::new(config)?);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> Connection {
        Connection { id: info.connection(), client_id: String::new() }
    }

    /// Not `handle_connect`: who implements that is taken for somebody who decides who may come.
    fn handle_connected(&self, connection: &mut Connection, connected: &Connected<'_>) {
        connected.client_id().clone_into(&mut connection.client_id);
    }

    fn handle_publish(&self, connection: &mut Connection, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        // A later plugin has given it its name.
        if publish.again() {
            return Ok(PublishVerdict::Forward);
        }
        Ok(match self.rules().publish(publish.topic(), &connection.client_id) {
            Renamed::Not => PublishVerdict::Forward,
            Renamed::To(name) if name == publish.topic() => PublishVerdict::Forward,
            Renamed::To(name) => PublishVerdict::ForwardChanged(Message::from(publish).topic(name)),
            Renamed::Invalid => PublishVerdict::reject(ReasonCode::TOPIC_NAME_INVALID),
        })
    }

    fn handle_subscribe(
        &self,
        connection: &mut Connection,
        subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        let rules = self.rules();
        let mut codes = Vec::new();
        let mut renamed = Vec::new();
        for (index, subscription) in subscribe.subscriptions().enumerate() {
            let mut code = subscription.reason_code();
            // What was refused stays refused, and what is asked about again is there under its new name.
            if !code.is_error() && !subscription.again() {
                match rules.subscribe(subscription.filter(), &connection.client_id) {
                    Renamed::To(filter) if filter != subscription.filter() => {
                        renamed.push((index, with_share(subscription.share_name(), filter)));
                    }
                    Renamed::Invalid => code = ReasonCode::TOPIC_FILTER_INVALID,
                    Renamed::Not | Renamed::To(_) => {}
                }
            }
            codes.push(code);
        }
        if renamed.is_empty() {
            return Ok(SubscribeVerdict::Codes(codes));
        }
        self.subscribe(connection.id, subscribe, codes, renamed)
    }

    fn handle_unsubscribe(
        &self,
        connection: &mut Connection,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let rules = self.rules();
        let mut renamed = Vec::new();
        for (index, filter) in unsubscribe.filters().enumerate() {
            let (share_name, filter) = match topic::split_share(filter) {
                topic::Share::Group { share_name, filter } => (Some(share_name), filter),
                topic::Share::None | topic::Share::Malformed => (None, filter),
            };
            match rules.subscribe(filter, &connection.client_id) {
                Renamed::To(name) if name != filter => renamed.push((index, with_share(share_name, name))),
                Renamed::To(_) | Renamed::Not | Renamed::Invalid => {}
            }
        }
        if renamed.is_empty() {
            return Ok(UnsubscribeVerdict::Allow);
        }
        self.unsubscribe(connection.id, unsubscribe.filters().len(), renamed)
    }

    fn handle_swapped(&self, connection: &mut Connection, swapped: &Swapped<'_>) {
        swapped.client_id().clone_into(&mut connection.client_id);
    }
}

plugin_api::export!(Rewrite);
