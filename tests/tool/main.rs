//! Does the command line do what it says?

#![cfg(feature = "cli")]

mod dump;
mod facts;
mod life;
#[cfg(feature = "sim")]
mod limits;
mod names;
mod nights;
mod readers;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod verbs;
mod verdicts;
mod words;
