//! What outlives the server: the form in which it is written down, without a file or a thread.
//!
//! A worker's core says step by step how what it has promised to keep changes: see [`change`]. Whoever applies these steps in
//! their order has what the core has. Where the steps go, and what is known to be safe of them, is the business of a
//! [`store`]; on their way to that of the server they wait in its [`queue`]. What they come to, a [`model`] knows, and an
//! [`image`] of it is what a server begins with, and people read it as [lines](mod@line).

pub mod change;
mod compose;
pub mod image;
pub mod line;
pub mod model;
pub mod queue;
pub mod store;

pub use compose::ReadJournal;
