//! `crank gpu`: the GPUs that workers could use.

use clap::Args;

use super::Ended;
use crate::gpu::{Adapter, Found, NONE};

/// List the GPUs that workers could use.
///
/// A worker asks for one by its constraints `gpu_count`, `gpu_type` and `gpu_memory_mb`; the host places
/// it if one of these has what it asks for.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank gpu                   name, maker, driver and memory of each
  crank gpu --constraints     the best one as the constraints of a worker that needs its like
  VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json crank gpu
                              with Mesa's software driver alone")]
pub struct Gpu {
    /// Print the constraints that a worker could declare to get the best one
    #[arg(long)]
    constraints: bool,
}

impl Gpu {
    pub fn run(&self) -> Result<(), Ended> {
        let found: Vec<Found> = Adapter::find().into_iter().map(|gpu| gpu.found).collect();
        let Some(best) = found.first() else {
            let fix = if cfg!(feature = "gpu") {
                "install one for Vulkan (Debian: mesa-vulkan-drivers has one that needs no GPU)"
            } else {
                "build it with `--features gpu`"
            };
            return Err(Ended::Short(format!("{NONE}; {fix}")));
        };
        if self.constraints {
            let count = found.iter().filter(|gpu| gpu.kind == best.kind).count();
            println!(
                "gpu_count = {count}\ngpu_type = \"{}\"\ngpu_memory_mb = {}",
                best.maker(),
                best.memory >> 20
            );
            return Ok(());
        }
        for gpu in &found {
            println!("{}", gpu.name);
            println!("  gpu_type       {}", gpu.maker());
            println!("  gpu_memory_mb  {}", gpu.memory >> 20);
            println!("  driver         {} ({})", gpu.driver, gpu.backend);
            println!("  largest buffer {} MiB", gpu.max_buffer >> 20);
            println!("  threads        {} in a workgroup", gpu.max_threads);
            println!(
                "  clock          {}",
                if gpu.has_clock {
                    "yes"
                } else {
                    "no: GPU time is not metered"
                }
            );
        }
        Ok(())
    }
}
