//! What plugins ask for and get an answer to: pages of what there is, subscriptions on behalf of clients, timers.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use plugin_api::{
    Asking, ConnectionId, Host, HostError, InfoTarget, Message, NewSubscription, Page, QoS, Query, RetainHandling,
    TimerId,
};

use super::net::connect_packet;
use super::*;
use crate::core::InheritedTimer;
use crate::plugin::Flip;

/// Makes a request, and lets the workers take turns until it has been answered.
pub(super) fn ask<T: Send + 'static>(
    net: &mut Net,
    request: impl FnOnce(&Host) -> Asking<'_, T>,
) -> Result<T, HostError> {
    let answer = begin(net, request)?;
    net.settle();
    let first = answer.try_recv().expect("one answer");
    assert!(answer.try_recv().is_err(), "one answer, and no more");
    first
}

fn begin<T: Send + 'static>(
    net: &Net,
    request: impl FnOnce(&Host) -> Asking<'_, T>,
) -> Result<Receiver<Result<T, HostError>>, HostError> {
    let (sender, answer) = channel();
    let host = net.script().host();
    request(&host).then(move |answer| {
        let _ = sender.send(answer);
    })?;
    Ok(answer)
}

/// All pages of `limit` rows. `between` happens before each page but the first one.
fn all_pages<R: Send + 'static>(
    net: &mut Net,
    limit: u32,
    page: impl Fn(&Host, Query<'static>) -> Asking<'static, Page<R>>,
    mut between: impl FnMut(&mut Net, usize),
) -> Vec<R> {
    let (mut rows, mut query, mut pages) = (Vec::new(), Query::all().limit(limit), 0);
    loop {
        // The host lives as long as the test does.
        let host: &'static Host = Box::leak(Box::new(net.script().host()));
        let next = ask(net, |_| page(host, query)).expect("a page");
        assert!(next.rows.len() <= limit as usize);
        rows.extend(next.rows);
        let Some(cursor) = next.next else { return rows };
        pages += 1;
        assert!(pages < 1000, "it does not end");
        between(net, pages);
        query = Query::all().limit(limit).after(cursor);
    }
}

fn leaked(host: &Host) -> &'static Host {
    Box::leak(Box::new(host.clone()))
}

#[test]
fn connections_and_sessions_are_listed() {
    scenario(|net| {
        let (a, b) = (net.v5("a"), net.durable(V3_1_1, "b", CONNACK));
        let gone = net.join(V5, &connect_packet(V5, "00", 0, "11 0000003C", "gone"), CONNACK);
        let waiting = net.open(V5);
        net.subscribe(b, "t/#", 1);
        net.lose(gone);
        net.advance(1000);
        let page = ask(net, |host| host.connections(Query::all())).unwrap();
        let mut names: Vec<_> = page.rows.iter().map(|row| (&*row.client_id, row.protocol_version)).collect();
        names.sort_unstable();
        assert_eq!((names, page.next), (vec![("a", 5), ("b", 4)], None));
        let row = page.rows.iter().find(|row| row.client_id == "a").unwrap();
        assert_eq!(row.connection, ConnectionId(net.connection_id(a)));
        assert_eq!((row.peer, &*row.listener), ("127.0.0.1:50000".parse().ok(), "here"));
        let mut sessions = ask(net, |host| host.sessions(Query::all())).unwrap().rows;
        sessions.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
        let shown: Vec<_> = sessions
            .iter()
            .map(|row| (&*row.client_id, row.connection.is_some(), row.subscriptions, row.session_expiry_secs))
            .collect();
        assert_eq!(shown, [("a", true, 0, 0), ("b", true, 1, 7 * 24 * 3600), ("gone", false, 0, 60)]);
        assert_eq!(sessions[2].expires_in, Some(Duration::from_secs(59)));
        // One of them, by either name.
        let id = ConnectionId(net.connection_id(b));
        for target in [InfoTarget::Client("b"), InfoTarget::Connection(id)] {
            let of_one = ask(net, |host| host.connections(Query::of(target))).unwrap();
            assert_eq!((of_one.rows.len(), &*of_one.rows[0].client_id, of_one.next), (1, "b", None));
        }
        for target in [InfoTarget::Client("nobody"), InfoTarget::Connection(ConnectionId(77))] {
            assert_eq!(ask(net, |host| host.sessions(Query::of(target))).unwrap().rows, []);
        }
        // Inside a connection that has not been let in there is nothing to see.
        let id = ConnectionId(net.connection_id(waiting));
        assert_eq!(ask(net, |host| host.connections(Query::of(InfoTarget::Connection(id)))).unwrap().rows, []);
        net.script().calls.clear();
    });
}

