//! Write a Crank worker: plain functions in, a WebAssembly component out.
//!
//! ```
//! use crank_worker::{Capability, Failure, Worker};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Input {
//!     /// What is counted.
//!     text: String,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Output {
//!     /// Number of words.
//!     words: usize,
//! }
//!
//! fn count_words(input: Input) -> Result<Output, Failure> {
//!     Ok(Output { words: input.text.split_whitespace().count() })
//! }
//!
//! fn worker() -> Worker {
//!     Worker::new("worker-count").offers(
//!         Capability::new("count", "words", "1.0.0", count_words)
//!             .description("Counts the words of a text."),
//!     )
//! }
//!
//! crank_worker::worker!(worker);
//! # fn main() {}
//! ```
//!
//! The schemas of the input and the output come from the types, with their doc comments. In a
//! native test, [`Worker::handle`] answers requests as the component would.

#[cfg(target_arch = "wasm32")]
mod allocator;
mod bytes;
mod capability;
mod declaration;
pub mod events;
mod failure;
mod function;
pub mod gpu;
mod host;
pub mod peers;
mod raw;
pub mod state;

pub use bytes::Bytes;
pub use capability::{Capability, Constraints, Slo, Worker};
pub use events::Event;
pub use function::{Function, Output, Request};
/// The macros `error!`, `warn!`, `info!` and `debug!`: lines for the operator's log.
pub use log;

pub use bindings::crank::worker::types::{Failure, FailureKind, Payload};

/// What `wit-bindgen` makes of the contract. For [`worker!`] alone.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package crank:helper;

            world guest {
                import crank:worker/log@0.1.0;
                import crank:worker/events@0.1.0;
                import crank:worker/peers@0.1.0;
                include crank:worker/worker@0.1.0;
            }
        ",
        world: "crank:helper/guest",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export",
        additional_derives: [PartialEq],
    });
}

#[doc(hidden)]
pub mod glue {
    pub use crate::host::{declare, handle};
}

/// Makes a component of this crate. Takes the path of a function without arguments that returns the
/// [`Worker`]; natively it only checks that there is one.
#[macro_export]
macro_rules! worker {
    ($worker:path) => {
        const _: fn() -> $crate::Worker = $worker;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::exports::crank::worker::{capabilities, handler};

            struct Component;

            impl capabilities::Guest for Component {
                fn declare() -> capabilities::Worker {
                    $crate::glue::declare($worker)
                }
            }

            impl handler::Guest for Component {
                fn handle(request: handler::Request) -> Result<$crate::Payload, $crate::Failure> {
                    $crate::glue::handle($worker, request)
                }
            }

    $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}
