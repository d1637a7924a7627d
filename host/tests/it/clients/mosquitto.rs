//! mosquitto_pub, mosquitto_sub and mosquitto_rr.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::{Host, INSTALL, Way, cases, with_hosts};
use crate::harness::{TempDir, have, output};
use crate::mqtt::{Client, Publish, V5, field};

/// [MQTT-7.0.0-2@3.1.1]
#[test]
fn mosquitto_does_everything_at_every_version() {
    // `--help` of some ends with 1 in some versions, so it is not asked for.
    let there = "command -v mosquitto_pub && command -v mosquitto_sub && command -v mosquitto_rr";
    if !have("sh", &["-c", there], INSTALL) {
        return;
    }
    std::thread::scope(|scope| {
        for level in [3, 4, 5] {
            scope.spawn(move || {
                with_hosts(|host| {
                    for way in [Way::Tcp, Way::Tls, Way::Unix].into_iter().filter(|way| way.levels().contains(&level)) {
                        for case in cases(level) {
                            println!("mosquitto {way:?} {level} {case}");
                            Broker { host, level, way }.run(case);
                        }
                    }
                });
            });
        }
    });
}

#[derive(Clone, Copy)]
struct Broker<'a> {
    host: &'a Host,
    level: u8,
    way: Way,
}

/// A subscriber that is there: its SUBACK has come. It is killed when this is dropped.
struct Subscriber {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker<'_> {
    fn command(self, program: &str, args: &[&str]) -> Command {
        let version = ["31", "311", "5"][usize::from(self.level - 3)];
        // Line by line, whatever its output is.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-V", version]).args(args);
        match self.way {
            Way::Unix => command.arg("--unix").arg(self.host.socket()),
            way => command.args(["-h", "localhost", "-p", &self.host.addr(way).port().to_string()]),
        };
        if self.way.has_tls() {
            command.arg("--cafile").arg(&self.host.authority.file);
        }
        command
    }

    fn publish(self, args: &[&str]) {
        let published = output(&mut self.command("mosquitto_pub", args));
        assert!(published.status.success(), "{args:?}: {published:?}");
    }

