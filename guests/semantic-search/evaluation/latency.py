#!/usr/bin/env python3
"""How long a search takes among many documents, over HTTP: latency.py URL [DOCUMENTS].

The documents are made of sentences of documents.txt, four of each by chance, always the same. The host
must serve the worker with an empty index.
"""
import json, pathlib, random, sys, time, urllib.request

url, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
here = pathlib.Path(__file__).parent
lines = [l.split(": ", 1)[1] for l in (here / "documents.txt").read_text().splitlines() if ": " in l and l[0] != "#"]
sentences = [s for l in lines for s in l.split(". ")]
queries = [l.split(" | ")[0] for l in (here / "queries.txt").read_text().splitlines() if " | " in l]


def call(verb, body):
    request = urllib.request.Request(f"{url}/invoke/{verb}/semantic_documents", json.dumps(body).encode(), {"content-type": "application/json"})
    start = time.perf_counter()
    urllib.request.urlopen(request).read()
    return (time.perf_counter() - start) * 1000


def show(name, times):
    times.sort()
    at = lambda part: times[min(len(times) - 1, int(part * len(times)))]
    print(f"{name:28} n={len(times):4}  p50 {at(.5):7.1f}  p95 {at(.95):7.1f}  p99 {at(.99):7.1f}  max {times[-1]:7.1f} ms")


chance = random.Random(1)
documents = [{"id": f"d{n}", "text": ". ".join(chance.choices(sentences, k=4)), "metadata": {"part": n % 10}} for n in range(count)]
show("index, 500 at a time", [call("index", {"documents": documents[n:n + 500]}) for n in range(0, count, 500)])
show("index, one more", [call("index", {"documents": [{"id": f"e{n}", "text": lines[n % len(lines)]}]}) for n in range(100)])
for name, more in [("search", {}), ("search, bm25", {"mode": "bm25"}), ("search, vectors", {"mode": "vectors"}), ("search, filtered", {"filter": {"part": [1, 2]}})]:
    show(name, [call("search", {"query": q, **more}) for q in queries * 4])
show("delete", [call("delete", {"ids": [f"e{n}"]}) for n in range(50)])
