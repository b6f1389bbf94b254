#!/usr/bin/env python3
"""What idle workers cost: memory for each, the host's start, and a call among many.

    benches/density.py target/release/crank target/workers/hello-world.wasm [--workers 1000]

The workers are copies of hello-world with ids of their own. Memory is what the process itself keeps (Pss of what is
not a file, from smaps_rollup) with all of them over that with one. Compiled code is in it: it is loaded from memory.
"""

import argparse
import http.client
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

IDS = (b"worker-hello-world", b"worker/hello-world")  # its worker id, and the end of its SPIFFE id
CALL = ("POST", "/invoke/greet/hello_world", b'{"name":"Ada"}', {"content-type": "application/json"})


def start(program, workers, scratch, state):
    environment = {**os.environ, "CRANK_CACHE_DIR": str(scratch / "cache"), "CRANK_SNAPSHOT": "false",
                   "CRANK_STATE_DIR": str(scratch / state), "RUST_LOG": "warn,crank::cli=info"}
    began = time.perf_counter()
    host = subprocess.Popen([program, "serve", workers, "--listen", "127.0.0.1:0"],
                            stderr=subprocess.PIPE, env=environment)
    for line in host.stderr:
        if b"listening on http://" in line:
            return host, line.split(b"http://")[1].strip().decode(), time.perf_counter() - began
    raise SystemExit("it does not start")


def resident(host):
    """KiB of the process's own."""
    rollup = pathlib.Path(f"/proc/{host.pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:"))


def latency(address, calls=2000):
    connection = http.client.HTTPConnection(address)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        connection.request(*CALL)
        connection.getresponse().read()
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times[calls // 4:])


def measure(program, component, count):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        workers = scratch / "workers"
        workers.mkdir()
        for number in range(count):
            own = component
            for ours in IDS:
                own = own.replace(ours, ours[:-5] + b"%05d" % number)
            assert own != component and len(own) == len(component)
            (workers / f"hello-{number:05}.wasm").write_bytes(own)
        host, _, compiled = start(program, workers, scratch, "state-0")
        host.kill()
        host.wait()
        host, address, cached = start(program, workers, scratch, "state-1")
        time.sleep(1)
        memory = resident(host)
        code = next((scratch / "cache/code").glob("*.cwasm")).stat().st_size >> 10
        print(f"{count:5} workers: start {cached:.2f} s cached ({compiled:.1f} s uncompiled), {memory} KiB of its own; "
              f"compiled code of each {code} KiB", flush=True)
        took = latency(address)
        print(f"              a call takes {took:.0f} us (median, one connection, this script's own time included)")
        host.kill()
        host.wait()
        return memory


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program")
    arguments.add_argument("component", type=pathlib.Path)
    arguments.add_argument("--workers", type=int, default=1000)
    given = arguments.parse_args()
    component = given.component.read_bytes()
    one, many = measure(given.program, component, 1), measure(given.program, component, given.workers)
    print(f"each: {(many - one) / (given.workers - 1):.0f} KiB, its compiled code included")


main()