    /// Publishes each of these lines.
    fn publish_lines(self, args: &[&str], lines: &str) {
        let mut command = self.command("mosquitto_pub", args);
        let mut child = command.arg("-l").stdin(Stdio::piped()).spawn().expect("mosquitto_pub can be run");
        child.stdin.take().expect("it is a pipe").write_all(lines.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    }

    /// What a subscriber prints until it ends by itself.
    fn read(self, args: &[&str]) -> String {
        let read = output(&mut self.command("mosquitto_sub", args));
        assert!(read.status.success(), "{args:?}: {read:?}");
        String::from_utf8(read.stdout).expect("text")
    }

    fn subscribe(self, args: &[&str]) -> Subscriber {
        let mut command = self.command("mosquitto_sub", args);
        // It says what it does; SUBACK is the last before messages.
        command.args(["-d", "-W", "100"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("mosquitto_sub can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("Subscribed ")), "SUBACK: {args:?}");
        let said = |line: &String| line.starts_with("Client ") || line.starts_with("Subscribed ");
        Subscriber { child, lines: Box::new(lines.filter(move |line| !said(line))) }
    }

    fn run(self, case: &str) {
        match case {
            "qos_0" => self.qos("0"),
            "qos_1" => self.qos("1"),
            "qos_2" => self.qos("2"),
            "retain" => self.retain(),
            "will" => self.will(),
            "resume" => self.resume(),
            "shared" => self.shared(),
            "request_response" => self.request_response(),
            "large" => self.large(),
            "user_properties" => self.user_properties(),
            "topic_alias" => self.topic_alias(),
            _ => panic!("{case}"),
        }
    }

    fn qos(self, qos: &str) {
        for granted in ["0", "1", "2"] {
            let subscriber = self.subscribe(&["-q", granted, "-t", "m/+", "-F", "%t %q %r %p"]);
            self.publish_lines(&["-q", qos, "-t", "m/x"], "a\nb\nc\n");
            let received: Vec<_> = subscriber.lines_of(3);
            let lower = qos.min(granted);
            assert_eq!(received, ["a", "b", "c"].map(|text| format!("m/x {lower} 0 {text}")));
        }
    }

    fn retain(self) {
        for qos in ["0", "1", "2"] {
            self.publish(&["-r", "-q", qos, "-t", "retain/x", "-m", "old"]);
            self.publish(&["-r", "-q", "1", "-t", "retain/x", "-m", "new"]);
            assert_eq!(self.read(&["-t", "retain/#", "-C", "1", "-W", "100", "-F", "%r %p"]), "1 new\n");
        }
        self.publish(&["-r", "-q", "1", "-t", "retain/x", "-n"]);
        let subscriber = self.subscribe(&["-t", "retain/#"]);
        self.publish(&["-q", "1", "-t", "retain/y", "-m", "live"]);
        assert_eq!(subscriber.lines_of(1), ["live"]);
    }

    fn will(self) {
        let mut observer = self.subscribe(&["-q", "2", "-t", "will/+", "-F", "%q %p"]);
        for qos in ["0", "1", "2"] {
            let will = ["-t", "x", "--will-topic", "will/x", "--will-payload", "gone", "--will-qos", qos];
            drop(self.subscribe(&will));
            assert_eq!(observer.lines.next().expect("the will"), format!("{qos} gone"));
        }
        let orderly = ["-t", "x", "-E", "--will-topic", "will/x", "--will-payload", "not to be seen"];
        self.read(&orderly);
        self.publish(&["-q", "1", "-t", "will/end", "-m", "end"]);
        assert_eq!(observer.lines.next().expect("the end"), "1 end");
    }

    fn resume(self) {
        let mut keeper = vec!["-c", "-i", "mosquitto-keeper", "-q", "2", "-t", "kept/+"];
        if self.level == V5 {
            keeper.extend(["-x", "100"]);
        }
        // Ends as soon as it has subscribed.
        self.read(&[&keeper[..], &["-E"]].concat());
        let numbers: String = (0..200).map(|number| format!("{number}\n")).collect();
        self.publish_lines(&["-q", "1", "-t", "kept/1"], &numbers);
        self.publish_lines(&["-q", "2", "-t", "kept/2"], &numbers);
        let got = self.read(&[&keeper[..], &["-C", "400", "-W", "100", "-F", "%t %p"]].concat());
        for topic in ["kept/1 ", "kept/2 "] {
            let got: String =
                got.lines().filter_map(|line| line.strip_prefix(topic)).map(|n| format!("{n}\n")).collect();
            assert_eq!(got, numbers, "{topic}");
        }
    }

    fn shared(self) {
        let args = ["-q", "1", "-t", "$share/group/shared/+", "-t", "end"];
        let members = [self.subscribe(&args), self.subscribe(&args)];
        let sent: String = (0..40).map(|number| format!("{number}\n")).collect();
        self.publish_lines(&["-q", "1", "-t", "shared/x"], &sent);
        self.publish(&["-q", "1", "-t", "end", "-m", "end"]);
        let of_member = |mut member: Subscriber| -> Vec<u8> {
            member.lines.by_ref().take_while(|line| line != "end").map(|line| line.parse().expect("a number")).collect()
        };
        let mut numbers = members.map(of_member).concat();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    }

    fn request_response(self) {
        let mut responder = Client::connect(self.host.addr(Way::Tcp), V5, "responder");
        responder.subscribe("request/+", 1);
        let mut args = vec!["-q", "1", "-t", "request/double", "-e", "response/me", "-m", "21", "-W", "100"];
        if self.level == V5 {
            args.extend(["-D", "publish", "correlation-data", "c1"]);
        }
        let mut command = self.command("mosquitto_rr", &args);
        let asked = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("mosquitto_rr can be run");
        let request = responder.receive();
        assert_eq!(request.text(), "21");
        let correlation = [vec![0x09], field("c1")].concat();
        let mut properties = Vec::new();
        if self.level == V5 {
            assert_eq!(request.properties, [&correlation[..], &[0x08], &field("response/me")].concat());
            properties = correlation;
        }
        responder.publish_message(Publish { properties, ..Publish::new("response/me", "42").qos(1, 0) });
        let answered = asked.wait_with_output().expect("it ends");
        assert_eq!((answered.status.success(), &answered.stdout[..]), (true, &b"42\n"[..]));
    }

    fn large(self) {
        let dir = TempDir::new("large");
        let content: String = (0..1 << 20).map(|number: u32| char::from(b'a' + (number % 23) as u8)).collect();
        let file = dir.file("payload", &content);
        for qos in ["0", "1", "2"] {
            let mut subscriber = self.subscribe(&["-q", "2", "-N", "-t", "large", "-C", "1"]);
            self.publish(&["-q", qos, "-t", "large", "-f", file.to_str().expect("UTF-8")]);
            let got = subscriber.lines.next().expect("the message");
            assert!(got.starts_with(&content), "QoS {qos}: {} bytes", got.len());
        }
    }

    fn user_properties(self) {
        let subscriber = self.subscribe(&["-q", "1", "-t", "properties", "-F", "%P|%C|%F|%p"]);
        let mut args = vec!["-q", "1", "-t", "properties", "-m", "x"];
        args.extend(["-D", "publish", "content-type", "text/plain"]);
        args.extend(["-D", "publish", "payload-format-indicator", "1"]);
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "1")] {
            args.extend(["-D", "publish", "user-property", name, value]);
        }
        self.publish(&args);
        assert_eq!(subscriber.lines_of(1), ["b:1 a:2 b:1|text/plain|1|x"]);
    }

    fn topic_alias(self) {
        let subscriber = self.subscribe(&["-q", "1", "-t", "alias/#", "-F", "%t %p"]);
        // The topic goes with the first line only.
        self.publish_lines(&["-q", "1", "-t", "alias/one", "-D", "publish", "topic-alias", "1"], "a\nb\nc\n");
        assert_eq!(subscriber.lines_of(3), ["alias/one a", "alias/one b", "alias/one c"]);
    }
}

impl Subscriber {
    fn lines_of(mut self, count: usize) -> Vec<String> {
        self.lines.by_ref().take(count).collect()
    }
}
