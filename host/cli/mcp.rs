//! `crank mcp`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, Ended, serve};
use crate::api;

/// Serve a directory of components to one MCP client, over standard input and output.
///
/// For clients that start their servers themselves. Every capability is a tool. Log lines go to standard
/// error. Ends with its input.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank mcp target/workers
  claude mcp add crank -- crank mcp /home/ada/workers      an MCP client that is to start it
  RUST_LOG=info crank mcp target/workers                   with a log line for each call")]
pub struct Mcp {
    /// Directory of components
    dir: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Mcp {
    pub fn run(self) -> Result<(), Ended> {
        let config = super::configure(Some(&self.dir), Some(&self.config), &[])?;
        super::log(config.log, config.audit_log.as_deref(), "warn")?;
        let runtime = super::runtime()?;
        let ended = runtime.block_on(async {
            let mut stop = Box::pin(serve::stop_signal().map_err(Ended::usage)?);
            let (router, config, engine) = tokio::select! {
                loaded = serve::load(config, &self.dir) => loaded?,
                () = &mut stop => return Ok(()),
            };
            // Clients ask for the tools once, at the start.
            router.registry().place().await.map_err(Ended::usage)?;
            let settings = api::Settings::from(config.as_ref());
            let conversation = api::converse(router.clone(), &settings, stop);
            serve::tending(&router, conversation)
                .await
                .map_err(Ended::usage)?;
            if let Some(state) = engine.state() {
                state.close().await;
            }
            Ok(())
        });
        // A thread that still reads a terminal cannot be woken.
        runtime.shutdown_background();
        ended
    }
}
