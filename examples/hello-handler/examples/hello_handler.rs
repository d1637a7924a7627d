//! The same library as an example target.
#[path = "../src/lib.rs"]
pub mod hello_handler;