/// Whoever is there throughout is listed once, and nobody twice, while others come and go in any place of the tables.
#[test]
fn pages_list_what_stays_while_others_come_and_go() {
    scenario(|net| {
        let names: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
        let mut clients: Vec<Option<usize>> = names.iter().map(|name| Some(net.durable(V5, name, CONNACK))).collect();
        let mut came = 0;
        let mut churn = |net: &mut Net, page: usize| {
            // Each third one leaves for good and comes again; new ones come besides.
            if let Some(client) = clients.get_mut(page * 3).and_then(Option::take) {
                let name = &names[page * 3];
                net.send(client, "E0: 00 {11 00000000}");
                net.take(client);
                net.durable(V5, name, CONNACK);
            }
            came += 1;
            net.v5(&format!("new{came}"));
        };
        let listed = all_pages(net, 2, |host, query| leaked(host).sessions(query), &mut churn);
        let listed: Vec<String> = listed.into_iter().map(|row| row.client_id).collect();
        let once: BTreeSet<&String> = listed.iter().collect();
        assert_eq!(once.len(), listed.len(), "twice: {listed:?}");
        for (number, name) in names.iter().enumerate().filter(|(number, _)| *number == 0 || number % 3 != 0) {
            assert!(once.contains(name), "{number}: {listed:?}");
        }
        let listed = all_pages(net, 2, |host, query| leaked(host).connections(query), |_, _| {});
        let once: BTreeSet<u64> = listed.iter().map(|row| row.connection.0).collect();
        assert_eq!((once.len(), listed.len()), (12 + came, 12 + came));
    });
}

#[test]
fn subscriptions_are_listed_with_their_options() {
    scenario(|net| {
        let (a, b) = (net.v5("a"), net.v5("b"));
        net.send(a, "82: 0001 {0B 07} <s/a> 2D <$share/g/t/+> 01");
        net.expect(a, "90: 0001 {} 01 01");
        for number in 0..9 {
            net.subscribe(b, &format!("b/{number}"), 0);
        }
        let page = ask(net, |host| host.subscriptions(Query::of(InfoTarget::Client("a")))).unwrap();
        let [group, plain] = &page.rows[..] else { panic!("{page:?}") };
        assert_eq!((&*plain.filter, plain.qos, plain.no_local), ("s/a", QoS::AtLeastOnce, true));
        assert_eq!((plain.retain_as_published, plain.retain_handling), (true, RetainHandling::DoNotSend));
        assert_eq!((plain.identifier, &plain.share_name), (Some(7), &None));
        assert_eq!((&*group.filter, group.share_name.as_deref()), ("$share/g/t/+", Some("g")));
        assert_eq!(group.levels().collect::<Vec<_>>(), ["t", "+"]);
        // Some end and some begin between the pages.
        let change = |net: &mut Net, page: usize| {
            net.send(b, &format!("A2: 0002 {{}} <b/{page}>"));
            net.send(b, &format!("82: 0003 {{}} <new/{page}> 00"));
            net.take(b);
        };
        let rows = all_pages(net, 3, |host, query| leaked(host).subscriptions(query), change);
        let listed: Vec<String> = rows.into_iter().map(|row| row.filter).collect();
        let once: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        assert_eq!(once.len(), listed.len(), "{listed:?}");
        for stays in ["s/a", "$share/g/t/+", "b/0", "b/8"] {
            assert!(once.contains(stays), "{stays}: {listed:?}");
        }
        let very = ask(net, |host| host.subscriptions(Query::all().filter("s/a"))).unwrap();
        assert_eq!((very.rows.len(), &*very.rows[0].client_id), (1, "a"));
    });
}

