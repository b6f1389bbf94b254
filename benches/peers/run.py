#!/usr/bin/env python3
"""Measures Crank beside its peers: the same greeting over HTTP, one core for the server.

Each round starts each server anew, in turn, and each is measured alone: the time from the start of the
process to its first answer, then a warm-up, then SECONDS of load over 16 connections. The table has
medians over the rounds; a ratio is the median of what the rounds had each for themselves.
"""

import argparse
import glob
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATH = "/invoke/greet/hello_world"
CALL, ANSWER = b'{"name":"Ada"}', {"greeting": "Hello, Ada!"}
CONNECTIONS, WASMTIME, WORKERD = 16, "48.0.8", "1.20261117.1"
PYTHON = ["fastapi==0.165.0", "uvicorn[standard]==0.54.0"]
# What Crank sets for its own pool, `host/engine.rs`; `serve` takes the pooling allocator by default.
TUNED = ["-O", "pooling-allocator=y,pooling-memory-keep-resident=1048576,pooling-table-keep-resident=65536,"
         "pooling-pagemap-scan=auto"]


class Setup:
    """Builds what the peers need, each thing once, under one directory."""

    def __init__(self, at, crank, jobs):
        self.at, self.jobs, self.own_crank = at, jobs, crank
        self.made = {}

    def run(self, name, command, env=None, cwd=ROOT):
        log = self.at / "logs" / f"{name}.log"
        with log.open("ab") as out:
            code = subprocess.run(
                [str(part) for part in command], stdout=out, stderr=out, cwd=cwd, env={**os.environ, **(env or {})}
            ).returncode
        if code != 0:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"`{' '.join(map(str, command[:3]))} …` ended with {code}: {' '.join(last)}; see {log}")

    def once(self, name):
        """The path that `_name` makes; a failure is remembered, so that it is met once."""
        if name not in self.made:
            say(f"  {name} …")
            try:
                self.made[name] = getattr(self, f"_{name}")()
            except (RuntimeError, OSError) as error:
                self.made[name] = error
        if isinstance(self.made[name], Exception):
            raise RuntimeError(str(self.made[name]))
        return self.made[name]

    def _crank(self):
        if self.own_crank:
            return self.own_crank
        self.run("crank", ["cargo", "build", "--release", "--locked", "-j", self.jobs, "--bin", "crank"])
        return ROOT / "target/release/crank"

    def _workers(self):
        out = self.at / "workers"
        self.run("workers", [self.once("crank"), "build", "guests/hello-world", "--out", out])
        return out

    def _guests(self):
        """Both guests, by the compiler that `crank build` uses: the active one or its private one."""
        self.once("workers")
        target = "wasm32-unknown-unknown"
        ask = lambda *what: subprocess.check_output(["rustc", "--print", *what], text=True, cwd=ROOT).strip()
        env = {}
        if not glob.glob(f"{ask('target-libdir', '--target', target)}/libstd-*.rlib"):
            cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
            private = sorted(glob.glob(f"{cache}/crank/toolchain/*/bin/rustc"))
            if not private:
                raise RuntimeError(f"no compiler has the target {target}: run `rustup target add {target}`")
            env["RUSTC"] = private[-1]
        tools = next(iter(glob.glob(f"{ask('sysroot')}/lib/rustlib/*/bin")), "")
        env["PATH"] = f"{tools}:{os.environ['PATH']}"
        out = self.at / "guests"
        for guest, linker in [("plugin", {}), ("wasi-http", {"LINKER": "wasm-component-ld"})]:
            # The heap that Crank's guests have from the start; for the plugin as well.
            link = {"RUSTFLAGS": "-Clink-arg=--initial-heap=1048576"}
            link.update({f"CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_{key}": value for key, value in linker.items()})
            self.run("guests", ["cargo", "build", "--locked", "-j", self.jobs, "--profile", "guest", "-p",
                                f"peer-{guest}", "--target", target, "--target-dir", out], {**env, **link}, HERE)
        return out / target / "guest"

    def _wasmtime(self):
        to = self.at / "wasmtime"
        features = "run,serve,compile,component-model-async,pooling-allocator,parallel-compilation"
        self.run("wasmtime", ["cargo", "install", "wasmtime-cli", "--version", f"={WASMTIME}", "--locked", "-j", self.jobs,
                              "--no-default-features", "--features", features, "--root", to, "--target-dir", to / "target"])
        return to / "bin/wasmtime"

    def _precompiled(self):
        code = self.at / "wasi-http.cwasm"
        self.run("wasmtime", [self.once("wasmtime"), "compile", *TUNED, "-o", code,
                              self.once("guests") / "peer_wasi_http.wasm"])
        return code

    def _server(self):
        self.run("server", ["cargo", "build", "--release", "--locked", "-j", self.jobs, "-p", "peer-extism",
                            "--target-dir", self.at / "native"], cwd=HERE)
        return self.at / "native/release/peer-extism"

    def _cache(self):
        file = self.at / "extism-cache.toml"
        file.write_text(f'[cache]\ndirectory = "{self.at / "extism-cache"}"\n')
        return file

    def _python(self):
        venv = self.at / "venv"
        self.run("python", [sys.executable, "-m", "venv", venv])
        self.run("python", [venv / "bin/pip", "install", "-q", *PYTHON])
        return venv / "bin/python"

    def _workerd(self):
        to = self.at / "workerd"
        to.mkdir(exist_ok=True)
        self.run("workerd", ["npm", "install", "--prefix", to, "--no-audit", "--no-fund", f"workerd@{WORKERD}"])
        found = glob.glob(f"{to}/node_modules/@cloudflare/workerd-*/bin/workerd")
        if not found:
            raise RuntimeError("npm brought no workerd for this machine")
        return Path(found[0])


