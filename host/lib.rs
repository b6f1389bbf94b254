//! Crank: a WebAssembly capability host.
//!
//! The modules stand bottom-up: each uses only those above it in this list, and a test holds this.
//! `docs/architecture.md` is the map.

pub mod error;

pub mod identity;

pub mod capability;

pub mod striped;

pub mod timeout;

pub mod outbox;

pub mod limits;

pub mod config;

pub mod auth;

pub mod rules;

pub mod machine;

pub mod policy;

pub mod state;

pub mod idempotency;

pub mod telemetry;

pub mod admission;

pub mod tmp;

pub mod gpu;

pub mod engine;

pub mod bindings;

pub mod sandbox;

pub mod worker;

pub mod remote;

pub mod registry;

pub mod router;

pub mod api;

pub mod toolchain;

pub mod bench;

pub mod cli;
