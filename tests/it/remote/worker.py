"""A remote worker of Python's standard library alone. It does as the input's `subject` says.

    worker.py DIR [PORT [CERTIFICATE KEY]]

It prints its port, and keeps one line of JSON for each call in DIR/calls.
"""

import json
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIR = sys.argv[1]
LOCK = threading.Lock()


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # A worker need not know /healthz: that it answers is enough.
        self.answer(404, {"error": "no such route"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        is_json = self.headers["content-type"] == "application/json"
        call = json.loads(body) if is_json else {"bytes": len(body)}
        line = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "input": call}
        with LOCK, open(os.path.join(DIR, "calls"), "a") as calls:
            calls.write(json.dumps(line) + "\n")
        subject = call.get("subject")
        if subject == "die once":
            try:
                os.close(os.open(os.path.join(DIR, "died"), os.O_CREAT | os.O_EXCL))
                os._exit(1)
            except FileExistsError:
                pass
        if subject == "die":
            os._exit(1)
        if subject == "wait":
            time.sleep(5)
        if "n" in call:
            time.sleep(0.002)
            return self.answer(200, {"n": call["n"]})
        if subject == "redirect":
            return self.answer(302, {}, location="/elsewhere")
        if subject == "busy":
            return self.answer(503, {}, retry_after="7")
        if subject == "problem":
            problem = {"code": call["code"], "detail": "a\nreason", "worker_code": "own",
                       "errors": [{"pointer": "/subject", "detail": "will not do"}]}
            return self.answer(422, problem, content_type="application/problem+json")
        if subject == "large":
            return self.answer(200, {"category": "x" * (2 << 20)})
        category = "maybe" if subject == "lie" else "normal"
        self.answer(200, {"category": category, "confidence": 0.9})

    def answer(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        headers.setdefault("content_type", "application/json")
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Worker)
    if len(sys.argv) > 4:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[3], sys.argv[4])
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()
