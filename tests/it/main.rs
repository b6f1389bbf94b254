//! Crank from the outside: one binary, a file per feature.

mod build;
mod cli;
mod convert;
mod events;
mod fair;
mod hostile;
mod http;
mod limits;
mod load;
mod state;
mod support;
mod tidy;
