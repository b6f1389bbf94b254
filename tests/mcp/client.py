"""Lists and calls the tools of the repository's workers with the Python SDK's client, over both transports.

    python client.py CRANK WORKERS CONFIG

Each call is one that the worker's author gives as an example, read from its page.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

crank, workers, config = sys.argv[1:4]


def environment(scratch):
    return os.environ | {"CRANK_STATE_DIR": scratch, "CRANK_CONFIG": config}


@asynccontextmanager
async def over_stdio(scratch):
    started = StdioServerParameters(command=crank, args=["mcp", workers], env=environment(scratch))
    async with stdio_client(started) as (read, write), ClientSession(read, write) as session:
        yield session


@asynccontextmanager
async def over_http(scratch):
    serve = [crank, "serve", workers, "--listen", "127.0.0.1:0"]
    host = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, env=environment(scratch))
    try:
        for line in host.stderr:
            if found := re.search(r"listening on (\S+)", line):
                break
        # Nobody reads on, and a pipe that is full would stop the host.
        draining = asyncio.get_running_loop().run_in_executor(None, host.stderr.read)
        async with streamable_http_client(found[1] + "/mcp") as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                yield session
    finally:
        host.terminate()
        host.wait()
        await draining


def first_example(page):
    """The first example that is JSON."""
    for shown in re.findall(r"\(application/json\):\n\n~~~~~~~~\n(.*?)\n~~~~~~~~", page, re.DOTALL):
        return json.loads(shown)
    return None


async def converse(name, connect):
    with tempfile.TemporaryDirectory() as scratch:
        async with connect(scratch) as session:
            about = await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            pages = {}
            for resource in (await session.list_resources()).resources:
                read = await session.read_resource(resource.uri)
                verb, of = str(resource.uri).removeprefix("crank://capabilities/").split("/")
                pages[verb if verb == of else f"{verb}-{of}"] = read.contents[0].text
            assert pages.keys() == tools.keys()
            print(f"{name}: protocol {about.protocolVersion}, {len(tools)} tools")
            served, failed = set(), 0
            # What is stored first is there for those that look for it.
            for tool in sorted(tools, key=lambda tool: (not tool.startswith(("store", "index")), tool)):
                worker = re.search(r"\* worker: `(.*)`", pages[tool])[1]
                arguments = first_example(pages[tool])
                if arguments is None:
                    print(f"  {tool}: has no example in JSON")
                    failed += 1
                    continue
                events = []

                async def progress(done, total, message):
                    events.append(message)

                result = await session.call_tool(tool, arguments, progress_callback=progress)
                told = result.content[0]
                text = getattr(told, "text", told.type).replace("\n", " ")
                failed += result.isError
                served.add(worker)
                mark = "FAILED" if result.isError else f"{len(events)} events" if events else "ok"
                print(f"  {tool} ({worker}): {mark}: {text[:80]}")
            print(f"{name}: {len(served)} workers called, {failed} calls failed")
            return failed


async def main():
    failed = [await converse("stdio", over_stdio), await converse("http", over_http)]
    sys.exit(1 if any(failed) else 0)


asyncio.run(main())
