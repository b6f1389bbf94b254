//! Crank from the outside: one binary, a file per feature.

mod build;
mod events;
mod hostile;
mod http;
mod load;
mod support;
mod tidy;
