//! End-to-end tests: the real server, in this process and as a process of its own, real sockets and real libraries.
//!
//! `harness` starts servers and finds what tests need; `mqtt` is a client that speaks bytes. Each test runs with one
//! worker and with three, where that can make a difference. Nothing waits by sleeping: conditions have deadlines.

mod acl;
mod activation;
mod asynchronous;
mod authors;
mod bench;
mod c;
mod certificates;
mod cli;
mod clients;
mod config;
mod conformance;
mod control;
mod crash;
mod deferred;
mod deliver;
mod disks;
mod durable;
mod harness;
mod hostile;
mod limits;
mod listeners;
mod loader;
mod log;
mod matrix;
mod memory;
mod mqtt;
mod pages;
mod plugins;
mod pool;
mod protocol;
mod proxied;
mod pump;
#[cfg(feature = "quic")]
mod quic;
mod random;
mod record;
mod restart;
mod secrets;
mod security;
mod services;
mod sessions;
mod shared;
mod shipped;
mod startup;
mod store;
mod supply;
mod swap;
mod swap_load;
mod tidy;
mod tls;
mod unix;
mod unruly;
mod unruly_c;
mod upgrade;
mod versions;
mod watch;
mod websocket;
