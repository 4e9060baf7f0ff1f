//! What does a handle answer, in every state and while others work?

mod anywhere;
#[cfg(feature = "sim")]
mod differing;
mod expectations;
mod in_flight;
mod sealing;
#[cfg(feature = "sim")]
mod several;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod typed;
mod versions;
mod volatile;
