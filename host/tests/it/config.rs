//! The configuration file, the environment, and the commands that look at them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use host::config::reference;

use crate::harness::{Process, TempDir, host_command, host_output, output, package_library};
use crate::mqtt::{Client, V5};

/// The lines of CONFIG.md between which the tables stand.
const BEGIN: &str = "--test it reference -->\n";
const END: &str = "<!-- end -->\n";

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn reference_has_every_key_as_it_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFIG.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the comment before the tables");
    let (found, behind) = rest.split_once(END).expect("the comment behind the tables");
    let expected = reference::tables();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&file, format!("{before}{BEGIN}{expected}{END}{behind}")).unwrap();
    } else {
        assert!(found == expected, "CONFIG.md is not up to date: UPDATE_REFERENCE=1 writes\n{expected}");
    }
}

#[test]
fn printed_file_is_taken_as_it_is() {
    let dir = TempDir::new("config-default");
    let printed = host_output(["config", "default"]);
    assert_eq!((printed.status.code(), &*stderr(&printed)), (Some(0), ""));
    let file = dir.file("host.toml", &stdout(&printed));
    let checked = host_output(["config".as_ref(), "check".as_ref(), file.as_os_str()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert_eq!(stdout(&checked), format!("{}\n  changes nothing\nin order\n", file.display()));
    let (process, _) = Process::listening(["--config".as_ref(), file.as_os_str()]);
    process.stop();
}

/// The program, with a variable.
fn with(name: &str, value: &str) -> Command {
    let mut command = host_command();
    command.env(name, value);
    command
}

#[test]
fn server_is_what_the_file_the_environment_and_the_command_line_say() {
    let dir = TempDir::new("config-layers");
    let library = package_library("hello-handler");
    let text = format!(
        "workers = 1\ncontrol = \"control.sock\"\n[log]\nformat = \"json\"\n[limits]\nreceive_maximum = 7\n\
         topic_alias_max = 9\npacket_bytes_max = \"64KiB\"\n\
         [[listener]]\nurl = \"127.0.0.1:0\"\n[[listener]]\nurl = \"tcp://[::1]:0\"\nname = \"six\"\n\
         [[plugin]]\npath = {:?}\nconfig = {{}}\n",
        library
    );
    let file = dir.file("host.toml", &text);
    let mut command = with("HOST_CONFIG", file.to_str().unwrap());
    command.env("HOST_RECEIVE_MAXIMUM", "8").env("HOST_WORKER", "2").args(["--topic-alias-max", "0"]);
    let mut process = Process::spawn(&mut command);
    let addr = process.wait_listening();
    let line = process.wait_log("listening on [::1]:");
    assert!(line.starts_with('{') && line.contains("\"workers\":1") && line.contains("hello"), "{line}");
    process.wait_log("the variable HOST_WORKER is not known: did you mean HOST_WORKERS?");
    assert!(dir.path().join("control.sock").exists(), "it is beside the file");
    let mut client = Client::open(addr, V5);
    client.send(crate::mqtt::Connect::new(V5, "c").bytes());
    // Receive Maximum 8 of the environment, Maximum Packet Size of the file, no Topic Aliases.
    client.expect(&[0x20, 11, 0, 0, 8, 0x21, 0, 8, 0x27, 0, 1, 0, 0]);
    process.stop();
}

#[test]
fn check_tells_what_differs_and_what_is_wrong() {
    let dir = TempDir::new("config-check");
    let library = package_library("acl");
    let text = format!(
        "allow_anonymous = true\n[limits]\nidle_max = \"1h\"\n[[listener]]\nurl = \"127.0.0.1:0\"\nname = \"front\"\n\
         limits.receive_maximum = 7\n[[plugin]]\npath = {library:?}\nconfig = {{ users = [] }}\n"
    );
    let file = dir.file("host.toml", &text);
    let name = file.display();
    let checked = output(with("HOST_WORKERS", "2").args(["config", "check"]).arg(&file));
    let said = stdout(&checked);
    assert_eq!(checked.status.code(), Some(0), "{said}{}", stderr(&checked));
    for part in [
        &*format!("{name}\n  workers = 2 (default one per core; HOST_WORKERS)\n"),
        &format!("  allow_anonymous = true (default false; {name}:1)\n"),
        &format!("  limits.idle_max = 1h (default 0s; {name}:3)\n"),
        "listener front\n  url = tcp://127.0.0.1:0\n  name = front\n  limits.receive_maximum = 7\n",
        "\nacl ",
        "\nchain: acl\n",
        "\nin order\n",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }

    let wrong =
        dir.file("wrong.toml", "worker = 1\n[limits]\nidle_max = 1\n[[listner]]\n[[plugin]]\npath = \"no.so\"\n");
    let checked = host_output(["config".as_ref(), "check".as_ref(), wrong.as_os_str()]);
    let said = stderr(&checked);
    assert_eq!((checked.status.code(), stdout(&checked).as_str()), (Some(2), ""));
    let name = wrong.display();
    for part in [
        format!("{name}:1:1: there is no `worker` in the configuration: did you mean `workers`?"),
        format!("{name}:3:12: idle_max is 1: expected a time from 0s to 365d"),
        format!("{name}:4:3: there is no `listner` in the configuration: did you mean `listener`?"),
    ] {
        assert!(said.contains(&part), "{part} in {said}");
    }
    for (text, expected) in [
        ("[[plugin]]\npath = \"no.so\"\n", "there is no such file"),
        ("[limits]\nkeep_alive_secs_min = 2\nkeep_alive_secs_max = 1\n", ":2: the limit keep_alive_secs_min is 2s"),
        ("[[listener]]\nurl = \"127.0.0.1:1\"\n[[listener]]\nurl = \"127.0.0.1:1\"\n", "two listeners are at"),
        (
            "[[listener]]\nurl = \"127.0.0.1:1\"\n[[listener]]\nurl = \"ws://127.0.0.1:1\"\n",
            "two listeners are at ws://127.0.0.1:1/mqtt: give each a place of its own",
        ),
        (
            "allow_anonymous = true\n[[listener]]\nurl = \"0.0.0.0:1\"\n[[listener]]\nurl = \"127.0.0.1:1\"\n",
            "two listeners cannot be at tcp://0.0.0.0:1 and tcp://127.0.0.1:1 at once",
        ),
        ("user = \"nobody-has-this-name\"\n", "`nobody-has-this-name`"),
        ("data_dir = \"w.toml\"\n", "w.toml is no directory"),
        ("[[listener]]\nurl = \"0.0.0.0:1\"\n", "will not listen at 0.0.0.0:1: other machines"),
        ("[[listener]]\nurl = \"tls://127.0.0.1:1\"\ncertificate = \"no.pem\"\nprivate_key = \"no.pem\"\n", "no.pem"),
        (
            "[[listener]]\nurl = \"tcp://0.0.0.0:1\"\ncertificate = \"x\"\nclient_certificates = \"required\"\n",
            "w.toml:3:1: certificate is for tls://",
        ),
        ("[[listener]]\nurl = \"127.0.0.1:1\"\ndual_stack = true\n", "dual_stack is for listeners at [::]"),
        (
            "[limits]\nretain_available = false\n[[listener]]\nurl = \"127.0.0.1:1\"\nlimits.retain_available = true\n",
            "cannot listen at 127.0.0.1:1: retain_available is true for it",
        ),
    ] {
        let file = dir.file("w.toml", text);
        for check in [["config", "check"], ["check", "--config"]] {
            let checked = output(host_command().args(check).arg(&file));
            assert_eq!(checked.status.code(), Some(2), "{check:?} {text}");
            assert!(stderr(&checked).contains(expected), "{check:?} {text}: {}", stderr(&checked));
        }
    }
}

#[test]
fn who_reads_only_the_beginning_is_not_shown_a_panic() {
    let acl = package_library("acl");
    for args in
        [&["config", "check"][..], &["check", acl.to_str().unwrap()], &["check", "--schema", acl.to_str().unwrap()]]
    {
        let (reads, writes) = std::io::pipe().unwrap();
        drop(reads);
        let ended = host_command().args(args).stdout(writes).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let ended = ended.wait_with_output().unwrap();
        let said = stderr(&ended);
        assert!(ended.status.code() == Some(0) && !said.contains("panicked"), "{args:?}: {said}");
    }
}
