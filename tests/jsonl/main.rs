//! Is what goes out as lines what comes in again, wherever it is stopped?

#![cfg(feature = "json")]

mod imports;
mod lines;
#[path = "../support/mod.rs"]
mod support;
