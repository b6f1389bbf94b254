#!/usr/bin/env bash
# The official conformance suite's server tests, over HTTP. Needs network (npm), and Node.js 22 or that npm
# may fetch one.
set -euo pipefail
cd "$(dirname "$0")/../.."
crank=${CRANK:-target/release/crank}
suite=${SUITE:-@modelcontextprotocol/conformance@0.1.16}

scratch=$(mktemp -d)
host=
trap 'kill $host 2>/dev/null; rm -rf "$scratch"' EXIT
"$crank" build guests/mcp-conformance --out "$scratch/workers"
"$crank" serve "$scratch/workers" --listen 127.0.0.1:0 2>"$scratch/log" &
host=$!
until url=$(grep -o 'http://127[0-9.:]*' "$scratch/log"); do
    kill -0 $host || { cat "$scratch/log"; exit 1; }
    sleep 0.2
done
npm install --silent --prefix "$scratch" node@22 "$suite"
expected=$PWD/tests/mcp/expected-failures.yml
cd "$scratch"
node_modules/.bin/node node_modules/@modelcontextprotocol/conformance/dist/index.js \
    server --url "$url/mcp" --expected-failures "$expected" "$@"