def serve(setup, reuse):
    once = setup.once
    return lambda at: [once("wasmtime"), "serve", *TUNED, "--allow-precompiled", "--addr", at,
                       "--max-instance-reuse-count", reuse, "--idle-instance-timeout", "60s", once("precompiled")]


def extism(setup, mode):
    once = setup.once
    return lambda at: [once("server"), mode, at, once("guests") / "peer_plugin.wasm", once("cache")]


def peers(setup):
    """Name, and the command that serves at an address. The first is what the others are compared with."""
    once = setup.once
    return {
        "crank": lambda at: [once("crank"), "serve", once("workers"), "--listen", at],
        "wasmtime-fresh": serve(setup, 1),
        "wasmtime-reused": serve(setup, 1_000_000_000),
        "extism-fresh": extism(setup, "fresh"),
        "extism-pooled": extism(setup, "pooled"),
        "axum": lambda at: [once("server"), "plain", at],
        "fastapi": lambda at: [once("python"), "-m", "uvicorn", "greet:app", "--app-dir", HERE, "--no-access-log",
                               "--log-level", "warning", "--host", at.split(":")[0], "--port", at.split(":")[1]],
        "workerd": lambda at: [once("workerd"), "serve", HERE / "workerd.capnp", f"--socket-addr=http={at}"],
    }


class Server:
    """A server on a core of its own, from its start to its end."""

    def __init__(self, name, command, core, log):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name, self.log = name, log
        # Builds what is missing: before the clock starts.
        line = [str(part) for part in command(f"127.0.0.1:{self.port}")]
        with log.open("wb") as out:
            began = time.perf_counter()
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *line], stdout=out, stderr=out, start_new_session=True,
                env={**os.environ, "RUST_LOG": "warn"},
            )
        try:
            self.cold_ms = self.first_answer(began)
        except BaseException:
            self.end()
            raise

    def first_answer(self, began):
        while time.perf_counter() - began < 60:
            if self.process.poll() is not None:
                break
            try:
                status, body = self.ask()
            except (OSError, http.client.HTTPException):
                time.sleep(0.0005)
                continue
            # A worker that is still being compiled.
            if status in (404, 503):
                time.sleep(0.0005)
                continue
            took = (time.perf_counter() - began) * 1e3
            if status != 200 or json.loads(body) != ANSWER:
                raise RuntimeError(f"{self.name} answers {status} {body[:200]!r}")
            return took
        last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{self.name} gave no answer: {' '.join(last)}")

    def ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", PATH, CALL, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def family(self):
        """The process and its descendants."""
        found, ahead = [], [self.process.pid]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            for children in glob.glob(f"/proc/{pid}/task/*/children"):
                ahead += map(int, Path(children).read_text().split())
        return found

    def cpu_s(self):
        """User and system time, of children that ended as well."""
        ticks = 0
        for pid in self.family():
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        rows = (Path(f"/proc/{pid}/status").read_text() for pid in self.family())
        return sum(int(kib) for row in rows for kib in re.findall(r"VmRSS:\s+(\d+)", row)) / 1024

    def load(self, cores, seconds):
        line = ["taskset", "-c", cores, "wrk", "-t", "2", "-c", str(CONNECTIONS), "-d", f"{seconds}s",
                "-s", str(HERE / "call.lua"), f"http://127.0.0.1:{self.port}{PATH}"]
        out = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        result = json.loads(out.strip().splitlines()[-1])
        if result["errors"] or not result["requests"]:
            raise RuntimeError(f"{self.name}: {result['errors']} errors in {result['requests']} requests")
        return result

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def measure(name, command, options, log):
    server = Server(name, command, options.server_core, log)
    try:
        server.load(options.load_cores, options.warm_up)
        before = server.cpu_s()
        load = server.load(options.load_cores, options.seconds)
        return {
            "rps": load["requests"] / load["seconds"],
            "cpu_us": (server.cpu_s() - before) * 1e6 / load["requests"],
            "p50_ms": load["p50_ms"],
            "p99_ms": load["p99_ms"],
            "mib": server.resident_mib(),
            "cold_ms": server.cold_ms,
        }
    finally:
        server.end()


