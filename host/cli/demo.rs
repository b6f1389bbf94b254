//! `crank demo`.

mod gpu;
mod tour;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use tokio::sync::oneshot;

use super::{Ended, build, serve};
use crate::api;

/// Build this repository's workers, serve them, and show real calls.
///
/// Runs in a clone of the repository: compiles guests/ (the first time takes minutes), serves them
/// on a loopback port, sends them real files over HTTP and prints each call as a curl line that you
/// can paste, then a line for each worker. Then it keeps serving. What the workers store is gone when
/// it ends.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo run --release -- demo
  crank demo --once --listen 127.0.0.1:8080")]
pub struct Demo {
    /// End after the tour
    #[arg(long)]
    once: bool,
    /// Address to listen on; port 0 is a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

impl Demo {
    pub fn run(self) -> Result<(), Ended> {
        let root = Path::new(".");
        let guests = build::guests(root)?;
        let out = PathBuf::from("target/workers");
        // Each demo begins with nothing stored, and leaves nothing.
        let state = tempfile::Builder::new()
            .prefix("crank-demo-")
            .tempdir()
            .map_err(Ended::usage)?;
        let flags = [
            ("listen", self.listen.to_string()),
            ("state_dir", state.path().display().to_string()),
        ];
        let mut config = super::configure(Some(&guests), None, &flags)?;
        // The tour itself says who is refused.
        super::log(
            config.log,
            None,
            "warn,crank::worker=info,crank::cli::serve=off,crank::registry=off",
        )?;

        let began = Instant::now();
        let built = build::build(vec![guests], out.clone(), &config.cache_dir, false)?;
        println!(
            "{} workers built in {:.1} s",
            built.len(),
            began.elapsed().as_secs_f64()
        );
        let gpu = gpu::place(&mut config);
        super::runtime()?.block_on(async {
            let (listener, router, config, engine) = serve::ready(config, &out).await?;
            let address = listener.local_addr().map_err(Ended::usage)?;
            router.registry().place().await.map_err(Ended::usage)?;
            let snapshot = router.registry().snapshot();
            let (stop, stopped) = oneshot::channel::<()>();
            let server = tokio::spawn(api::serve(
                listener,
                router,
                api::Settings::from(config.as_ref()),
                async { drop(stopped.await) },
            ));
            let ended = tour::walk(address, root, &snapshot, gpu.as_ref()).await;
            if ended.is_ok() && !self.once {
                println!("\nserving on http://{address} until Ctrl-C; GET /capabilities and /workers tell more");
                serve::stop_signal().map_err(Ended::usage)?.await;
            }
            drop(stop);
            server.await.map_err(Ended::usage)?.map_err(Ended::usage)?;
            if let Some(state) = engine.state() {
                state.close().await;
            }
            ended
        })
    }
}
