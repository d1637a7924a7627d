#![doc = include_str!("../README.md")]

mod cache;
mod config;
mod question;
mod server;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use plugin_api::{
    Connect, ConnectVerdict, Connected, ConnectionInfo, Disconnect, Error, Handler, Host, Publish, PublishVerdict,
    ReasonCode, Reject, State, StateView, Subscribe, SubscribeVerdict, SwapRule, Swapped, handler,
};

pub use config::Config;
use config::{Rule, Settings};
use question::{Act, Answer, Client, Question};
use server::{Failure, Server};

/// The version of what is exported; there has been no other.
const SCHEMA: u32 = 1;

/// The handler.
pub struct HttpAuth {
    host: Host,
    server: RwLock<Arc<Server>>,
}

/// What is remembered of a connection.
#[derive(Default)]
pub struct Connection {
    /// Questions about it that wait have it in common.
    client: Arc<Client>,
    /// It may do everything. An answer that comes later says so.
    superuser: Arc<AtomicBool>,
}

impl HttpAuth {
    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connection {
    fn is_superuser(&self) -> bool {
        self.superuser.load(Ordering::Relaxed)
    }
}

fn connect_verdict(answer: Result<Answer, Failure>, superuser: &AtomicBool) -> ConnectVerdict {
    let (code, reason) = match answer {
        Ok(answer) if answer.is_allowed => {
            superuser.store(answer.superuser, Ordering::Relaxed);
            return ConnectVerdict::accept();
        }
        Ok(answer) if answer.is_unknown => (ReasonCode::BAD_USER_NAME_OR_PASSWORD, answer.reason),
        Ok(answer) => (ReasonCode::NOT_AUTHORIZED, answer.reason),
        Err(Failure::Busy) => (ReasonCode::SERVER_BUSY, None),
        Err(Failure::Unavailable) => (ReasonCode::SERVER_UNAVAILABLE, None),
    };
    ConnectVerdict::Reject(with_reason(code, reason))
}

fn publish_verdict(answer: Result<Answer, Failure>) -> PublishVerdict {
    match answer {
        Ok(answer) if answer.is_allowed => PublishVerdict::Forward,
        Ok(answer) => PublishVerdict::Reject(with_reason(ReasonCode::NOT_AUTHORIZED, answer.reason)),
        Err(failure) => PublishVerdict::reject(code_of(failure)),
    }
}

/// What PUBACK and SUBACK can say about it.
fn code_of(failure: Failure) -> ReasonCode {
    match failure {
        Failure::Busy => ReasonCode::QUOTA_EXCEEDED,
        Failure::Unavailable => ReasonCode::UNSPECIFIED_ERROR,
    }
}

fn with_reason(code: ReasonCode, reason: Option<String>) -> Reject {
    let reject = Reject::new(code);
    match reason {
        Some(reason) => reject.reason_string(&reason),
        None => reject,
    }
}

#[handler]
impl Handler for HttpAuth {
    type Connection = Connection;

    /// A connection of a version that did not hand over who it is could do nothing any more: it has to sign in again.
    const ON_SWAP: SwapRule = SwapRule::Disconnect;

    fn init(host: Host, config: Config) -> Result<Self, Error> {
        let server = RwLock::new(Server::start(&host, Settings::new(config)?)?);
        Ok(Self { host, server })
    }

    fn handle_config(&self, config: Config) -> Result<(), Error> {
        let server = Server::start(&self.host, Settings::new(config)?)?;
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> Connection {
        Connection::default()
    }

    fn handle_connect(&self, connection: &mut Connection, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let server = self.server();
        let username = connect.username().map(str::to_owned);
        connection.client = Arc::new(Client { client_id: connect.client_id().to_owned(), username });
        let question = Question::connect(connect);
        let superuser = Arc::clone(&connection.superuser);
        let key = server.keys(&question).key(b"");
        if let Some(answer) = server.known(&key) {
            return Ok(connect_verdict(Ok(answer), &superuser));
        }
        let (ticket, later) = self.host.ticket::<ConnectVerdict>()?;
        server.ask(vec![(key, Question::Connect(question))], move |answers| {
            // If nobody waits any more, there is nothing to answer.
            let _ = ticket.answer(connect_verdict(only(answers), &superuser));
        });
        Ok(ConnectVerdict::Later(later))
    }

    /// The Client Identifier may be another one than the client has sent.
    fn handle_connected(&self, connection: &mut Connection, connected: &Connected<'_>) {
        if connection.client.client_id != connected.client_id() {
            Arc::make_mut(&mut connection.client).client_id = connected.client_id().to_owned();
        }
    }

    fn handle_publish(&self, connection: &mut Connection, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let server = self.server();
        match server.publish {
            Rule::Ask if !connection.is_superuser() => {}
            Rule::Ask | Rule::Allow => return Ok(PublishVerdict::Forward),
            Rule::Deny => return Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)),
        }
        let act = Act::publish(publish);
        let key = server.keys(&connection.client.key_part()).key(&act.key_part());
        if let Some(answer) = server.known(&key) {
            return Ok(publish_verdict(Ok(answer)));
        }
        let question = Question::About(Arc::clone(&connection.client), act.into_owned());
        let (ticket, later) = self.host.ticket::<PublishVerdict>()?;
        server.ask(vec![(key, question)], move |answers| {
            let _ = ticket.answer(publish_verdict(only(answers)));
        });
        Ok(PublishVerdict::Later(later))
    }

