#!/usr/bin/env bash
# The tests of GPU work, then its figures, on the GPU of this machine: one command, also on a machine that is had
# for an hour. Without a driver, on Mesa's in software.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo run --release --quiet -- gpu; then
    environment=$(.ci/gpu-driver target/gpu-driver)
    eval "$environment"
fi
TEST_GPU=1 cargo test --release --test it -- gpu::
cargo bench --bench gpu
