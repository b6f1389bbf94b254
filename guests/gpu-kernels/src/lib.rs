//! What networks for images are made of, as kernels for a GPU, and a runner for a list of layers.
//!
//! A model is one safetensors file ([`Model::read`]): the weights, and in its metadata what the layers
//! are and what the outputs are called. `docs/image-classifier.md` of Crank describes it. It is checked
//! whole before anything runs: what is wrong with it is said, and no shader finds out.

mod format;
mod kernels;
mod plan;
mod run;

pub use format::{Fit, Input, Model};

/// What is wrong with a model, for whoever made it: a lower-case fragment without a full stop.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}
