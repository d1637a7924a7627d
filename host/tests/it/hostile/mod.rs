//! Peers that send what they may not send, or behave as nobody should. Each [`Row`] says which bytes it gets back, to the
//! last one; after each of them the server serves a new client, and has let go of what it held for this one.
//!
//! `peers` has those whose bytes are in order, `flood` makes malformed input without end, and `canary` measures what a
//! client that behaves notices of all of it.

mod canary;
mod connect;
mod flood;
mod framing;
mod order;
mod packets;
mod peers;
mod properties;
mod strings;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{PATIENCE, Process, TempDir, eventually};
use crate::mqtt::{Client, Connect, V5, properties};

/// What a peer does, and what it gets.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// `family/what/version`; it stays, so that it can be referred to.
    name: String,
    /// Whether it connects first, as any client, with this version; CONNACK is not part of the answer.
    connected: Option<u8>,
    /// What it sends then, in one piece.
    bytes: Vec<u8>,
    /// Whether it shuts its sending side down behind that.
    finishes: bool,
    /// All that it gets.
    answer: Vec<u8>,
    end: End,
}

/// How a row ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server closes the connection.
    Closed,
    /// The connection goes on: PINGREQ is answered behind all the rest.
    Serves,
}

impl Row {
    /// Sent by a client that has connected; the connection goes on.
    fn answered(name: impl Into<String>, version: u8, bytes: Vec<u8>, answer: &[u8]) -> Self {
        let name = format!("{}/v{version}", name.into());
        Self { name, connected: Some(version), bytes, finishes: false, answer: answer.to_vec(), end: End::Serves }
    }

    /// Sent by a client that has connected, which is closed; in 5.0 it is told why.
    fn disconnected(name: impl Into<String>, version: u8, bytes: Vec<u8>, reason_code: u8) -> Self {
        let answer = if version == V5 { &[0xe0, 1, reason_code][..] } else { &[] };
        Self { end: End::Closed, ..Self::answered(name, version, bytes, answer) }
    }

    /// Sent by a client that has connected, which is closed without a word.
    fn hung_up(name: impl Into<String>, version: u8, bytes: Vec<u8>) -> Self {
        Self { end: End::Closed, ..Self::answered(name, version, bytes, &[]) }
    }

    /// Sent instead of a CONNECT, or as one: answered with these bytes and closed.
    fn refused(name: impl Into<String>, version: u8, bytes: Vec<u8>, answer: &[u8]) -> Self {
        Self { connected: None, end: End::Closed, ..Self::answered(name, version, bytes, answer) }
    }

    /// A CONNECT that is refused: in 5.0 with CONNACK, which 3.x has not got for this.
    fn not_accepted(name: impl Into<String>, version: u8, bytes: Vec<u8>, reason_code: u8) -> Self {
        let answer = if version == V5 { &[0x20, 3, 0, reason_code, 0][..] } else { &[] };
        Self::refused(name, version, bytes, answer)
    }
}

/// All rows of all families.
fn all() -> Vec<Row> {
    let rows: Vec<Row> =
        [connect::rows(), framing::rows(), order::rows(), packets::rows(), properties::rows(), strings::rows()]
            .concat();
    let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "a name is given twice");
    rows
}

