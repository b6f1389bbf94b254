//! Crank from the outside: one binary, a file per feature.

mod admission;
mod build;
mod cli;
mod convert;
mod events;
mod fair;
mod hostile;
mod http;
mod load;
mod mix;
mod support;
mod tidy;
