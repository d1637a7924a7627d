//! Plugins in C: the example, end to end, and how a table that does not fit is refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Process, TempDir, have, host_output};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5, packet, properties};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the workspace")
}

/// Whether there is a C compiler.
pub(crate) fn have_cc() -> bool {
    have("cc", &["--version"], "apt-get install gcc")
}

/// Builds a library from a source in C, as its README says and more strictly.
#[track_caller]
pub(crate) fn build(source: &Path, dir: &TempDir, name: &str, more: &[&str]) -> PathBuf {
    let library = dir.path().join(name);
    let output = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-shared", "-pthread", "-I"])
        .arg(root().join("plugin-api/include"))
        .args(more)
        .arg("-o")
        .arg(&library)
        .arg(source)
        .output()
        .expect("cc can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

fn example(dir: &TempDir) -> PathBuf {
    build(&root().join("examples/c-handler/handler.c"), dir, "libc_handler.so", &[])
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn example_in_c_decides_like_any_other_handler() {
    if !have_cc() {
        return;
    }
    for workers in ["1", "3"] {
        let dir = TempDir::new(&format!("c-handler-{workers}"));
        let library = example(&dir);
        let (process, addr) = Process::listening(["--workers", workers, "--plugin", library.to_str().expect("text")]);
        process.wait_log("the handler in C is ready");

        let nobody = Connect { username: Some("nobody"), ..Connect::new(V5, "who") };
        let (mut refused, connack) = Client::connect_with(addr, &nobody);
        assert_eq!(connack.code, 0x87);
        assert!(contains(&connack.properties, "nobody may not come in"), "{connack:02x?}");
        refused.expect_closed();

        let mut one = Client::connect(addr, V5, "one");
        let mut two = Client::connect(addr, V3_1_1, "two");
        process.wait_log("hello from C, two");
        // SUBACK has a code for each filter, in their order.
        let codes = one.subscribe_all(&[("count/#", 1), ("internal/#", 1), ("announcements", 2)]);
        assert_eq!(codes, [1, 0x87, 2]);

        // Each connection has its own count, of every message.
        assert_eq!(one.publish("count", "", 1), 0);
        assert_eq!(one.receive().payload, b"1");
        one.publish("elsewhere", "", 0);
        assert_eq!(one.publish("internal/x", "secret", 1), 0x87);
        assert_eq!(one.publish("count", "", 1), 0);
        let message = one.receive();
        assert_eq!((message.topic.as_str(), message.text()), ("count/one", "4"));
        two.publish("count", "", 1);
        let message = one.receive();
        assert_eq!((message.topic.as_str(), message.text()), ("count/two", "1"));

        // A service of the host's, and HANDLED.
        two.publish("announce", "hello", 1);
        let message = one.receive();
        assert_eq!((message.topic.as_str(), message.text(), message.qos), ("announcements", "hello", 1));

        two.disconnect();
        process.wait_log("goodbye from C, two: 2 published, kind 1");
        one.ping();
        drop(one);
        process.wait_log("goodbye from C, one: 4 published, kind 3");
        process.stop();
    }
}

#[test]
fn check_says_what_is_in_a_plugin_in_c() {
    if !have_cc() {
        return;
    }
    let dir = TempDir::new("c-check");
    let library = example(&dir);
    let output = host_output(["check", library.to_str().expect("text")]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["c-handler 1.0.0", "1.2, for C", "handle_connect, handle_publish, handle_subscribe, handle_disconnect"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = host_output(["check", library.to_str().expect("text"), "--plugin-config", "{\"a\": 1}"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("c-handler") && text.contains("this plugin has no configuration"), "{text}");
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    if !have_cc() {
        return;
    }
    let dir = TempDir::new("c-tables");
    let rows = [
        (".abi_major = 2, .size = sizeof(mqtt_plugin), .name = MQTT_TEXT(\"c\")", "built with plugin-api 2.0"),
        (".abi_major = 1, .size = 3, .name = MQTT_TEXT(\"c\")", "a size of"),
        ("MQTT_PLUGIN_HEAD", "its name has 0 bytes"),
        ("MQTT_PLUGIN_HEAD, .name = MQTT_TEXT(\"a\\xff\")", "its name is not UTF-8"),
        ("MQTT_PLUGIN_HEAD, .name = MQTT_TEXT(\"a\\nb\")", "control characters"),
        ("MQTT_PLUGIN_HEAD, .name = {0, 7}", "its name is not UTF-8"),
        (
            "MQTT_PLUGIN_HEAD, .name = MQTT_TEXT(\"c\"), .callbacks = MQTT_CALLBACK_BIT(MQTT_CALLBACK_AUTH)",
            "`handle_auth` of `mqtt_handler_plugin`: expected a function",
        ),
    ];
    for (number, (table, expected)) in rows.into_iter().enumerate() {
        let text = format!("#include \"mqtt_handler.h\"\nconst mqtt_plugin MQTT_PLUGIN_SYMBOL = {{{table}}};\n");
        let source = dir.file(&format!("{number}.c"), &text);
        let library = build(&source, &dir, &format!("{number}.so"), &["-Wno-missing-field-initializers"]);
        let output = host_output(["check", library.to_str().expect("text")]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{table}: {text}");
        let text = text.replace(", ", ": ");
        assert!(text.contains(&expected.replace(", ", ": ")), "{table}: {expected} in {text}");
    }
    // The least that there can be: a name.
    let text = "#include \"mqtt_handler.h\"\n\
                const mqtt_plugin MQTT_PLUGIN_SYMBOL = {MQTT_PLUGIN_HEAD, .name = MQTT_TEXT(\"least\")};\n";
    let library = build(&dir.file("least.c", text), &dir, "least.so", &["-Wno-missing-field-initializers"]);
    let (process, addr) = Process::listening(["--plugin", library.to_str().expect("text")]);
    let mut client = Client::connect(addr, V5, "c");
    client.send(packet(0x82, &[vec![0, 9], properties(V5, &[]), crate::mqtt::field("t"), vec![1]].concat()));
    client.expect_type(9);
    client.send(Publish::new("t", "x").bytes(V5));
    assert_eq!(client.receive().topic, "t");
    client.disconnect();
    process.stop();
}

#[test]
fn state_in_c_goes_over_at_a_swap() {
    if !have_cc() {
        return;
    }
    let dir = TempDir::new("c-swap");
    let library = example(&dir);
    crate::harness::with_configured(
        |builder| builder.plugin(&library, "{}"),
        |server| {
            let mut client = Client::connect(server.local_addr(), V5, "one");
            client.subscribe("count/#", 1);
            let mut count = || {
                client.publish("count", "", 1);
                let message = client.receive();
                format!("{} {}", message.topic, message.text())
            };
            assert_eq!(count(), "count/one 1");
            let probation = std::time::Duration::from_secs(3600);
            server.swap(&host::SwapRequest { probation, ..host::SwapRequest::new(&library) }).expect("it fits");
            assert_eq!(count(), "count/one 2");
            server.rollback(None).expect("it is on probation");
            assert_eq!(count(), "count/one 3");
        },
    );
}