    fn handle_subscribe(
        &self,
        connection: &mut Connection,
        subscribe: &Subscribe<'_>,
    ) -> Result<SubscribeVerdict, Error> {
        let server = self.server();
        let mut codes: Vec<ReasonCode> = subscribe.subscriptions().map(|one| one.reason_code()).collect();
        match server.subscribe {
            Rule::Ask if !connection.is_superuser() => {}
            Rule::Ask | Rule::Allow => return Ok(SubscribeVerdict::Codes(codes)),
            Rule::Deny => {
                let refused = |code: &mut ReasonCode| *code = ReasonCode::NOT_AUTHORIZED;
                codes.iter_mut().filter(|code| !code.is_error()).for_each(refused);
                return Ok(SubscribeVerdict::Codes(codes));
            }
        }
        let keys = server.keys(&connection.client.key_part());
        let (mut open, mut questions, mut are_there) = (Vec::new(), Vec::new(), false);
        for (index, subscription) in subscribe.subscriptions().enumerate() {
            // What the server or an earlier plugin has refused already stays refused.
            if codes[index].is_error() {
                continue;
            }
            let act = Act::subscribe(&subscription);
            let key = keys.key(&act.key_part());
            match server.known(&key) {
                Some(answer) if answer.is_allowed => {}
                Some(_) => codes[index] = ReasonCode::NOT_AUTHORIZED,
                None => {
                    open.push(index);
                    are_there |= subscription.again();
                    questions.push((key, Question::About(Arc::clone(&connection.client), act.into_owned())));
                }
            }
        }
        if questions.is_empty() {
            return Ok(SubscribeVerdict::Codes(codes));
        }
        let (ticket, later) = self.host.ticket::<SubscribeVerdict>()?;
        server.ask(questions, move |answers| {
            // Nobody has said that the client may not have them any more.
            if let Err(failure) = answers
                && are_there
            {
                let _ = ticket.answer(SubscribeVerdict::Disconnect(Disconnect::new(code_of(failure))));
                return;
            }
            for (place, index) in open.into_iter().enumerate() {
                match &answers {
                    Ok(answers) if answers[place].is_allowed => {}
                    Ok(_) => codes[index] = ReasonCode::NOT_AUTHORIZED,
                    Err(failure) => codes[index] = code_of(*failure),
                }
            }
            let _ = ticket.answer(SubscribeVerdict::Codes(codes));
        });
        Ok(SubscribeVerdict::Later(later))
    }

    fn export_state(&self, connection: &mut Connection) -> State {
        let state = (&*connection.client, connection.is_superuser());
        // Text and flags can always be written as JSON.
        State::new(SCHEMA, serde_json::to_vec(&state).unwrap_or_default())
    }

    fn import_state(&self, _: &Swapped<'_>, state: StateView<'_>) -> Result<Connection, Error> {
        if state.version() != SCHEMA {
            return Err(format!("a state of schema {}, and this version knows {SCHEMA}", state.version()).into());
        }
        let (client, superuser): (Client, bool) = serde_json::from_slice(state.bytes())?;
        Ok(Connection { client: Arc::new(client), superuser: Arc::new(AtomicBool::new(superuser)) })
    }
}

/// The answer to the one question.
fn only(answers: Result<Vec<Answer>, Failure>) -> Result<Answer, Failure> {
    answers.and_then(|answers| answers.into_iter().next().ok_or(Failure::Unavailable))
}

plugin_api::export!(HttpAuth);
