//! Statements of MQTT 5.0 that the scenarios by theme leave open, by section of the specification. `CONFORMANCE.md` says
//! where each statement has its test.

mod connect;
mod errors;
mod publish;
mod sizes;
mod subscribe;
mod wills;

use super::net::connect_packet;
use super::*;
