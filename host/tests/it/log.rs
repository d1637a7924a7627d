//! The log of a host whose standard error nobody reads: clients are served all the same.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};

use crate::harness::{eventually, host_command, library};
use crate::mqtt::{Client, Publish, V5};

/// A host whose log is read by the test, or not. It is killed when this is dropped.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    client: Client,
}

impl Unread {
    /// Starts it with a plugin that logs each message, and reads until it listens.
    fn start() -> Self {
        let steward = library("steward");
        let mut command = host_command();
        command.args(["--listen", "127.0.0.1:0", "--workers", "1", "--plugin"]).arg(steward);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("host can be run");
        let mut log = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let mut line = String::new();
        while !line.contains("listening on ") {
            line.clear();
            assert!(log.read_line(&mut line).expect("text") > 0, "it has ended");
        }
        let addr = line.split("listening on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let addr = addr.and_then(|addr| addr.parse().ok()).expect("an address");
        Self { child, log, client: Client::connect(addr, V5, "c") }
    }

    /// Has it log so many lines, of more than a hundred bytes each.
    fn has_logged(&mut self, lines: usize) {
        let publish = Publish::new("do", "what").bytes(V5);
        for _ in 0..lines / 100 {
            self.client.send(publish.repeat(100));
            self.client.ping();
        }
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_are_served_while_nobody_reads_the_log_and_lost_lines_are_counted() {
    const LINES: usize = 10_000;
    let mut host = Unread::start();
    host.has_logged(LINES);
    // Somebody reads again. What is there by then is whole, in order, and says how much is missing.
    let (mut there, mut lost) = (0, 0);
    let mut line = String::new();
    while there + lost < LINES {
        line.clear();
        assert!(host.log.read_line(&mut line).expect("text") > 0, "{there} lines are there, {lost} are lost");
        if line.contains("a command") {
            assert!(line.ends_with("bytes=\"4\"\n"), "{line}");
            there += 1;
        } else if line.contains("lines of the log are missing here") {
            let number = line.trim_end().rsplit('=').next().and_then(|number| number.parse::<usize>().ok());
            lost += number.unwrap_or_else(|| panic!("a number in {line}"));
        }
    }
    println!("{there} lines are there, {lost} are lost");
    assert!(there > 1000 && lost > 0, "{there} lines are there, {lost} are lost");
    // From then on nothing is missing.
    host.has_logged(100);
    let mut there = 0;
    while there < 100 {
        line.clear();
        assert!(host.log.read_line(&mut line).expect("text") > 0, "{there} lines");
        assert!(!line.contains("are missing here"), "{line}");
        there += usize::from(line.contains("a command"));
    }
}

#[test]
fn log_that_nobody_reads_does_not_keep_the_host_from_stopping() {
    let mut host = Unread::start();
    host.has_logged(10_000);
    host.end(rustix::process::Signal::TERM);
    let mut status = None;
    eventually("it ends", || {
        status = host.child.try_wait().expect("its state can be read");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}
