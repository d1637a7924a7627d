//! What `SECURITY.md` promises and no other file shows: who is turned away, whose user it runs as, and what nobody reads in
//! its log.

use crate::harness::{Process, package_library};
use crate::mqtt::{Client, Connect, V5};

/// A configuration of `acl` that lets nobody in but `ann`, whose password is `secret`; its hash costs next to nothing.
pub(crate) const ANN: &str = r#"{"users": [{"username": "ann", "password_hash":
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A"}],
    "rules": [{"user": "ann", "allow": ["publish", "subscribe"], "topics": ["ann/#"]}]}"#;

#[test]
fn who_tries_passwords_is_turned_away_and_who_is_in_stays() {
    let library = package_library("acl");
    let mut args = vec!["--plugin", library.to_str().unwrap(), "--plugin-config", ANN];
    args.extend(["--failures-per-address-max", "3", "--failures-count-loopback", "true", "--failures-ban", "1h"]);
    let (process, addr) = Process::listening(args);
    let sign_in = |password| {
        let connect = Connect { username: Some("ann"), password: Some(password), ..Connect::new(V5, password) };
        Client::connect_with(addr, &connect)
    };
    let (mut inside, connack) = sign_in("secret");
    assert_eq!(connack.code, 0);
    for guess in ["1234", "password", "qwerty"] {
        assert_eq!(sign_in(guess).1.code, 0x86);
    }
    process.wait_log_of(&["turned away", "127.0.0.1"]);
    Client::open(addr, V5).expect_closed();
    inside.ping();
    assert_eq!(inside.publish("ann/x", "y", 1), 0x10);
    process.stop();
}

/// Without a bound of their own, guesses from this machine are not counted: there may be a proxy on it.
#[test]
fn this_machine_is_not_turned_away_unless_told() {
    let library = package_library("acl");
    let args = ["--plugin", library.to_str().unwrap(), "--plugin-config", ANN, "--failures-per-address-max", "1"];
    let (process, addr) = Process::listening(args);
    for _ in 0..3 {
        let (_, connack) = Client::connect_with(addr, &Connect::new(V5, "c"));
        assert_eq!(connack.code, 0x87);
    }
    process.stop();
}