#[test]
fn retained_messages_are_listed() {
    scenario(|net| {
        let client = net.v5("c");
        for number in 0..9 {
            net.send(client, &format!("31: <r/{number}> {{26 <a> <b>}} '{number}'"));
        }
        net.send(client, "31: <$r> {02 0000000A} 'x'");
        let all = |net: &mut Net, between: &dyn Fn(&mut Net, usize)| -> Vec<String> {
            let rows = all_pages(net, 2, |host, query| leaked(host).retained(query), between);
            rows.into_iter().map(|row| row.topic).collect()
        };
        // Those that are replaced are still the same; one that is removed and comes again is another.
        let listed = all(net, &|net, page| {
            net.send(client, &format!("31: <r/{page}> {{}}"));
            net.send(client, &format!("31: <r/{page}> {{}} 'again'"));
            net.send(client, "31: <r/8> {} 'replaced'");
            net.send(client, &format!("31: <new/{page}> {{}} 'x'"));
        });
        let once: BTreeSet<&String> = listed.iter().collect();
        assert_eq!(once.len(), listed.len(), "{listed:?}");
        for stays in ["r/0", "r/8", "$r"] {
            assert!(once.contains(&stays.to_owned()), "{stays}: {listed:?}");
        }
        let one = ask(net, |host| host.retained(Query::all().filter("r/0"))).unwrap();
        let [row] = &one.rows[..] else { panic!("{one:?}") };
        assert_eq!((&*row.topic, &*row.payload, row.qos, row.expires_in), ("r/0", &b"0"[..], QoS::AtMostOnce, None));
        assert_eq!(row.properties.as_properties().iter().count(), 1);
        let few = ask(net, |host| host.retained(Query::all().filter("r/+"))).unwrap();
        assert_eq!(few.rows.len(), 9);
        let none = ask(net, |host| host.retained(Query::all().filter("#/x")));
        assert_eq!(none.unwrap_err(), HostError::Invalid);
        net.advance(10_000);
        assert_eq!(ask(net, |host| host.retained(Query::all().filter("$r"))).unwrap().rows, []);
    });
}

/// Inside a callback a request begins when it has returned, and nobody can wait for it.
#[test]
fn asking_inside_a_callback() {
    scenario(|net| {
        let client = net.v5("c");
        let (host, (sender, answer)) = (net.script().host(), channel());
        net.script().publish = Some(Box::new(move |_| {
            let sender = sender.clone();
            assert_eq!(host.sessions(Query::all()).wait().unwrap_err(), HostError::NotHere);
            host.sessions(Query::all()).then(move |page| {
                let _ = sender.send(page.map(|page| page.rows.len()));
            })?;
            Ok(plugin_api::PublishVerdict::Handled)
        }));
        net.send(client, "30: <t> {} 'x'");
        assert_eq!(answer.try_recv(), Ok(Ok(1)));
        // Nor can who gets an answer wait for another, and a panic there harms nobody.
        let (host, (sender, answer)) = (net.script().host(), channel());
        let inner = host.clone();
        let asked = host.sessions(Query::all()).then(move |_| {
            let _ = sender.send(inner.connections(Query::all()).wait().unwrap_err());
            panic!("as scripted");
        });
        assert_eq!(asked, Ok(()));
        net.settle();
        assert_eq!(answer.try_recv(), Ok(HostError::NotHere));
        net.send(client, "C0:");
        net.expect(client, "D0:");
    });
}

/// A worker that ends answers what it has not got to.
#[test]
fn who_asks_a_server_that_stops_is_answered() {
    scenario(|net| {
        let answers: Vec<_> =
            (0..3).map(|_| begin(net, |host| host.sessions(Query::all())).expect("there is room")).collect();
        let pass = begin(net, |host| host.reauthorise(InfoTarget::All)).expect("there is room");
        for worker in 0..net.workers() {
            net.shared.mailboxes.of(worker).close();
        }
        for answer in answers {
            assert_eq!(answer.try_recv(), Ok(Err(HostError::NotRunning)));
        }
        assert_eq!(pass.try_recv(), Ok(Err(HostError::NotRunning)));
        assert_eq!(begin(net, |host| host.sessions(Query::all())).unwrap_err(), HostError::NotRunning);
    });
}

