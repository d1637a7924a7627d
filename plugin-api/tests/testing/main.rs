//! `plugin_api::testing`: what a test sees is what the broker would do.

mod callbacks;
mod config;
mod failures;
mod services;
mod swaps;
mod transports;
