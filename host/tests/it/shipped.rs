//! The shipped plugins, each with the example of its README. (`acl` has a file of its own.)

mod webhook;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::certificates::{Authority, Issued};
use crate::harness::{have, host_output, output, package_library, start};
use crate::mqtt::{Body, Client, Connack, Connect, Publish, V3_1_1, V5, VERSIONS, field, packet, varint};

const NOT_AUTHORIZED: u8 = 0x87;
const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
const SERVER_UNAVAILABLE: u8 = 0x88;
const BAD_AUTHENTICATION_METHOD: u8 = 0x8c;
const QUOTA_EXCEEDED: u8 = 0x97;
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
const MAXIMUM_CONNECT_TIME: u8 = 0xa0;

fn readme(plugin: &str) -> String {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("plugins");
    std::fs::read_to_string(plugins.join(plugin).join("README.md")).expect("it has a README")
}

/// The first block of JSON in a plugin's README.
fn example(plugin: &str) -> String {
    block(plugin, "json")
}

/// The first block of a kind.
fn block(plugin: &str, kind: &str) -> String {
    let readme = readme(plugin);
    let block = readme.split(&format!("```{kind}\n")).nth(1).and_then(|rest| rest.split("```").next());
    block.expect("the README has such a block").to_owned()
}

/// A server with these plugins and their configurations.
fn with_plugins(plugins: &[(&str, &str)], test: impl FnOnce(SocketAddr)) {
    let server = start(2, |builder| {
        plugins.iter().fold(builder, |builder, (plugin, config)| builder.plugin(package_library(plugin), *config))
    });
    test(server.local_addr());
    server.stop().unwrap();
}