#[test]
fn subscribing_on_behalf() {
    for version in VERSIONS {
        scenario(|net| {
            let (client, other) = (net.durable(version, "c", CONNACK), net.v5("other"));
            net.send(other, "31: <t/1> {} 'kept'");
            let one = NewSubscription::new("t/+", QoS::AtLeastOnce).identifier(5);
            let done = ask(net, |host| host.subscribe(InfoTarget::Client("c"), one));
            assert_eq!(done, Ok(QoS::AtLeastOnce));
            net.expect(client, "31: <t/1> [{0B 05}] 'kept'");
            net.send(other, "32: <t/2> 0001 {} 'live'");
            net.expect(client, "32: <t/2> 0001 [{0B 05}] 'live'");
            net.send(client, "40: 0001");
            let again = NewSubscription::new("t/+", QoS::AtMostOnce).retain_handling(RetainHandling::SendIfNew);
            let id = ConnectionId(net.connection_id(client));
            assert_eq!(ask(net, |host| host.subscribe(InfoTarget::Connection(id), again)), Ok(QoS::AtMostOnce));
            net.expect(client, "");
            assert_eq!(ask(net, |host| host.unsubscribe(InfoTarget::Client("c"), "t/+")), Ok(()));
            let missing = ask(net, |host| host.unsubscribe(InfoTarget::Client("c"), "t/+"));
            assert_eq!(missing, Err(HostError::NotFound));
            net.take(other);
            net.send(other, "32: <t/2> 0002 {} 'live'");
            net.expect(client, "");
            // Nobody was asked.
            assert_eq!(net.script().take("subscribe"), [""; 0]);
            // Without a connection: what is retained, and what comes, waits for it.
            net.lose(client);
            assert_eq!(ask(net, |host| host.subscribe(InfoTarget::Client("c"), one)), Ok(QoS::AtLeastOnce));
            let gone = NewSubscription::new("gone/#", QoS::AtMostOnce);
            net.send(other, "31: <gone/1> {} 'x'");
            assert_eq!(ask(net, |host| host.subscribe(InfoTarget::Client("c"), gone)), Ok(QoS::AtMostOnce));
            assert_eq!(ask(net, |host| host.unsubscribe(InfoTarget::Client("c"), "gone/#")), Ok(()));
            net.send(other, "32: <t/2> 0003 {} 'waits'");
            let connack = super::net::resumed(version);
            let client = net.durable(
                version,
                "c",
                &format!("{connack} | 32: <t/2> 0002 [{{0B 05}}] 'waits' | 31: <t/1> [{{0B 05}}] 'kept'"),
            );
            net.send(client, "40: 0002");
            net.expect(client, "");
        });
    }
}

#[test]
fn subscribing_on_behalf_keeps_to_the_bounds() {
    let setup = Setup::limits(|limits| {
        limits.subscriptions_max = 1;
        limits.topic_levels_max = 3;
        limits.shared_subscriptions_available = false;
    });
    scenario_with(&setup, |net| {
        net.join(V5, &connect_packet(V5, "02", 0, "", "c"), "20: 00 00 [{21 0400 27 01000000 22 0040 2A 00}]");
        let mut subscribe = |filter: &'static str, change: fn(NewSubscription<'static>) -> NewSubscription<'static>| {
            let one = change(NewSubscription::new(filter, QoS::ExactlyOnce));
            ask(net, |host| host.subscribe(InfoTarget::Client("c"), one))
        };
        let same = |one| one;
        assert_eq!(subscribe("a", same), Ok(QoS::ExactlyOnce));
        assert_eq!(subscribe("a", same), Ok(QoS::ExactlyOnce));
        assert_eq!(subscribe("b", same), Err(HostError::Full));
        for filter in ["", "#/a", "a/b/c/d", "$share/g/a", "$share//a", "$share/g"] {
            assert_eq!(subscribe(filter, same), Err(HostError::Invalid), "{filter}");
        }
        assert_eq!(subscribe("$share/g/a", NewSubscription::no_local), Err(HostError::Invalid));
        assert_eq!(subscribe("a", |one| one.identifier(268_435_456)), Err(HostError::Invalid));
        for target in [InfoTarget::Client("nobody"), InfoTarget::Connection(ConnectionId(77))] {
            let one = NewSubscription::new("a", QoS::AtMostOnce);
            assert_eq!(ask(net, |host| host.subscribe(target, one)), Err(HostError::NotFound));
        }
        let one = NewSubscription::new("a", QoS::AtMostOnce);
        assert_eq!(ask(net, |host| host.subscribe(InfoTarget::All, one)), Err(HostError::Invalid));
    });
}

