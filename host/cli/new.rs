//! `crank new`.

use std::path::Path;

use clap::Args;

use super::Ended;
use crate::toolchain;

/// Make a new worker: a crate that builds, in a folder of its own.
///
/// It comes with one capability that works, a test, the helper crate and the contract, so that it needs
/// no clone of Crank's repository.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank new word-count && cd word-count && crank build")]
pub struct New {
    /// Its name, and that of the folder: lower-case letters, digits, hyphens
    name: String,
}

impl New {
    pub fn run(self) -> Result<(), Ended> {
        let made = toolchain::new(&self.name, Path::new(".")).map_err(Ended::usage)?;
        let (name, capability) = (&self.name, &made.capability);
        let path = capability.replace(':', "/");
        println!(
            "\
made {name}, a worker that offers {capability}: src/lib.rs is yours, crank/ is the helper crate

  cd {name}
  cargo test                    its own test; no WebAssembly needed
  crank build                   to target/workers/{name}.wasm
  crank check target/workers    what does it declare, import, lack?
  crank serve target/workers    on 127.0.0.1:8080

  curl localhost:8080/invoke/{path} -H 'content-type: application/json' -d '{{\"text\": \"the lamp is lit\"}}'"
        );
        Ok(())
    }
}
