//! The same library as an example target.
#[path = "../src/lib.rs"]
mod hello_handler;
