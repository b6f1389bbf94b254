//! The greeting as an Extism plugin: JSON in, JSON out.

use extism_pdk::{FnResult, Json, plugin_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    name: String,
}

#[derive(Serialize)]
struct Output {
    greeting: String,
}

#[plugin_fn]
pub fn hello_world(Json(input): Json<Input>) -> FnResult<Json<Output>> {
    Ok(Json(Output {
        greeting: format!("Hello, {}!", input.name.trim()),
    }))
}
