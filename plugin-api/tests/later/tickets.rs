//! Tickets.

use std::cell::RefCell;

use plugin_api::abi::{AnswerKey, Status, Verdict};
use plugin_api::{
    Auth, AuthVerdict, Connect, ConnectVerdict, ConnectionInfo, Deferrable, Disconnect, Error, Handler, Host,
    HostError, Info, InfoAction, Later, Message, Publish, PublishVerdict, ReasonCode, Subscribe, SubscribeVerdict,
    Ticket, Unsubscribe, UnsubscribeVerdict, handler,
};

use crate::fake_host::{Answer, Plugin, State};

/// Answers everything later, with what the test says.
struct Waits {
    host: Host,
}

/// The tickets that the handler took. A handler runs on the thread of its test.
#[derive(Default)]
struct Kept {
    connect: Option<Ticket<ConnectVerdict>>,
    auth: Option<Ticket<AuthVerdict>>,
    publish: Option<Ticket<PublishVerdict>>,
    subscribe: Option<Ticket<SubscribeVerdict>>,
    unsubscribe: Option<Ticket<UnsubscribeVerdict>>,
    info: Option<Ticket<Vec<InfoAction>>>,
    later: Option<Later<PublishVerdict>>,
    host: Option<Host>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

fn with_kept<T>(run: impl FnOnce(&mut Kept) -> T) -> T {
    KEPT.with(|kept| run(&mut kept.borrow_mut()))
}

impl Waits {
    fn later<A: Deferrable>(&self, keep: impl FnOnce(&mut Kept, Ticket<A>)) -> Result<Later<A>, HostError> {
        let (ticket, later) = self.host.ticket::<A>()?;
        with_kept(|kept| keep(kept, ticket));
        Ok(later)
    }
}

#[handler]
impl Handler for Waits {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        with_kept(|kept| kept.host = Some(host.clone()));
        Ok(Self { host })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        Ok(ConnectVerdict::Later(self.later(|kept, ticket| kept.connect = Some(ticket))?))
    }

    fn handle_auth(&self, _: &mut (), _: &Auth<'_>) -> Result<AuthVerdict, Error> {
        Ok(AuthVerdict::Later(self.later(|kept, ticket| kept.auth = Some(ticket))?))
    }

    fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        match publish.topic() {
            "drop" => Ok(PublishVerdict::Later(self.host.ticket()?.1)),
            "keep" => {
                with_kept(|kept| -> Result<(), Error> {
                    let (ticket, later) = self.host.ticket()?;
                    (kept.publish, kept.later) = (Some(ticket), Some(later));
                    Ok(())
                })?;
                Ok(PublishVerdict::Handled)
            }
            "old" => Ok(PublishVerdict::Later(with_kept(|kept| kept.later.clone()).ok_or("kept")?)),
            "swapped" => {
                let _mine = self.host.ticket::<PublishVerdict>()?;
                Ok(PublishVerdict::Later(with_kept(|kept| kept.later.clone()).ok_or("kept")?))
            }
            "two" => {
                let (ticket, later) = self.host.ticket::<PublishVerdict>()?;
                assert_eq!(self.host.ticket::<PublishVerdict>().map(drop), Err(HostError::Invalid));
                with_kept(|kept| kept.publish = Some(ticket));
                Ok(PublishVerdict::Later(later))
            }
            "panic" => {
                let _ticket = self.host.ticket::<PublishVerdict>()?;
                panic!("with a ticket");
            }
            _ => Ok(PublishVerdict::Later(self.later(|kept, ticket| kept.publish = Some(ticket))?)),
        }
    }

    fn handle_subscribe(&self, _: &mut (), _: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        Ok(SubscribeVerdict::Later(self.later(|kept, ticket| kept.subscribe = Some(ticket))?))
    }

    fn handle_unsubscribe(&self, _: &mut (), _: &Unsubscribe<'_>) -> Result<UnsubscribeVerdict, Error> {
        Ok(UnsubscribeVerdict::Later(self.later(|kept, ticket| kept.unsubscribe = Some(ticket))?))
    }

    fn handle_info(&self, _: &mut (), info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        let later = InfoAction::Later(self.later(|kept, ticket| kept.info = Some(ticket))?);
        Ok(match info.kind() {
            "two" => vec![later, InfoAction::Stop("enough".into())],
            _ => vec![later],
        })
    }
}

fn start() -> (Plugin, State) {
    let plugin = Plugin::new::<Waits>("{}");
    let state = plugin.connection();
    (plugin, state)
}

#[track_caller]
fn defers(answer: &Answer) {
    assert_eq!((answer.verdict, &answer.pieces[..]), (Verdict::DEFERRED, &[][..]), "{answer:?}");
}

#[track_caller]
fn refuses(answer: &Answer, text: &str) {
    assert_eq!(answer.verdict, Verdict::ERROR, "{answer:?}");
    assert!(answer.text().contains(text), "{text:?} in {answer:?}");
}

