//! Crank from the outside: one binary, a file per feature.

mod admission;
mod build;
mod cli;
mod compile;
mod convert;
mod events;
mod fair;
mod hostile;
mod http;
mod limits;
mod load;
mod mix;
mod peers;
mod placement;
mod search;
mod state;
mod storage;
mod support;
mod tidy;
