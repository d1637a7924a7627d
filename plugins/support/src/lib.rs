//! What the shipped plugins have in common. It is no interface for others, and may change with them.

pub mod config;
pub mod files;
pub mod live;
pub mod pattern;
pub mod permissions;
