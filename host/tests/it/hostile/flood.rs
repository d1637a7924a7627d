//! Malformed input without end: packets that a row sends, or that are in order, changed at random.
//!
//! `HOSTILE_INPUTS` says how many (`HOSTILE_INPUTS=200000 cargo test -p host --test it hostile::flood`); an input has a
//! number that makes it again.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use super::peers::abrupt;
use super::{LIMITS, Row, Target, all};
use crate::harness::{PATIENCE, eventually};
use crate::mqtt::{Connect, VERSIONS};
use crate::random::Random;

/// What CI runs.
const INPUTS: u64 = 4000;
/// Connections that send at one time.
const THREADS: u64 = 4;

/// Input number `number`: whether CONNECT goes before it, and with which version, and its bytes.
fn input(number: u64, rows: &[Row]) -> (Option<u8>, Vec<u8>) {
    let mut random = Random(number);
    let row = &rows[random.below(rows.len())];
    let mut bytes = row.bytes.clone();
    if random.below(4) == 0 {
        bytes.extend_from_slice(&rows[random.below(rows.len())].bytes);
    }
    for _ in 0..=random.below(4) {
        mutate(&mut bytes, &mut random);
    }
    let connected = if random.below(8) == 0 { Some(VERSIONS[random.below(3)]) } else { row.connected };
    (connected, bytes)
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TELLING: [u8; 12] = [0, 1, 2, 4, 0x26, 0x7f, 0x80, 0x82, 0xc0, 0xf4, 0xfe, 0xff];
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    // Mostly near the front, where lengths and flags are.
    let reach = if random.below(2) == 0 { bytes.len() } else { bytes.len().min(16) };
    let at = random.below(reach);
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at] = TELLING[random.below(TELLING.len())],
        3 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
        4 => drop(bytes.remove(at)),
        5 => bytes.truncate(at),
        _ => {
            let end = (at + random.below(32)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

/// Sends an input and then PINGREQ. Says whether that was answered: if not, the input was refused, or is not complete.
fn send(addr: SocketAddr, number: u64, (connected, bytes): &(Option<u8>, Vec<u8>)) -> Result<bool, String> {
    let mut socket = abrupt(addr);
    socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    let connect = connected.map(|version| Connect::new(version, format!("flood-{number}")).bytes());
    // In two pieces now and then; the server may close before it has read all of it.
    let sent = [connect.as_deref().unwrap_or_default(), bytes, &[0xc0, 0]].concat();
    let (first, second) = sent.split_at(if number.is_multiple_of(5) { sent.len() / 2 } else { sent.len() });
    let _ = socket.write_all(first);
    let _ = socket.write_all(second);
    let _ = socket.shutdown(Shutdown::Write);
    let mut got = Vec::new();
    match socket.read_to_end(&mut got) {
        Ok(_) => Ok(got.ends_with(&[0xd0, 0])),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(format!("input {number}: {error} after {got:02x?}: {connected:?} {bytes:02x?}")),
    }
}

#[test]
fn malformed_input_neither_crashes_nor_hangs_the_server() {
    let inputs = std::env::var("HOSTILE_INPUTS").map_or(INPUTS, |inputs| inputs.parse().expect("a number"));
    // Rows that are large on purpose would make it slow, and are sent often enough elsewhere.
    let rows: Vec<Row> = all().into_iter().filter(|row| row.bytes.len() < 5000).collect();
    let target = Target::start(2, LIMITS);
    target.serve();
    let (descriptors, before) = (target.descriptors(), target.resident_bytes());
    let refused: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (target, rows) = (&target, &rows);
                scope.spawn(move || {
                    let mut refused = 0;
                    for number in (thread..inputs).step_by(THREADS as usize) {
                        let answered = send(target.addr, number, &input(number, rows));
                        refused += u64::from(!answered.unwrap_or_else(|what| panic!("{what}")));
                        if number.is_multiple_of(250) {
                            target.serve();
                        }
                    }
                    refused
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread without a complaint")).sum()
    });
    target.serve();
    eventually("all connections are closed", || target.descriptors() <= descriptors);
    let grown = target.resident_bytes().saturating_sub(before);
    println!("{inputs} inputs, {refused} of them refused or incomplete; {grown} bytes more than before");
    assert!(refused > inputs / 2, "only {refused} of {inputs} were wrong");
    // Sessions that inputs have asked to keep stay for a while.
    assert!(grown < (32 << 20) + 2048 * inputs as usize, "{grown} bytes more");
    target.process.stop();
}

#[test]
fn inputs_differ_and_are_the_same_for_the_same_number() {
    let rows = all();
    let some: HashSet<_> = (0..1000).map(|number| input(number, &rows)).collect();
    assert!(some.len() > 950, "{}", some.len());
    assert_eq!(input(7, &rows), input(7, &rows));
}
