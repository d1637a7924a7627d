//! Lets this package pass for plugin-api 1.0.0.
//!
//! The description of a type carries the package that it comes from, and `other_layout` has to differ from the real table
//! of functions in one field and in nothing else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=CARGO_PKG_NAME=plugin-api");
    println!("cargo::rustc-env=CARGO_PKG_VERSION=1.0.0");
}