#[test]
fn every_answer_can_come_later() {
    let (plugin, mut state) = start();
    defers(&plugin.connect(&mut state, "a"));
    defers(&plugin.auth(&mut state, "m"));
    defers(&plugin.publish(&mut state, "t", b""));
    defers(&plugin.subscribe(&mut state, "f"));
    defers(&plugin.unsubscribe(&mut state, "f"));
    defers(&plugin.info(&mut state, "one"));
    assert!((1..=6).all(|ticket| plugin.host.answered(ticket).is_none()));

    // On another thread than the one that was asked.
    let Kept { connect, auth, publish, subscribe, unsubscribe, info, .. } = with_kept(std::mem::take);
    let answer = move || -> Result<(), HostError> {
        connect.expect("taken").answer(ConnectVerdict::accept())?;
        auth.expect("taken").answer(AuthVerdict::Continue(b"more".to_vec()))?;
        publish.expect("taken").answer(PublishVerdict::ForwardChanged(Message::new("t/u", "p").retain(true)))?;
        subscribe.expect("taken").answer(SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_1; 2]))?;
        let end = Disconnect::new(ReasonCode::QUOTA_EXCEEDED).reason_string("no");
        unsubscribe.expect("taken").answer(UnsubscribeVerdict::Disconnect(end))?;
        info.expect("taken").answer(vec![InfoAction::Stop("over".into())])
    };
    std::thread::spawn(answer).join().expect("no panic").expect("taken by the host");

    let text = |bytes: &[u8]| bytes.to_vec();
    for (ticket, verdict, pieces) in [
        (1, Verdict::OK, vec![]),
        (2, Verdict::CONTINUE, vec![(AnswerKey::AUTH_DATA, 0, text(b"more"))]),
        (
            3,
            Verdict::CHANGED,
            vec![
                (AnswerKey::TOPIC, 0, text(b"t/u")),
                (AnswerKey::PAYLOAD, 0, text(b"p")),
                (AnswerKey::QOS, 0, vec![]),
                (AnswerKey::RETAIN, 1, vec![]),
            ],
        ),
        (4, Verdict::CODES, vec![(AnswerKey::CODES, 0, vec![1, 1])]),
        (
            5,
            Verdict::DISCONNECT,
            vec![(AnswerKey::REASON_CODE, 0x97, vec![]), (AnswerKey::PROPERTIES, 0, text(b"\x1f\x00\x02no"))],
        ),
        (6, Verdict::OK, vec![(AnswerKey::ACTION, 3, vec![]), (AnswerKey::TEXT, 0, text(b"over"))]),
    ] {
        assert_eq!(plugin.host.answered(ticket), Some(Answer { verdict, pieces }), "ticket {ticket}");
    }
    plugin.drop_connection(state);
}

#[test]
fn a_ticket_that_is_dropped_or_fails_refuses_at_once() {
    let (plugin, mut state) = start();
    defers(&plugin.publish(&mut state, "drop", b""));
    refuses(&plugin.host.answered(1).expect("at once"), "dropped without an answer");
    defers(&plugin.connect(&mut state, "a"));
    with_kept(|kept| kept.connect.take()).expect("taken").fail("the directory is down").expect("taken by the host");
    refuses(&plugin.host.answered(2).expect("at once"), "the directory is down");
    plugin.drop_connection(state);
}

#[test]
fn later_without_the_ticket_of_the_call_refuses() {
    let (plugin, mut state) = start();
    assert_eq!(plugin.publish(&mut state, "keep", b"").verdict, Verdict::HANDLED);
    // Another call, with a ticket of its own and without one.
    refuses(&plugin.publish(&mut state, "swapped", b""), "another call's ticket");
    refuses(&plugin.publish(&mut state, "old", b""), "another call's ticket");
    plugin.drop_connection(state);
}

#[test]
fn a_call_has_one_ticket_and_no_other_code_has_one() {
    let (plugin, mut state) = start();
    defers(&plugin.publish(&mut state, "two", b""));
    assert_eq!(plugin.host.tickets(), 1);
    let ticket = with_kept(|kept| kept.publish.take()).expect("taken");
    ticket.answer(PublishVerdict::Forward).expect("taken by the host");
    let host = with_kept(|kept| kept.host.clone()).expect("kept by init");
    assert_eq!(host.ticket::<PublishVerdict>().map(drop), Err(HostError::NotHere));
    plugin.drop_connection(state);
}

#[test]
fn later_is_all_that_is_done_for_an_info_message() {
    let (plugin, mut state) = start();
    refuses(&plugin.info(&mut state, "two"), "stands alone");
    plugin.drop_connection(state);
}

#[test]
fn an_answer_by_a_ticket_cannot_come_later_still() {
    let (plugin, mut state) = start();
    plugin.publish(&mut state, "keep", b"");
    let (ticket, later) = with_kept(|kept| (kept.publish.take(), kept.later.take()));
    ticket.expect("taken").answer(PublishVerdict::Later(later.expect("taken"))).expect("taken by the host");
    refuses(&plugin.host.answered(1).expect("answered"), "cannot come later still");
    plugin.drop_connection(state);
}

#[test]
fn without_a_ticket_the_callback_refuses() {
    let (plugin, mut state) = start();
    plugin.host.refuse_tickets(Status::FULL);
    refuses(&plugin.publish(&mut state, "t", b""), "queue is full");
    plugin.drop_connection(state);
}

#[test]
fn a_panic_with_a_ticket_is_a_panic() {
    let (plugin, mut state) = start();
    assert_eq!(plugin.publish(&mut state, "panic", b"").verdict, Verdict::PANICKED);
    refuses(&plugin.host.answered(1).expect("dropped by the panic"), "without an answer");
    assert_eq!(plugin.publish(&mut state, "t", b"").verdict, Verdict::POISONED);
    plugin.drop_connection(state);
}
