//! Which model: the operator's, if there is one in the directory of models, or else our own.

use std::borrow::Cow;

use crank_worker::Failure;

/// A model file.
pub struct File {
    pub name: &'static str,
    pub bytes: Cow<'static, [u8]>,
    /// The hash of its weights, where it is known beforehand.
    pub sha256: Option<&'static [u8]>,
}

/// The model to use.
///
/// # Errors
///
/// The operator's cannot be read.
pub fn file() -> Result<File, Failure> {
    #[cfg(target_arch = "wasm32")]
    if let Some(bytes) = operators::read()? {
        return Ok(File {
            name: operators::NAME,
            bytes: bytes.into(),
            sha256: None,
        });
    }
    Ok(File {
        name: "of this worker",
        bytes: include_bytes!("../model/default.safetensors").into(),
        sha256: Some(include_bytes!(concat!(env!("OUT_DIR"), "/weights.sha256"))),
    })
}

/// The directory of models.
#[cfg(target_arch = "wasm32")]
mod operators {
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