#[test]
fn shared_subscriptions_on_behalf() {
    scenario(|net| {
        let (a, b, publisher) = (net.v5("a"), net.v5("b"), net.v5("p"));
        for name in ["a", "b"] {
            let one = NewSubscription::new("$share/g/t", QoS::AtMostOnce);
            assert_eq!(ask(net, |host| host.subscribe(InfoTarget::Client(name), one)), Ok(QoS::AtMostOnce));
        }
        for _ in 0..4 {
            net.send(publisher, "30: <t> {} 'x'");
        }
        let got = (net.take(a).len(), net.take(b).len());
        assert_eq!(got, (14, 14), "each in turn");
        assert_eq!(ask(net, |host| host.unsubscribe(InfoTarget::Client("a"), "$share/g/t")), Ok(()));
        net.send(publisher, "30: <t> {} 'x'");
        net.expect(a, "");
        net.expect(b, "30: <t> {} 'x'");
    });
}

/// Timers are once or again and again, for a connection, a client, all, or the plugin, until they are cancelled.
#[test]
fn timers() {
    scenario(|net| {
        let (a, b) = (net.v5("a"), net.v5("b"));
        let (host, second) = (net.script().host(), Duration::from_secs(1));
        let id = ConnectionId(net.connection_id(a));
        let every = [
            host.send_info_every(InfoTarget::Connection(id), "connection", b"", second),
            host.send_info_every(InfoTarget::Client("b"), "client", b"", 2 * second),
            host.send_info_every(InfoTarget::Plugin, "plugin", b"data", second),
        ]
        .map(|timer| timer.expect("there is room"));
        let once = host.send_info(InfoTarget::Plugin, "once", b"", Some(second)).unwrap();
        assert!(!every.contains(&once));
        host.cancel_timer(once).unwrap();
        host.send_info(InfoTarget::Plugin, "now", b"", None).unwrap();
        net.settle();
        assert_eq!(net.script().take("event"), ["event now Plugin"]);
        net.advance(4_500);
        let count = |net: &Net, begin: &str| {
            net.script().calls.iter().filter(|line| line.starts_with(begin) && line.ends_with("Timer")).count()
        };
        assert_eq!((count(net, "info a connection"), count(net, "info b client")), (4, 2));
        assert_eq!((count(net, "event plugin"), count(net, "event once")), (4, 0));
        // One that comes back is still meant; a connection is not.
        net.script().calls.clear();
        net.lose(a);
        net.lose(b);
        net.advance(2_000);
        net.v5("a");
        net.v5("b");
        net.advance(2_000);
        assert_eq!((count(net, "info a"), count(net, "info b client"), count(net, "event plugin")), (0, 1, 4));
        for timer in every {
            host.cancel_timer(timer).unwrap();
        }
        net.script().calls.clear();
        net.advance(10_000);
        assert_eq!(net.script().calls, [""; 0]);
        let message = Message::new("t", "x");
        assert_eq!(host.publish(&message), Ok(()));
    });
}

