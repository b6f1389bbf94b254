//! Work on a GPU, in WGSL, metered by the host: `docs/gpu.md` of Crank shows how.
//!
//! A worker that declares `crank:gpu/compute` may use it. In a native test there is no GPU.

pub use bindings::crank::gpu::compute::{
    Binding, Buffer, Dispatch, Error, GpuType, Info, Pipeline, Readback, get_info, run,
};

use crate::Failure;

/// What `wit-bindgen` makes of the interface.
#[allow(missing_docs)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package crank:helper;

            world gpu {
                import crank:gpu/compute@0.1.0;
            }
        ",
        world: "crank:helper/gpu",
        generate_all,
    });
}

impl From<Error> for Failure {
    /// A shader or a size that is wrong is this worker's own fault.
    fn from(error: Error) -> Self {
        let Error::Invalid(message) = error;
        Failure {
            code: Some("gpu-invalid".to_owned()),
            ..Failure::failed(message)
        }
    }
}
