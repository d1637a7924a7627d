//! Listeners with TLS.

use std::sync::Arc;

use crate::certificates::{Authority, tls_listener, tls_open};
use crate::harness::start;
use crate::mqtt::{Client, VERSIONS};

#[test]
fn clients_come_by_tls() {
    let authority = Authority::new("authority");
    let issued = authority.server(&["localhost"]);
    for workers in [1, 3] {
        let server = start(workers, |builder| builder.listener(tls_listener(&issued)));
        let addr = server.local_addrs()[1];
        for version in VERSIONS {
            let config = Arc::new(authority.client());
            let open = || tls_open(addr, Arc::clone(&config), version);
            let mut subscriber = open().connected("subscriber");
            subscriber.subscribe("a/#", 2);
            let mut plain = Client::connect(server.local_addr(), version, "plain");
            plain.subscribe("a/#", 2);
            let mut publisher = open().connected("publisher");
            for qos in 0..3 {
                for bytes in [0, 1, 20_000, 1_000_000] {
                    publisher.publish("a/b", vec![b'x'; bytes], qos);
                    let message = subscriber.receive();
                    assert_eq!((message.topic.as_str(), message.qos, message.payload.len()), ("a/b", qos, bytes));
                    assert_eq!(plain.receive().payload.len(), bytes);
                }
            }
            publisher.disconnect();
        }
        server.stop().expect("it stops");
    }
}
