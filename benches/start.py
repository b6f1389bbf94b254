#!/usr/bin/env python3
"""From the start of the process to the first answer: with compiled code in the cache, and without.

    benches/start.py target/release/crank target/workers [--runs 15] [--first hello-world,email-classifier]

The directory must hold hello-world, and what its workers are granted in a crank.toml. Two sets are measured: the workers of --first, and all of them. Each run is a
new process with a state directory of its own; the cache is filled once, init snapshots included.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

CALL = ("POST", "/invoke/greet/hello_world", b'{"name":"Ada"}', {"content-type": "application/json"})


def start(program, workers, cache, state):
    """Starts a host; the process, its address, and milliseconds until it listens and until it answers."""
    environment = {**os.environ, "CRANK_CACHE_DIR": str(cache), "CRANK_STATE_DIR": str(state), "RUST_LOG": "info"}
    began = time.perf_counter()
    host = subprocess.Popen([program, "serve", workers, "--listen", "127.0.0.1:0"],
                            stderr=subprocess.PIPE, env=environment)
    for line in host.stderr:
        if b"listening on http://" in line:
            break
    else:
        raise SystemExit("it does not start")
    listens = time.perf_counter()
    address = line.split(b"http://")[1].strip().decode()
    connection = http.client.HTTPConnection(address)
    connection.request(*CALL)
    answer = connection.getresponse()
    answer.read()
    answers = time.perf_counter()
    assert answer.status == 200, answer.status
    return host, address, (listens - began) * 1e3, (answers - began) * 1e3, answer.headers["crank-cold"]


def computed(host):
    """Milliseconds of CPU time that its threads have used so far: what a busy machine does not change."""
    tasks = pathlib.Path(f"/proc/{host.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def stop(host):
    host.kill()
    host.stderr.close()
    host.wait()


def settled(address):
    """Waits until no init snapshot is pending; how many there are."""
    while True:
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/workers")
        workers = json.load(connection.getresponse())["workers"]
        states = [worker.get("snapshot", {}).get("state") for worker in workers]
        if "pending" not in states:
            return len(workers), states.count("used")
        time.sleep(0.2)


def measure(program, files, runs):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        workers = scratch / "workers"
        workers.mkdir()
        for file in files:
            shutil.copy(file, workers)
        settings = files[0].parent / "crank.toml"
        if settings.exists():
            shutil.copy(settings, workers)
        cache = scratch / "cache"
        host, address, listens, answers, cold = start(program, workers, cache, scratch / "state")
        loaded, snapshots = settled(address)
        stop(host)
        print(f"{loaded} workers, {snapshots} of them from snapshots")
        print(f"  {cold:<11} listens after {listens:8.1f} ms, answers after {answers:8.1f} ms (one run)")
        times = []
        for run in range(runs):
            host, _, listens, answers, cold = start(program, workers, cache, scratch / f"state-{run}")
            times.append((answers, listens, computed(host)))
            stop(host)
        answers = sorted(answers for answers, _, _ in times)
        listens = statistics.median(listens for _, listens, _ in times)
        cpu = statistics.median(cpu for _, _, cpu in times)
        print(f"  {cold:<11} listens after {listens:8.1f} ms, answers after {statistics.median(answers):8.1f} ms"
              f" (median of {runs}; {answers[0]:.1f} to {answers[-1]:.1f}), {cpu:.1f} ms of CPU time", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program")
    arguments.add_argument("workers", type=pathlib.Path)
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--first", default="hello-world,email-classifier")
    given = arguments.parse_args()
    measure(given.program, [given.workers / f"{stem}.wasm" for stem in given.first.split(",")], given.runs)
    measure(given.program, sorted(given.workers.glob("*.wasm")), given.runs)


main()
