//! What does a handle answer, in every state and while others work?

mod anywhere;
mod by_name;
#[cfg(feature = "sim")]
mod differing;
mod expectations;
mod in_flight;
#[cfg(feature = "sim")]
mod names;
mod sealing;
#[cfg(all(feature = "json", feature = "bincode"))]
mod serial;
#[cfg(feature = "sim")]
mod several;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod texts;
#[cfg(feature = "sim")]
mod tickets;
mod trims;
mod typed;
mod versions;
mod volatile;
