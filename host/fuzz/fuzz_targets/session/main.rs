//! Sequences of what peers, their network, handlers and time can do to the workers of one server.
//!
//! An input is a small program: [`setup`](setup::Setup) reads its first bytes, [`Net::run`](net::Net::run) the rest.
//! Well-formed packets with any fields and raw bytes reach the cores in any fragments; workers take turns when the
//! program says so. A [`client`] reads what the server sends, and takes nothing that a server must not send. Everybody
//! leaves at the end, and nothing may be left.

#![no_main]

mod client;
mod handler;
mod input;
mod net;
mod packets;
mod setup;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = input::Input::new(bytes);
    let setup = setup::Setup::read(&mut input);
    let mut net = net::Net::new(&setup);
    net.run(&mut input);
    net.end();
});
