//! Crank: a WebAssembly capability host.
//!
//! The modules stand bottom-up: each uses only those above it in this list, and a test holds this.
//! `docs/architecture.md` is the map.

pub mod error;
pub mod identity;
pub mod capability;
pub mod config;
pub mod policy;
