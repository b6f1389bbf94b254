//! Which model: the operator's, if there is one in the directory of models, or else our own.

use std::sync::LazyLock;

use gpu_kernels::{Broken, Model};

/// Our own, read and checked once: where the host takes an init snapshot, before the first call.
pub static OWN: LazyLock<Result<Model<'static>, Broken>> =
    LazyLock::new(|| Model::read(include_bytes!("../model/default.safetensors")));

/// What our own is called.
pub const OWN_NAME: &str = "of this worker";

/// The hash of our own one's weights.
pub const OWN_SHA256: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weights.sha256"));

/// The directory of models.
#[cfg(target_arch = "wasm32")]
pub mod operators {
    use crank_worker::Failure;
    use wasip2::filesystem::preopens::get_directories;
    use wasip2::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

    pub const NAME: &str = "model.safetensors";
    /// Bytes that are asked for at once.
    const PART: u64 = 1 << 20;

    /// The model there, if there is one.
    pub fn read() -> Result<Option<Vec<u8>>, Failure> {
        let failed = |code: ErrorCode| super::super::unusable(NAME, code.name());
        let directories = get_directories();
        let Some((models, _)) = directories.iter().find(|(_, name)| name == "/models") else {
            return Ok(None);
        };
        let open = models.open_at(
            PathFlags::SYMLINK_FOLLOW,
            NAME,
            OpenFlags::empty(),
            DescriptorFlags::READ,
        );
        let file = match open {
            Err(ErrorCode::NoEntry) => return Ok(None),
            open => open.map_err(failed)?,
        };
        // The host holds its size against `model_storage_mb`.
        let size = file.stat().map_err(failed)?.size;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        loop {
            let (part, end) = file.read(PART, bytes.len() as u64).map_err(failed)?;
            bytes.extend_from_slice(&part);
            if end || part.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}
