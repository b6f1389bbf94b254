"""Lists and calls the tools of the repository's workers with the Python SDK's client (PyPI: mcp 2.3), over
both transports and in both versions of the protocol.

    python client.py CRANK WORKERS CONFIG

Each call is one that the worker's author gives as an example, read from the capability's page.
"""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from mcp import Client, StdioServerParameters

crank, workers, config = sys.argv[1:4]
DATA = Path(__file__).parent.parent / "data"
# The examples of these are files.
FILES = {
    "classify-image_objects": "../../guests/mcp-conformance/src/pixel.png",
    "convert-docx_to_text": "pandoc.docx",
    "convert-email_to_text": "nested.eml",
    "convert-pdf_to_text": "groff.pdf",
}


@contextmanager
def over_stdio(environment):
    yield StdioServerParameters(command=crank, args=["mcp", workers], env=environment)


@contextmanager
def over_http(environment):
    with tempfile.NamedTemporaryFile("r+") as log:
        serve = [crank, "serve", workers, "--listen", "127.0.0.1:0"]
        host = subprocess.Popen(serve, stderr=log, env=environment)
        try:
            listening = None
            while listening is None and host.poll() is None:
                log.seek(0)
                listening = re.search(r"listening on (\S+)", log.read())
            # A worker that asks for a GPU is placed once the drivers have answered.
            while json.load(urlopen(listening[1] + "/workers"))["starting"]:
                time.sleep(0.1)
            yield listening[1] + "/mcp"
        finally:
            host.terminate()
            host.wait()


def arguments(tool, page):
    """The first example, or a file in the property that takes bytes."""
    if file := FILES.get(tool.name):
        properties = tool.input_schema["properties"].items()
        [takes] = [name for name, schema in properties if schema.get("contentEncoding")]
        return {takes: base64.b64encode((DATA / file).read_bytes()).decode()}
    shown = re.search(r"\(application/json\):\n\n~~~~~~~~\n(.*?)\n~~~~~~~~", page, re.DOTALL)
    return json.loads(shown[1])


async def converse(transport, mode):
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"CRANK_STATE_DIR": scratch, "CRANK_CONFIG": config}
        with transport(environment) as server:
            async with Client(server, mode=mode) as client:
                return await call_all(client, f"{transport.__name__}, {client.protocol_version}")


async def call_all(client, name):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    pages = {}
    for resource in (await client.list_resources()).resources:
        read = await client.read_resource(resource.uri)
        verb, of = str(resource.uri).removeprefix("crank://capabilities/").split("/")
        pages[verb if verb == of else f"{verb}-{of}"] = read.contents[0].text
    assert pages.keys() == tools.keys()
    print(f"{name}: {len(tools)} tools")
    called, failed = set(), 0
    # What is stored first is there for those that look for it.
    for tool in sorted(tools, key=lambda tool: (not tool.startswith(("store", "index")), tool)):
        worker = re.search(r"\* worker: `(.*)`", pages[tool])[1]
        events = []

        async def progress(done, total, message):
            events.append(message)

        result = await client.call_tool(
            tool, arguments(tools[tool], pages[tool]), progress_callback=progress
        )
        told = result.content[0]
        text = getattr(told, "text", told.type).replace("\n", " ")
        called.add(worker)
        failed += result.is_error
        mark = "FAILED" if result.is_error else f"{len(events)} events" if events else "ok"
        print(f"  {tool} ({worker}): {mark}: {text[:80]}")
    print(f"{name}: {len(called)} workers called, {failed} calls failed\n")
    return failed


async def main():
    failed = 0
    for transport in over_stdio, over_http:
        for mode in "legacy", "2026-07-28":
            failed += await converse(transport, mode)
    sys.exit(1 if failed else 0)


asyncio.run(main())
