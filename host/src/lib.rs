#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod codec;
pub mod core;
mod io;
pub mod limits;
pub mod message;
pub mod plugin;
pub mod router;
mod server;
