//! Shared Subscriptions, Topic Aliases towards clients, and request and response.

use crate::harness::{Process, with_server};
use crate::mqtt::{Client, Connect, Publish, V5, VERSIONS, field};

/// What a member has not acknowledged goes to another one when its session ends, with clients of all versions.
#[test]
fn messages_of_a_lost_member_go_to_another() {
    with_server(|server| {
        for version in VERSIONS {
            // Several names, so that the members are at different workers.
            for round in 0..4 {
                let mut lost = Client::connect(server.local_addr(), version, format!("lost {round}"));
                lost.subscribe("$share/g/jobs", 1);
                let mut publisher = Client::connect(server.local_addr(), version, "publisher");
                for number in 0..3 {
                    publisher.publish("jobs", format!("{number}"), 1);
                }
                let got: Vec<_> = (0..3).map(|_| lost.read_publish()).collect();
                lost.acknowledge(&got[1]);
                lost.ping();
                let mut other = Client::connect(server.local_addr(), version, format!("other {round}"));
                other.subscribe("$share/g/jobs", 1);
                other.expect_nothing();
                drop(lost);
                let got = [other.receive(), other.receive()];
                assert_eq!(
                    got.each_ref().map(|message| (message.text(), message.qos, message.dup)),
                    [("0", 1, false), ("2", 1, false)]
                );
                publisher.publish("jobs", "3", 1);
                assert_eq!(other.receive().text(), "3");
                other.expect_nothing();
                // Its session has ended before the next round begins.
                other.disconnect();
            }
        }
    });
}

/// How many of 30 messages each of three members of a group gets, of which the first acknowledges nothing.
fn shares_of_three(strategy: &str) -> [usize; 3] {
    let (process, addr) = Process::listening(["--workers", "3", "--shared-strategy", strategy]);
    let mut members = ["a", "b", "c"].map(|name| {
        let mut member = Client::connect(addr, V5, name);
        member.subscribe("$share/g/t", 1);
        member
    });
    let mut publisher = Client::connect(addr, V5, "publisher");
    let mut counts = [0; 3];
    for sent in 1..=30 {
        publisher.publish("t", "x", 1);
        // Until it has arrived somewhere.
        while counts.iter().sum::<usize>() < sent {
            for (number, (member, count)) in members.iter_mut().zip(&mut counts).enumerate() {
                member.ping();
                while let Some(message) = member.take_publish() {
                    *count += 1;
                    if number > 0 {
                        member.acknowledge(&message);
                    }
                }
                member.ping();
            }
        }
    }
    process.stop();
    counts
}

#[test]
fn strategies() {
    assert_eq!(shares_of_three("round-robin"), [10, 10, 10]);
    let sticky = shares_of_three("sticky");
    assert!(sticky.contains(&30), "{sticky:?}");
    let least = shares_of_three("least-in-flight");
    assert!(least[0] <= 1 && least[1] > 0 && least[2] > 0, "{least:?}");
    let random = shares_of_three("random");
    assert!(random.iter().all(|count| *count > 0), "{random:?}");
}

#[test]
fn topic_aliases() {
    let text = |aliases_max: &str| {
        let (process, addr) = Process::listening(["--workers", "2", "--outbound-topic-aliases-max", aliases_max]);
        let mut connect = Connect::new(V5, "taker");
        connect.properties = vec![0x22, 0, 2]; // Topic Alias Maximum
        let (mut taker, connack) = Client::connect_with(addr, &connect);
        assert_eq!(connack.code, 0);
        taker.subscribe("#", 0);
        let mut publisher = Client::connect(addr, V5, "publisher");
        let mut got = String::new();
        for topic in ["topic/1", "topic/1", "topic/2", "topic/3", "topic/2", "topic/3"] {
            publisher.publish(topic, "x", 0);
            let message = taker.read_publish();
            got += &format!("{} {:?}, ", message.topic, message.properties);
        }
        process.stop();
        got
    };
    assert_eq!(
        text("16"),
        "topic/1 [35, 0, 1],  [35, 0, 1], topic/2 [35, 0, 2], topic/3 [],  [35, 0, 2], topic/3 [], "
    );
    assert_eq!(text("0"), "topic/1 [], topic/1 [], topic/2 [], topic/3 [], topic/2 [], topic/3 [], ");
}

/// Requests that a group of workers shares; each answers where it is asked to, with what identifies the request.
#[test]
fn request_and_response() {
    with_server(|server| {
        let mut workers = ["w1", "w2"].map(|name| {
            let mut worker = Client::connect(server.local_addr(), V5, name);
            worker.subscribe("$share/workers/sum", 1);
            worker
        });
        let mut asker = Client::connect(server.local_addr(), V5, "asker");
        asker.subscribe("answers/asker", 1);
        let trace = [&[0x26][..], &field("b"), &field("1"), &[0x26], &field("a"), &field("2")].concat();
        for number in 0..4_u8 {
            let correlation = [0, number, 0xff];
            let mut request = Publish::new("sum", [number]).qos(1, 0);
            let properties = [&[0x08][..], &field("answers/asker"), &[0x09], &field(correlation), &trace].concat();
            request.properties = properties.clone();
            assert_eq!(asker.publish_message(request), 0);
            let worker = &mut workers[usize::from(number % 2)];
            let request = worker.receive();
            assert_eq!(request.properties, properties);
            let mut answer = Publish::new("answers/asker", [number + number]).qos(1, 0);
            answer.properties = [&[0x09][..], &field(correlation), &trace].concat();
            let sent = answer.properties.clone();
            worker.publish_message(answer);
            let answer = asker.receive();
            assert_eq!((answer.payload, answer.properties), (vec![number + number], sent));
        }
    });
}