/// Goes through a row. `Err` says what came instead.
fn meet(addr: SocketAddr, row: &Row) -> Result<(), String> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let mut socket = TcpStream::connect(addr).map_err(|error| format!("connecting: {error}"))?;
    socket.set_nodelay(true).expect("an open socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    if let Some(version) = row.connected {
        let name = format!("hostile-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        socket.write_all(&Connect::new(version, name).bytes()).map_err(|error| format!("CONNECT: {error}"))?;
        let mut connack = [0; 2];
        socket.read_exact(&mut connack).map_err(|error| format!("CONNACK: {error}"))?;
        let mut rest = vec![0; connack[1].into()];
        socket.read_exact(&mut rest).map_err(|error| format!("CONNACK: {error}"))?;
        if connack[0] != 0x20 || rest[1] != 0 {
            return Err(format!("CONNACK: {connack:02x?} {rest:02x?}"));
        }
    }
    // The server may close before it has read all of it.
    let _ = socket.write_all(&row.bytes);
    let mut expected = row.answer.clone();
    if row.end == End::Serves {
        let _ = socket.write_all(&[0xc0, 0]);
        expected.extend([0xd0, 0]);
    }
    if row.finishes {
        let _ = socket.shutdown(Shutdown::Write);
    }
    let mut got = Vec::new();
    let closed = read_answer(&mut socket, &mut got, &expected, row.end)?;
    if got != expected || closed != (row.end == End::Closed) {
        let sent = &row.bytes[..row.bytes.len().min(100)];
        let how = if closed { "and the end" } else { "and no end" };
        return Err(format!("got {got:02x?} {how}, expected {expected:02x?}; sent {sent:02x?}"));
    }
    Ok(())
}

/// Reads until the end, or, where the connection goes on, until there is as much as is expected. Says whether it has ended.
fn read_answer(socket: &mut TcpStream, got: &mut Vec<u8>, expected: &[u8], end: End) -> Result<bool, String> {
    let mut buffer = [0; 1 << 14];
    while end == End::Closed || got.len() < expected.len() {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("after {got:02x?}, expected {expected:02x?}: {error}")),
        }
    }
    Ok(false)
}

/// A `host` of its own, with bounds that are low enough to get to.
struct Target {
    process: Process,
    addr: SocketAddr,
    _config: TempDir,
}

impl Target {
    fn start(workers: usize, limits: &str) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let config = TempDir::new(&format!("hostile-{}", SERIAL.fetch_add(1, Ordering::Relaxed)));
        let file = config.file("host.toml", &format!("[limits]\n{limits}"));
        let (workers, file) = (workers.to_string(), file.to_str().expect("UTF-8").to_owned());
        let (process, addr) = Process::listening(["--workers", &workers, "--config", &file]);
        Self { process, addr, _config: config }
    }

    /// Open files of the process.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }

    /// Memory of the process that is not swapped out, in bytes.
    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }

    /// Time that the process has had a core for, in ticks of the system.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        let (_, behind_name) = stat.rsplit_once(')').expect("the name of the program is in parentheses");
        behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// A client that comes and goes as it should.
    #[track_caller]
    fn serve(&self) {
        let mut client = Client::connect(self.addr, V5, "");
        client.ping();
        client.disconnect();
    }
}

/// Runs rows one after the other against servers with one worker and with three.
#[track_caller]
fn check(rows: &[Row]) {
    assert!(rows.len() > 1, "there is something to run");
    for workers in [1, 3] {
        let target = Target::start(workers, LIMITS);
        target.serve();
        let quiet = target.process.log().len();
        let mut wrong = Vec::new();
        let mut descriptors = usize::MAX;
        eventually("the first client has gone", || {
            let before = std::mem::replace(&mut descriptors, target.descriptors());
            before == descriptors
        });
        for row in rows {
            if let Err(what) = meet(target.addr, row) {
                wrong.push(format!("{}: {what}", row.name));
                continue;
            }
            target.serve();
            eventually(&row.name, || target.descriptors() <= descriptors);
        }
        assert!(wrong.is_empty(), "with {workers} workers, {} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
        // Nobody fills the disk with what strangers send.
        assert_eq!(target.process.log()[quiet..], [""; 0]);
        target.process.stop();
    }
}

/// Bounds for [`check`] and for the canary: low where a row goes up to them.
const LIMITS: &str = r#"
connect_timeout = "60s"
packet_bytes_max = "1MiB"
receive_maximum = 16
topic_alias_max = 8
"#;

/// The packets with this name, and with properties in 5.0.
fn with_properties(version: u8, first: u8, head: &[u8], list: &[u8], tail: &[u8]) -> Vec<u8> {
    crate::mqtt::packet(first, &[head, &properties(version, list), tail].concat())
}
