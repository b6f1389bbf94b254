#!/usr/bin/env python3
"""What idle workers cost: memory for each, the host's start, and a call among many.

    benches/density.py target/release/crank target/workers/hello-world.wasm [--workers 1000]

The workers are copies of hello-world with ids of their own; all but the first offer a capability of their own, too.
So a call is to one worker, alone or among others; and then to all, one after the other. Memory is what the process
itself keeps with all of them over that with one: what is not a file (smaps_rollup), and the files without a name
that compiled code is mapped from.
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
NAME = b"hello_world"  # of its capability


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


def name(number):
    return NAME if number == 0 else b"hello_%05d" % number


def resident(host):
    """KiB of the process's own."""
    process = pathlib.Path(f"/proc/{host.pid}")
    rollup = (process / "smaps_rollup").read_text()
    memory = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    files = [file for file in (process / "fd").iterdir() if "memfd:crank-code" in os.readlink(file)]
    return memory + sum(file.stat().st_blocks for file in files) // 2


def computed(host):
    """Microseconds of CPU time that its threads have used so far."""
    tasks = pathlib.Path(f"/proc/{host.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e3


def latency(host, address, names):
    """Median time of a call, and the host's CPU time for each; the first quarter warms up."""
    connection = http.client.HTTPConnection(address)
    times = []
    for at, called in enumerate(names):
        if at == len(names) // 4:
            before, counted = computed(host), len(names) - at
        began = time.perf_counter()
        connection.request("POST", f"/invoke/greet/{called.decode()}", b'{"name":"Ada"}',
                           {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - began) * 1e6)
        assert answer.status == 200, answer.status
    return statistics.median(times[-counted:]), (computed(host) - before) / counted


def measure(program, component, count):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        workers = scratch / "workers"
        workers.mkdir()
        for number in range(count):
            own = component
            for ours in IDS:
                own = own.replace(ours, ours[:-5] + b"%05d" % number)
            own = own.replace(NAME, name(number))
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
        for what, names in ("one worker", [NAME] * 2000), ("each in turn", [name(at % count) for at in range(2000)]):
            took, cpu = latency(host, address, names)
            print(f"              a call to {what}: {took:.0f} us (median, one connection, this script's own time "
                  f"included), {cpu:.0f} us of CPU time", flush=True)
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
