//! Does it stay small and quick where there is much of it?

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "sim")]
mod growth;
mod time;
