//! A successor that ends, or is silent, at a certain step: this program, started as one.

use std::io::{Read, Write};
use std::os::fd::AsRawFd as _;

use super::*;

/// What it does last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Hello,
    Welcome,
    Ready,
    SomeState,
    AllState,
    Taken,
    Go,
}

impl Step {
    pub(super) const ALL: [Self; 7] =
        [Self::Hello, Self::Welcome, Self::Ready, Self::SomeState, Self::AllState, Self::Taken, Self::Go];

    /// The steps of the upgrade that it may spoil: what has been sent to it may be on its way when it dies.
    pub(super) fn may_fail_at(self) -> &'static [&'static str] {
        match self {
            Self::Hello | Self::Welcome => &["ready"],
            Self::Ready => &["ready", "state", "taken"],
            Self::SomeState => &["state", "taken"],
            Self::AllState => &["taken"],
            Self::Taken | Self::Go => &["go"],
        }
    }

    /// A program that does it.
    pub(super) fn player(self, dir: &TempDir) -> PathBuf {
        let this = std::env::current_exe().unwrap();
        let line = format!(
            "PLAYS_SUCCESSOR={self:?} exec {} --exact upgrade::step::plays_a_successor_where_it_is_asked_to --nocapture",
            this.display()
        );
        script(dir, "player", &line)
    }
}

struct Line(std::os::unix::net::UnixStream);

impl Line {
    fn send(&mut self, kind: u16, bytes: &[u8]) {
        let mut message = [kind.to_le_bytes(), [0, 0]].concat();
        message.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        message.extend(bytes);
        self.0.write_all(&message).unwrap();
    }

    /// The kind of the next message. Descriptors that come with it are lost.
    fn receive(&mut self) -> u16 {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        std::io::copy(&mut (&mut self.0).take(length.into()), &mut std::io::sink()).unwrap();
        u16::from_le_bytes([head[0], head[1]])
    }
}

const HELLO: u16 = 1;
const READY: u16 = 2;
const TAKEN: u16 = 3;
const WELCOME: u16 = 16;
const END: u16 = 22;
const GO: u16 = 23;

/// Does nothing, unless a host has started this program in the place of another host.
#[test]
fn plays_a_successor_where_it_is_asked_to() {
    let Ok(asked) = std::env::var("PLAYS_SUCCESSOR") else { return };
    let last = Step::ALL.into_iter().find(|step| format!("{step:?}") == asked).expect("a step");
    let socket = std::io::stdin();
    assert_eq!(socket.as_raw_fd(), 0);
    let mut line = Line(std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned().unwrap().into());
    line.0.set_nonblocking(false).unwrap();
    let die = |here: Step| {
        if here == last {
            kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        }
    };
    let version = host::upgrade::VERSION.to_le_bytes();
    let text = |text: &str| [&u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
    let pid = std::process::id().to_le_bytes();
    line.send(HELLO, &[&text("MQTT host upgrade")[..], &version, &text("played"), &pid, &version].concat());
    die(Step::Hello);
    assert_eq!(line.receive(), WELCOME);
    die(Step::Welcome);
    line.send(READY, b"");
    die(Step::Ready);
    line.receive();
    die(Step::SomeState);
    while line.receive() != END {}
    die(Step::AllState);
    line.send(TAKEN, b"");
    die(Step::Taken);
    assert_eq!(line.receive(), GO);
    die(Step::Go);
}