/// What `init` sends itself comes once the plugin decides. A version that begins as the one before did takes its timers over, in
/// another process as well.
#[test]
fn timers_with_which_a_plugin_begins() {
    const FOR_GOOD: Flip = Flip { per_mille: None, probation: Duration::ZERO, budget: 0 };
    fn begins(host: &Host) {
        let second = Duration::from_secs(1);
        host.send_info(InfoTarget::Plugin, "begun", b"", None).expect("it is kept");
        for number in [b"1", b"2"] {
            host.send_info_every(InfoTarget::Plugin, "beat", number, second).expect("it is kept");
        }
        host.send_info(InfoTarget::Plugin, "beat", b"1", Some(second / 2)).expect("it is kept");
        let never = host.send_info(InfoTarget::Plugin, "never", b"", Some(second)).expect("it is kept");
        host.cancel_timer(never).expect("it is kept");
    }
    scenario(|net| {
        let beats = |net: &mut Net| {
            net.script().calls.clear();
            net.advance(2_000);
            net.script().take("event")
        };
        for version in ["2.0.0", "3.0.0", "4.0.0"] {
            net.flip(version, &FOR_GOOD, |script| script.begins = Some(begins));
            net.settle();
            assert_eq!(net.script().take("event"), ["event begun Plugin"]);
            assert_eq!(beats(net), ["event beat Timer"; 5], "two of each second, and one more in the first");
        }
        let worker =
            (0..net.workers()).find(|worker| !net.cores[*worker].delayed_infos.is_empty()).expect("it has them");
        let mut image = Vec::new();
        net.cores[worker].timers_image(&mut image);
        for mut timer in InheritedTimer::read_all(&image, Some).expect("it is whole") {
            timer.info.timer += 1000;
            let now = net.now;
            net.cores[worker].inherit_timer(timer, now);
        }
        assert_eq!(beats(net), ["event beat Timer"; 4]);
        // They are the plugin's: another version that begins with nothing has them as well.
        net.flip("5.0.0", &FOR_GOOD, |_| {});
        net.settle();
        assert_eq!(beats(net), ["event beat Timer"; 4]);
        let timers: Vec<u64> = net.cores[worker].delayed_infos.values().map(|one| one.info.timer).collect();
        for timer in timers {
            assert_eq!(net.script().host().cancel_timer(TimerId(timer)), Ok(()));
        }
        assert_eq!(beats(net), [""; 0]);
    });
}

/// A future is ready once the answer has come, and needs no runtime.
#[test]
fn awaiting() {
    use std::future::{Future, IntoFuture};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    scenario(|net| {
        net.v5("c");
        let host = net.script().host();
        let mut context = Context::from_waker(Waker::noop());
        let mut answer = pin!(host.sessions(Query::all()).into_future());
        assert!(answer.as_mut().poll(&mut context).is_pending());
        net.settle();
        let Poll::Ready(Ok(page)) = answer.as_mut().poll(&mut context) else { panic!("no answer") };
        assert_eq!(page.rows.len(), 1);
        let refused = NewSubscription::new("#/x", QoS::AtMostOnce);
        let mut refused = pin!(host.subscribe(InfoTarget::Client("c"), refused).into_future());
        assert!(matches!(refused.as_mut().poll(&mut context), Poll::Ready(Err(HostError::Invalid))));
    });
}

/// A mailbox that is full when a callback has returned: who asked in it is told.
#[test]
fn full_mailbox_answers_who_asked_in_a_callback() {
    scenario(|net| {
        let client = net.v5("c");
        let host = net.script().host();
        let (sender, answer) = channel();
        net.script().publish = Some(Box::new(move |_| {
            for bytes in std::iter::repeat_n(60_000, 300).chain(std::iter::repeat_n(1, 1000)) {
                host.send_info(InfoTarget::All, "k", &vec![0; bytes], None)?;
            }
            let sender = sender.clone();
            host.sessions(Query::all()).then(move |page| {
                let _ = sender.send(page.map(|page| page.rows.len()));
            })?;
            Ok(plugin_api::PublishVerdict::Handled)
        }));
        net.send(client, "30: <t> {} 'x'");
        assert_eq!(answer.try_recv(), Ok(Err(HostError::Full)));
        net.script().calls.clear();
    });
}
