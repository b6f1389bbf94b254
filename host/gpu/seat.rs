//! A worker's place on a GPU: its device, opened at its first call, and made anew if it is lost.

use tokio::sync::Mutex;

use super::{Adapter, Device, Error, Settings};

/// One worker's place.
pub struct Seat {
    /// The GPU.
    pub adapter: Adapter,
    settings: Settings,
    device: Mutex<Option<Device>>,
}

impl Seat {
    /// A place on a GPU, for a worker that may keep so many bytes there.
    pub fn new(adapter: Adapter, kept: u64) -> Self {
        Self {
            adapter,
            settings: Settings::new(kept),
            device: Mutex::new(None),
        }
    }

    /// Its device.
    ///
    /// # Errors
    ///
    /// The driver gives none.
    pub async fn device(&self) -> Result<Device, Error> {
        let mut place = self.device.lock().await;
        if let Some(device) = place.as_ref().filter(|device| !device.is_lost()) {
            return Ok(device.clone());
        }
        let device = Device::open(&self.adapter, self.settings).await?;
        *place = Some(device.clone());
        Ok(device)
    }
}