def table(names, rounds):
    """Rows of Markdown. A ratio is of a round's own pair, so that a change of the machine hits both."""
    first = names[0]
    median = lambda name, key: statistics.median(done[name][key] for done in rounds)
    ratio = lambda name, key: statistics.median(done[name][key] / done[first][key] for done in rounds)
    rows = [f"| peer | requests/s | to {first} | least, most | CPU per request | to {first} | p50 | p99 | resident | cold start |",
            "|---|---|---|---|---|---|---|---|---|---|"]
    for name in names:
        rps = [done[name]["rps"] for done in rounds]
        rows.append(
            f"| {name} | {statistics.median(rps):,.0f} | {ratio(name, 'rps'):.2f} | {min(rps):,.0f}, {max(rps):,.0f} "
            f"| {median(name, 'cpu_us'):.1f} µs | {ratio(name, 'cpu_us'):.2f} | {median(name, 'p50_ms'):.2f} ms "
            f"| {median(name, 'p99_ms'):.2f} ms | {median(name, 'mib'):.0f} MiB | {median(name, 'cold_ms'):.1f} ms |"
        )
    return "\n".join(rows)


def conditions():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    git = lambda *line: subprocess.run(["git", *line], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    locked = (HERE / "Cargo.lock").read_text()
    version = lambda name: re.search(rf'name = "{name}"\nversion = "(.*)"', locked)[1]
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.split(" [")[0]
    dirty = " with changes" if git("status", "--porcelain", "-uno") else ""
    return (
        f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}, Linux {platform.release()}, load average "
        f"{os.getloadavg()[0]:.1f} at the start; commit {git('rev-parse', '--short', 'HEAD')}{dirty}; wasmtime-cli {WASMTIME}, "
        f"extism {version('extism')} (wasmtime {version('wasmtime')}), axum {version('axum')}, {', '.join(PYTHON)}, "
        f"workerd {WORKERD}; load from {wrk}, {CONNECTIONS} connections"
    )


def say(text):
    print(text, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", help="some of the peers, with commas between; crank comes along")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5, help="of load that is measured, for each peer and round")
    parser.add_argument("--warm-up", type=int, default=2, metavar="SECONDS", help="of load before that")
    parser.add_argument("--server-core", type=int, default=0, metavar="CORE")
    parser.add_argument("--load-cores", metavar="LIST", help="as of taskset [default: all others]")
    parser.add_argument("--crank", type=Path, metavar="FILE", help="a crank that is built [default: build this tree's]")
    parser.add_argument("--at", type=Path, default=ROOT / "target/peers", metavar="DIR", help="where builds and logs go")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count(), help="of each build")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's figures")
    parser.add_argument("--setup-only", action="store_true", help="build, check each answer, measure nothing")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0) - {options.server_core})
    options.load_cores = options.load_cores or ",".join(map(str, cores))
    if not options.load_cores:
        parser.error("a single core: the load needs another")
    if min(options.rounds, options.seconds, options.warm_up) < 1:
        parser.error("--rounds, --seconds and --warm-up are at least 1")
    for tool in ["wrk", "taskset", "cargo"]:
        if not shutil.which(tool):
            parser.error(f"`{tool}` is missing; on Debian: apt-get install wrk util-linux, and rustup for cargo")
    return parser, options


def main():
    parser, options = arguments()
    at = options.at.resolve()
    (at / "logs").mkdir(parents=True, exist_ok=True)
    every = peers(Setup(at, options.crank and options.crank.resolve(), options.jobs))
    wanted = set(options.only.split(",")) | {"crank"} if options.only else set(every)
    if wanted - set(every):
        parser.error(f"no such peer: {', '.join(sorted(wanted - set(every)))}; there are {', '.join(every)}")

    say("Making the peers")
    names, left_out = [], {}
    for name in filter(wanted.__contains__, every):
        try:
            # The first start also fills the caches of compiled code.
            Server(name, every[name], options.server_core, at / "logs" / f"serve-{name}.log").end()
            names.append(name)
            say(f"  {name} answers as it should")
        except (RuntimeError, OSError, ValueError) as error:
            left_out[name] = str(error)
            say(f"  {name} is left out: {error}")
    if "crank" not in names:
        sys.exit("nothing to compare with: crank itself does not serve")
    if options.setup_only:
        return

    told, rounds = conditions(), []
    for turn in range(options.rounds):
        say(f"Round {turn + 1} of {options.rounds}")
        done = {}
        # Another order each time, so that nobody always follows the same neighbour.
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            done[name] = measure(name, every[name], options, at / "logs" / f"serve-{name}.log")
            say(f"  {name}: {done[name]['rps']:,.0f} requests/s, {done[name]['cpu_us']:.1f} µs")
        rounds.append(done)
    print(f"{told}; {options.rounds} rounds of {options.seconds} s\n\n{table(names, rounds)}")
    for name, reason in left_out.items():
        print(f"\n{name} is left out: {reason}")
    if options.json:
        options.json.write_text(json.dumps({"conditions": told, "rounds": rounds, "left_out": left_out}, indent=1))


if __name__ == "__main__":
    main()