/// The shipped plugins, each with configurations that are refused: for a key that is not known, a value of another type, and one
/// that is missing; and how the error names that.
const REFUSED: [(&str, [(&str, &str); 3]); 7] = [
    (
        "acl",
        [
            (r#"{"user": []}"#, "`user`: unknown field `user`, expected one of `users`"),
            (r#"{"anonymous": "yes"}"#, "`anonymous`: invalid type: string \"yes\", expected a boolean"),
            (r#"{"users": [{}]}"#, "`users[0]`: missing field `username`"),
        ],
    ),
    (
        "http-auth",
        [
            (r#"{"url": "http://a", "cache": 5}"#, "`cache`: unknown field `cache`, expected one of"),
            (
                r#"{"url": "http://a", "headers": {"x": 5}}"#,
                "`headers.x`: got something that is not shown, expected a string",
            ),
            (r#"{"threads": 5}"#, "`.`: missing field `url`"),
        ],
    ),
    (
        "jwt",
        [
            (r#"{"rules": {"pubish": []}}"#, "`rules.pubish`: unknown field `pubish`, expected one of"),
            (r#"{"leeway_secs": "5"}"#, "`leeway_secs`: invalid type: string \"5\", expected u64"),
            (r#"{"keys": [{"kid": "1"}]}"#, "`keys[0]`: missing field `algorithm`"),
        ],
    ),
    (
        "rewrite",
        [
            (r#"{"rules": [], "rule": 5}"#, "`rule`: unknown field `rule`, expected `rules`"),
            (r#"{"rules": [{"from": "a", "to": "b", "on": 5}]}"#, "`rules[0].on`: invalid type: integer `5`"),
            (r#"{"rules": [{"from": "a"}]}"#, "`rules[0]`: missing field `to`"),
        ],
    ),
    (
        "scram",
        [
            (r#"{"users": [], "other": "allow"}"#, "`other`: unknown field `other`, expected `users` or `others`"),
            (r#"{"users": [{"username": 5, "verifier": ""}]}"#, "`users[0].username`: invalid type: integer `5`"),
            (r#"{"others": "allow"}"#, "`.`: missing field `users`"),
        ],
    ),
    (
        "validate",
        [
            (r#"{"rules": [{"topic": "a"}]}"#, "`rules[0].topic`: unknown field `topic`, expected one of `topics`"),
            (r#"{"rules": [{"topics": [5]}]}"#, "`rules[0].topics[0]`: invalid type: integer `5`, expected a string"),
            ("{}", "`.`: missing field `rules`"),
        ],
    ),
    (
        "webhook",
        [
            (r#"{"url": "http://a", "topic": "a"}"#, "`topic`: unknown field `topic`, expected one of"),
            (r#"{"url": "http://a", "timeout_ms": "5"}"#, "`timeout_ms`: invalid type: string \"5\", expected u64"),
            ("{}", "`.`: missing field `url`"),
        ],
    ),
];

#[test]
fn mistakes_in_a_configuration_are_named_with_their_place() {
    for (plugin, refused) in REFUSED {
        let library = package_library(plugin);
        let check = |config: &str| {
            let library = library.to_str().expect("UTF-8");
            let output = host_output(["check", library, "--plugin-config", config]);
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (is_fine, said) = check(&example(plugin));
        assert!(is_fine, "{plugin}: {said}");
        for (config, expected) in refused {
            let (is_fine, said) = check(config);
            let expected = format!("the configuration is wrong at {expected}");
            assert!(!is_fine && said.contains(&expected), "{plugin} {config}: {expected:?} in {said}");
        }
    }
}

/// The fields in a schema that have no description.
fn undescribed(schema: &Value) -> Vec<String> {
    let members = schema.as_object().into_iter().flatten();
    let inner = members.flat_map(|(_, value)| undescribed(value));
    let fields = schema["properties"].as_object().into_iter().flatten();
    let bare = fields.filter(|(_, field)| field["description"].as_str().is_none_or(str::is_empty));
    bare.map(|(name, _)| name.clone()).chain(inner).collect()
}

/// That a schema is one, and what fits it, is what `validate` says.
#[test]
fn each_configuration_has_a_schema_that_it_fits() {
    let schema_of = |plugin: &str| {
        let library = package_library(plugin);
        let output = host_output(["check", "--schema", library.to_str().expect("UTF-8")]);
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{plugin}: {output:?}"));
        let missing = undescribed(&schema);
        assert!(missing.is_empty(), "{plugin}: `host check --schema` says nothing of {missing:?}");
        schema
    };
    let rule = |(plugin, _)| json!({ "topics": [plugin], "schema": schema_of(plugin) });
    let rules = json!({ "rules": REFUSED.map(rule) }).to_string();
    with_plugins(&[("validate", &rules)], |addr| {
        let mut client = Client::connect(addr, V5, "client");
        for (plugin, refused) in REFUSED {
            assert_eq!(client.publish(plugin, example(plugin), 1), 0x10, "{plugin}");
            for (config, _) in refused {
                assert_eq!(client.publish(plugin, config, 1), PAYLOAD_FORMAT_INVALID, "{plugin}: {config}");
            }
        }
    });
}

/// Runs the commands of the README that publish, and says what each of them wrote. `None` if there is no Mosquitto.
fn run_publishers(plugin: &str, addr: SocketAddr) -> Option<Vec<String>> {
    if !have("sh", &["-c", "command -v mosquitto_pub"], "apt-get install mosquitto-clients") {
        return None;
    }
    let server = format!("mosquitto_pub -h {} -p {}", addr.ip(), addr.port());
    let readme = readme(plugin);
    let lines = readme.lines().filter(|line| line.starts_with("mosquitto_pub "));
    let run = |line: &str| {
        let output = output(Command::new("sh").args(["-c", &line.replacen("mosquitto_pub", &server, 1)]));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    Some(lines.map(run).collect())
}

#[test]
fn rewrite_gives_topics_other_names() {
    with_plugins(&[("rewrite", &example("rewrite"))], |addr| {
        let mut new = Client::connect(addr, V5, "new");
        new.subscribe("plant/+/temperature", 0);
        let mut old = Client::connect(addr, V3_1_1, "old");
        assert_eq!(old.subscribe_all(&[("old/+/temp", 1), ("inbox/#", 0), ("other", 2)]), [1, 0, 2]);
        if run_publishers("rewrite", addr).is_none() {
            new.publish("old/7/temp", "21.5", 0);
        }
        for client in [&mut new, &mut old] {
            let received = client.receive();
            assert_eq!((received.topic.as_str(), received.text()), ("plant/7/temperature", "21.5"));
        }
        // With its Client Identifier; retained under the new name.
        old.publish_message(Publish::new("raw/a", "r").qos(1, 0).retained());
        new.subscribe("devices/#", 0);
        assert_eq!(new.receive().topic, "devices/old/a");
        new.publish("devices/old/in/x", "i", 0);
        assert_eq!(
            (old.receive().topic.as_str(), new.receive().topic.as_str()),
            ("devices/old/in/x", "devices/old/in/x")
        );
        // It ends with the subscription that was asked for; what is not of a rule stays.
        old.unsubscribe("old/+/temp");
        old.publish("old/8/temp", "22", 1);
        assert_eq!(new.receive().topic, "plant/8/temperature");
        new.publish("other", "o", 1);
        assert_eq!(old.receive().text(), "o");
    });
}

fn property(identifier: u8, value: &[u8]) -> Vec<u8> {
    [vec![identifier], field(value)].concat()
}

/// CONNECT with an Authentication Method and Data.
fn connect_with_method(client_id: &str, method: &str, data: &[u8]) -> Connect {
    let mut connect = Connect::new(V5, client_id);
    connect.username = Some("ann");
    connect.properties = [property(0x15, method.as_bytes()), property(0x16, data)].concat();
    connect
}

fn auth(method: &str, reason_code: u8, data: &[u8]) -> Vec<u8> {
    let properties = [property(0x15, method.as_bytes()), property(0x16, data)].concat();
    packet(0xf0, &[vec![reason_code], varint(properties.len()), properties].concat())
}

/// The Authentication Data among properties.
fn data_of(properties: &[u8]) -> Vec<u8> {
    let mut body = Body(properties);
    while !body.0.is_empty() {
        match body.u8() {
            0x16 => return body.field(),
            0x15 | 0x1f => drop(body.field()),
            // Of CONNACK: what is set, by its size.
            0x11 | 0x27 => body.0 = &body.0[4..],
            0x21 | 0x22 | 0x13 => body.0 = &body.0[2..],
            _ => body.0 = &body.0[1..],
        }
    }
    Vec::new()
}

/// What a client has to say last, worked out by somebody else: Python.
fn scram_final(password: &str, bare: &str, server_first: &str) -> String {
    let program = r#"
import base64, hashlib, hmac, sys
password, bare, first = sys.argv[1:]
fields = dict(part.split("=", 1) for part in first.split(","))
salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
key = hmac.new(salted, b"Client Key", "sha256").digest()
last = "c=biws,r=" + fields["r"]
said = ",".join([bare, first, last]).encode()
signature = hmac.new(hashlib.sha256(key).digest(), said, "sha256").digest()
server = hmac.new(hmac.new(salted, b"Server Key", "sha256").digest(), said, "sha256").digest()
print(last + ",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode())
print("v=" + base64.b64encode(server).decode())
"#;
    let mut python = Command::new("python3");
    let output = python.args(["-c", program, password, bare, server_first]).stderr(Stdio::inherit()).output();
    String::from_utf8(output.expect("python3 can be run").stdout).expect("text")
}

/// Goes through the exchange; what the server said last, and whether that proves that it knows the user.
fn scram(addr: SocketAddr, client_id: &str, user: &str, password: &str) -> (Client, Connack, bool) {
    let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
    let mut client = Client::open(addr, V5);
    client.send(connect_with_method(client_id, "SCRAM-SHA-256", format!("n,,{bare}").as_bytes()).bytes());
    let first = client.expect_type(15);
    let mut body = Body::of(&first);
    assert_eq!(body.u8(), 0x18);
    let server_first = String::from_utf8(data_of(&body.properties())).expect("text");
    let made = scram_final(password, &bare, &server_first);
    let (last, proof) = made.trim().split_once('\n').expect("two lines");
    client.send(auth("SCRAM-SHA-256", 0x18, last.as_bytes()));
    let connack = client.connack();
    let is_proven = data_of(&connack.properties) == proof.as_bytes();
    (client, connack, is_proven)
}

#[test]
fn scram_lets_in_who_knows_the_password_and_acl_says_what_they_may_do() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let rules = r#"{"users": [{"username": "ann", "enhanced_authentication": true}],
        "rules": [{"user": "ann", "allow": ["publish"], "topics": ["mine"]}]}"#;
    with_plugins(&[("scram", &example("scram")), ("acl", rules)], |addr| {
        let (mut ann, connack, is_proven) = scram(addr, "c1", "ann", "correct horse");
        assert_eq!((connack.code, is_proven), (0, true));
        assert_eq!(ann.publish("mine", "x", 1), 0x10);
        assert_eq!(ann.publish("other", "x", 1), NOT_AUTHORIZED);
        assert_eq!(scram(addr, "c2", "ann", "wrong horse").1.code, NOT_AUTHORIZED);
        // It is told a salt, as if there were such a user.
        assert_eq!(scram(addr, "c3", "eve", "correct horse").1.code, NOT_AUTHORIZED);
        // Another method, and none.
        let connack = Client::connect_with(addr, &connect_with_method("c4", "SCRAM-SHA-1", b"n,,n=ann,r=x")).1;
        assert_eq!(connack.code, BAD_AUTHENTICATION_METHOD);
        let mut connect = Connect::new(V5, "c5");
        (connect.username, connect.password) = (Some("ann"), Some("correct horse"));
        assert_eq!(Client::connect_with(addr, &connect).1.code, NOT_AUTHORIZED);
        // Once more on the same connection, which asks for the first message.
        ann.send(auth("SCRAM-SHA-256", 0x19, b""));
        assert_eq!(Body::of(&ann.expect_type(15)).u8(), 0x18);
        ann.send(auth("SCRAM-SHA-256", 0x18, b"n,,n=eve,r=abc"));
        ann.expect_type(15);
        ann.send(auth("SCRAM-SHA-256", 0x18, b"c=biws,r=abc,p=AAAA"));
        ann.expect_disconnect(NOT_AUTHORIZED);
    });
}

#[test]
fn validate_lets_through_what_the_schema_says() {
    with_plugins(&[("validate", &example("validate"))], |addr| {
        let mut reader = Client::connect(addr, V5, "reader");
        reader.subscribe("sensors/#", 0);
        match run_publishers("validate", addr) {
            Some(said) => {
                assert_eq!(said.len(), 3, "{said:?}");
                assert!(said[0].is_empty() && said[1].contains("153") || said[1].contains("failed"), "{said:?}");
            }
            None => drop(Client::connect(addr, V5, "a").publish("sensors/1/temperature", r#"{"celsius": 21.5}"#, 0)),
        }
        assert_eq!(reader.receive().text(), r#"{"celsius": 21.5}"#);
        for version in [V3_1_1, V5] {
            let mut sensor = Client::connect(addr, version, "sensor");
            for payload in [r#"{"celsius": 300}"#, "21.5", "{", ""] {
                let code = sensor.publish("sensors/1/temperature", payload, 1);
                assert_eq!(code, if version == V5 { PAYLOAD_FORMAT_INVALID } else { 0 }, "{payload}");
            }
            assert_eq!(sensor.publish("sensors/1/other", "anything", 1), 0);
            assert_eq!(reader.receive().text(), "anything");
        }
        reader.expect_nothing();
    });
}

/// The server of the README of `http-auth`, with a certificate if there is one, and where it listens.
fn answers(certificate: Option<&Issued>) -> (Child, String) {
    answers_by(&block("http-auth", "python"), certificate)
}

fn answers_by(program: &str, certificate: Option<&Issued>) -> (Child, String) {
    let (start, last) = program.trim_end().rsplit_once('\n').expect("lines");
    // A port that is free, which it says.
    let server = last.replace("int(sys.argv[1])", "0").replace(".serve_forever()", "");
    let tls = certificate.map_or(String::new(), |issued| {
        let Issued { certificate, private_key } = issued;
        format!(
            "import ssl\ncontext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
             context.load_cert_chain({certificate:?}, {private_key:?})\n\
             server.socket = context.wrap_socket(server.socket, server_side=True)"
        )
    });
    let program =
        format!("{start}\nserver = {server}\n{tls}\nprint(server.server_port, flush=True)\nserver.serve_forever()");
    let mut python = Command::new("python3");
    python.args(["-c", &program]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut python = python.spawn().expect("python3 can be run");
    let mut port = String::new();
    BufReader::new(python.stdout.take().expect("a pipe")).read_line(&mut port).expect("it says its port");
    let scheme = if certificate.is_some() { "https" } else { "http" };
    (python, format!("{scheme}://127.0.0.1:{}/mqtt", port.trim()))
}

/// The configuration of `http-auth` in the README, with nearly all the time that the host gives it: Python may be slow.
fn with_patience(config: &str) -> String {
    let patient = config.replace(r#""timeout_ms": 2000"#, r#""timeout_ms": 4500"#);
    assert_ne!(patient, config);
    patient
}

#[test]
fn http_auth_does_what_the_server_says_and_nothing_without_it() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let (mut server, url) = answers(None);
    let config = with_patience(&example("http-auth").replace("http://127.0.0.1:8080/mqtt", &url));
    with_plugins(&[("http-auth", &config)], |addr| {
        let sign_in = |client_id: &str, user, password| {
            let mut connect = Connect::new(V5, client_id);
            (connect.username, connect.password) = (Some(user), Some(password));
            Client::connect_with(addr, &connect)
        };
        let (mut ann, connack) = sign_in("c1", "ann", "correct horse");
        assert_eq!(connack.code, 0);
        assert_eq!(sign_in("c2", "ann", "wrong").1.code, NOT_AUTHORIZED);
        assert_eq!(ann.subscribe_all(&[("ann/#", 1), ("#", 0), ("ann/x", 0)]), [1, NOT_AUTHORIZED, 0]);
        if let Some(said) = run_publishers("http-auth", addr) {
            assert_eq!(said.len(), 3);
            assert!(said[0].is_empty() && !said[1].is_empty() && !said[2].is_empty(), "{said:?}");
            assert_eq!(ann.receive().text(), "hello");
        }
        assert_eq!(ann.publish("ann/x", "1", 1), 0);
        assert_eq!(ann.receive().text(), "1");
        assert_eq!(ann.publish("bob/x", "1", 1), NOT_AUTHORIZED);
        server.kill().and_then(|()| server.wait()).expect("it ends");
        // What is known goes on, and nothing else.
        assert_eq!(ann.publish("ann/x", "2", 1), 0);
        assert_eq!(ann.publish("ann/y", "2", 1), 0x80);
        assert_eq!(ann.subscribe_all(&[("ann/#", 1), ("ann/y", 0)]), [1, 0x80]);
        assert_eq!(sign_in("c3", "ann", "correct horse").1.code, SERVER_UNAVAILABLE);
    });
}

/// With her password ann may use what is hers, and bob with his what is his; who comes as `down` has the server fail about
/// subscriptions, until somebody comes as `up`.
fn answers_about_several() -> (Child, String) {
    let program = [
        ("HTTP/1.1\"", "HTTP/1.1\"\n    up = True"),
        (
            "        topic =",
            "        Answers.up = {\"up\": True, \"down\": False}.get(question[\"username\"], Answers.up)\n        topic =",
        ),
        ("== (\"ann\", \"correct horse\")", "[1] == \"correct horse\""),
        ("send_response(200)", "send_response(200 if Answers.up or question[\"action\"] != \"subscribe\" else 500)"),
    ];
    let program = program.into_iter().fold(block("http-auth", "python"), |program, (from, to)| {
        assert!(program.contains(from), "{from} is not in {program}");
        program.replacen(from, to, 1)
    });
    answers_by(&program, None)
}

#[test]
fn http_auth_is_asked_about_what_an_earlier_user_has_subscribed_to() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let (mut server, url) = answers_about_several();
    // Without answers that are remembered.
    let config = format!(r#"{{"url": "{url}", "timeout_ms": 2400, "cache_secs": 0}}"#);
    with_plugins(&[("http-auth", &config)], |addr| {
        for version in [V3_1_1, V5] {
            let sign_in = |client_id: &str, user| {
                let mut connect = Connect::new(version, client_id).persistent();
                (connect.username, connect.password) = (Some(user), Some("correct horse"));
                Client::connect_with(addr, &connect)
            };
            let say = |payload: &str| {
                assert!(sign_in("sender", "ann").0.publish("ann/x", payload, 1) < 0x80);
            };
            let (mut ann, _) = sign_in("c1", "ann");
            assert_eq!(ann.subscribe_all(&[("ann/#", 1)]), [1]);
            ann.disconnect();
            say("1");
            // While it is not known what she may have, she gets nothing, and nothing of it is lost.
            sign_in("c2", "down");
            let (mut ann, connack) = sign_in("c1", "ann");
            assert_eq!((connack.code, connack.session_present), (0, true));
            ann.expect_disconnect(0x80);
            sign_in("c2", "up");
            let (mut ann, _) = sign_in("c1", "ann");
            assert_eq!(ann.receive().text(), "1");
            ann.disconnect();
            // Somebody else with her Client Identifier has none of it, neither what waits nor what comes.
            say("2");
            let (mut bob, connack) = sign_in("c1", "bob");
            assert_eq!((connack.code, connack.session_present), (0, true));
            bob.expect_nothing();
            say("3");
            bob.expect_nothing();
            assert_eq!(
                bob.subscribe_all(&[("ann/#", 1), ("bob/#", 1)]),
                [if version == V5 { NOT_AUTHORIZED } else { 0x80 }, 1]
            );
            bob.disconnect();
            // To begin anew.
            let mut connect = Connect::new(version, "c1");
            (connect.username, connect.password) = (Some("ann"), Some("correct horse"));
            assert_eq!(Client::connect_with(addr, &connect).1.code, 0);
        }
    });
    server.kill().and_then(|()| server.wait()).expect("it ends");
}

#[test]
fn http_auth_trusts_the_authorities_that_it_is_told() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let authority = Authority::new("of the server");
    let (mut server, url) = answers(Some(&authority.server(&["127.0.0.1"])));
    let told = format!(r#"{{"url": "{url}", "timeout_ms": 4500, "ca_file": {:?}}}"#, authority.file);
    for (config, expected) in [(told, 0), (format!(r#"{{"url": "{url}"}}"#), SERVER_UNAVAILABLE)] {
        with_plugins(&[("http-auth", &config)], |addr| {
            let mut connect = Connect::new(V5, "c1");
            (connect.username, connect.password) = (Some("ann"), Some("correct horse"));
            assert_eq!(Client::connect_with(addr, &connect).1.code, expected);
        });
    }
    server.kill().and_then(|()| server.wait()).expect("it ends");
}

/// The block of the README of `jwt` that makes a token, with something else in the place of what stands there, and what is to
/// be done with the token.
fn with_claims((there, instead): (&str, &str), and_then: &str) -> String {
    let commands = readme("jwt").split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).map(str::to_owned);
    let commands = commands.expect("the README makes a token");
    assert!(commands.contains(there), "{commands}");
    let commands = commands.replace(there, instead);
    let (making, _) = commands.split_once("mosquitto_pub").expect("it is used then");
    let output = output(Command::new("sh").args(["-c", &format!("{making}\n{and_then}")]));
    String::from_utf8(output.stdout).expect("text")
}

/// The same with another life time.
fn with_token(secs: u32, and_then: &str) -> String {
    with_claims(("+ 3600", &format!("+ {secs}")), and_then)
}

#[test]
fn jwt_lets_in_by_token_until_it_expires() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let config = example("jwt").replacen('{', r#"{"leeway_secs": 0,"#, 1);
    with_plugins(&[("jwt", &config)], |addr| {
        let sign_in = |client_id: &str, token: String| {
            let mut connect = Connect::new(V5, client_id);
            (connect.username, connect.password) = (Some("whoever"), Some(&*Box::leak(token.into_boxed_str())));
            Client::connect_with(addr, &connect)
        };
        let token = || with_token(3600, "printf %s \"$TOKEN\"");
        let (mut ann, connack) = sign_in("ann", token());
        assert_eq!(connack.code, 0);
        assert_eq!(ann.subscribe_all(&[("news/#", 0), ("commands/ann/x", 1), ("#", 0)]), [0, 1, NOT_AUTHORIZED]);
        assert_eq!(ann.publish("devices/ann/temperature", "21.5", 1), 0x10);
        assert_eq!(ann.publish("news/x", "no", 1), NOT_AUTHORIZED);
        assert_eq!(sign_in("ann", format!("{}x", token())).1.code, BAD_USER_NAME_OR_PASSWORD);
        assert_eq!(sign_in("bob", token()).1.code, 0x85);
        if have("sh", &["-c", "command -v mosquitto_pub"], "apt-get install mosquitto-clients") {
            let publish =
                "mosquitto_pub -i ann:2 -u ann -P \"$TOKEN\" -t devices/ann/temperature -q 1 -m 21.5 && echo ok";
            let publish = publish.replace("-i", &format!("-h {} -p {} -i", addr.ip(), addr.port()));
            assert_eq!(with_token(3600, &publish), "ok\n");
        }
        // On a busy machine it may have expired before it is shown: then with another one.
        let mut short = [2, 10, 50].into_iter().map(|secs| sign_in("ann", with_token(secs, "printf %s \"$TOKEN\"")));
        let (mut short, _) = short.find(|(_, connack)| connack.code == 0).expect("in time");
        short.expect_disconnect(MAXIMUM_CONNECT_TIME);
    });
}

/// A token that allows less: what waits because of the one before is not sent.
#[test]
fn jwt_holds_what_waits_back_from_a_client_whose_token_no_longer_allows_it() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let token = |rules: &str| with_claims((r#"{"subscribe": ["news/#"]}"#, rules), "printf %s \"$TOKEN\"");
    with_plugins(&[("jwt", &example("jwt"))], |addr| {
        for version in VERSIONS {
            let sign_in = |client_id: &str, rules: &str| {
                let token: &str = Box::leak(token(rules).into_boxed_str());
                let mut connect = Connect::new(version, client_id).persistent();
                (connect.username, connect.password) = (Some("ann"), Some(token));
                Client::connect_with(addr, &connect)
            };
            let (mut ann, _) = sign_in("ann", r#"{"subscribe": ["news/#", "secret/#"]}"#);
            assert_eq!(ann.subscribe_all(&[("news/#", 1), ("secret/#", 2)]), [1, 2]);
            ann.disconnect();
            let (mut editor, _) = sign_in("ann:editor", r##"{"publish": ["#"]}"##);
            for (topic, qos) in [("secret/1", 1), ("secret/2", 2), ("news/1", 1)] {
                editor.publish(topic, "waits", qos);
            }
            let (mut ann, connack) = sign_in("ann", r#"{"subscribe": ["news/#"]}"#);
            assert_eq!(connack.code, 0);
            assert_eq!(ann.receive().topic, "news/1");
            editor.publish("secret/3", "now", 1);
            ann.expect_nothing();
            // It is gone for good.
            ann.disconnect();
            let (mut ann, connack) = sign_in("ann", r#"{"subscribe": ["news/#", "secret/#"]}"#);
            assert_eq!(connack.code, 0);
            ann.expect_nothing();
            ann.disconnect();
            editor.disconnect();
        }
    });
}

#[test]
fn jwt_is_renewed_without_a_new_connection() {
    if !have("python3", &["--version"], "apt-get install python3") {
        return;
    }
    let token = |secs| with_token(secs, "printf %s \"$TOKEN\"");
    with_plugins(&[("jwt", &example("jwt"))], |addr| {
        let show = |token: String| Client::connect_with(addr, &connect_with_method("ann", "JWT", token.as_bytes()));
        assert_eq!(show("none".into()).1.code, BAD_USER_NAME_OR_PASSWORD);
        let (mut ann, connack) = show(token(3600));
        assert_eq!(connack.code, 0);
        assert_eq!(ann.subscribe_all(&[("news/#", 0), ("#", 0)]), [0, NOT_AUTHORIZED]);
        ann.send(auth("JWT", 0x19, token(7200).as_bytes()));
        assert_eq!(Body::of(&ann.expect_type(15)).u8(), 0);
        assert_eq!(ann.publish("devices/ann/temperature", "21.5", 1), 0x10);
        assert_eq!(ann.subscribe_all(&[("news/#", 0), ("#", 0)]), [0, NOT_AUTHORIZED]);
        ann.send(auth("JWT", 0x19, b"none"));
        ann.expect_disconnect(NOT_AUTHORIZED);
    });
}
