//! Crank from the outside: one binary, a file per feature.

mod admission;
mod build;
mod cli;
mod compile;
mod convert;
mod documents;
mod events;
mod fair;
mod gpu;
mod hostile;
mod http;
mod limits;
mod load;
mod mail;
mod metadata;
mod mix;
mod new;
mod peers;
mod placement;
mod search;
mod state;
mod storage;
mod stream;
mod support;
mod tidy;
mod zettel;
