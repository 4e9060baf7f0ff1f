//! What does a handle answer, in every state and while others work?

mod anywhere;
#[cfg(feature = "sim")]
mod differing;
mod expectations;
mod sealing;
#[cfg(feature = "sim")]
mod several;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod typed;
mod under_way;
mod versions;
mod volatile;
