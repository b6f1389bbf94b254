//! `peer-extism MODE ADDRESS [PLUGIN [CACHE]]`: the greeting over HTTP.
//!
//! MODE is `plain` (a handler of axum alone), `fresh` (a new plugin for each request, from one that
//! was compiled at the start) or `pooled` (plugins that are used again). CACHE is a configuration of
//! wasmtime's cache of compiled code.

use std::env;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Pool, PoolBuilder, Wasm};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
struct Input {
    name: String,
}

#[derive(Serialize)]
struct Output {
    greeting: String,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (mode, address, rest) = match arguments.as_slice() {
        [mode, address, rest @ ..] => (mode.as_str(), address, rest),
        _ => return Err("usage: peer-extism plain|fresh|pooled ADDRESS [PLUGIN [CACHE]]".into()),
    };
    let handler = match mode {
        "plain" => post(plain),
        "fresh" => {
            let compiled = compile(rest)?;
            post(move |body: Bytes| {
                let called = Plugin::new_from_compiled(&compiled)
                    .and_then(|mut plugin| plugin.call("hello_world", body.as_ref()));
                async { answer(called) }
            })
        }
        "pooled" => {
            let compiled = compile(rest)?;
            // One for each connection. A call is not interrupted, so a thread needs one at a time.
            let pool: Pool = PoolBuilder::new()
                .with_max_instances(16)
                .build(move || Plugin::new_from_compiled(&compiled));
            post(move |body: Bytes| {
                let called = pool.get(Duration::from_secs(1)).and_then(|plugin| {
                    let mut plugin = plugin.ok_or_else(|| extism::Error::msg("none is free"))?;
                    plugin.call("hello_world", body.as_ref())
                });
                async { answer(called) }
            })
        }
        _ => return Err(format!("`{mode}` is none of plain, fresh, pooled").into()),
    };
    let router = Router::new().route("/invoke/greet/hello_world", handler);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(axum::serve(listener, router).await?)
    })
}

async fn plain(Json(input): Json<Input>) -> Json<Output> {
    Json(Output {
        greeting: format!("Hello, {}!", input.name.trim()),
    })
}

fn compile(rest: &[String]) -> Result<CompiledPlugin, Failure> {
    let (plugin, cache) = rest.split_first().ok_or("which plugin?")?;
    // As Crank and `wasmtime serve` do: slots that are used again, with their pages.
    let mut pool = wasmtime::PoolingAllocationConfig::new();
    pool.linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(wasmtime::Enabled::Auto);
    let mut config = wasmtime::Config::new();
    config.allocation_strategy(wasmtime::InstanceAllocationStrategy::Pooling(pool));
    let mut builder = PluginBuilder::new(Manifest::new([Wasm::data(std::fs::read(plugin)?)]))
        .with_wasi(false)
        .with_wasmtime_config(config);
    if let Some(cache) = cache.first() {
        builder = builder.with_cache_config(cache);
    }
    Ok(builder.compile()?)
}

fn answer(called: Result<Vec<u8>, extism::Error>) -> Response {
    match called {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}
