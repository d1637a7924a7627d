//! Answers that come later, by tickets and from `async fn`, seen from the host's side of the boundary.

mod allocations;
mod fake_host;
mod futures;
mod requests;
mod tickets;
