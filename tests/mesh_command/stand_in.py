"""Stands for a process of the mesh: takes its flags, announces itself, answers its admin port.

--not-ready REASON answers 503; --fail TEXT prints it and ends with code 3; --deaf ignores SIGTERM;
--view JSON is what a router has in its page.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

parser = argparse.ArgumentParser()
for flag in ("--name", "--announce-file", "--not-ready", "--fail", "--view"):
    parser.add_argument(flag)
parser.add_argument("--deaf", action="store_true")
ARGS = parser.parse_args()


class Admin(BaseHTTPRequestHandler):
    """The two pages that ./mesh reads."""

    def do_GET(self) -> None:
        """Answers /readyz and /statusz."""
        reason = ARGS.not_ready or ""
        page = {"name": ARGS.name, "pid": os.getpid(), "ready": not reason, "reason": reason,
                "uptime_s": 1, "peers": [{"name": "gone", "role": "router", "state": "down",
                                          "since_s": 1, "reason": "connection refused"}]}
        if ARGS.view:
            page["view"] = json.loads(ARGS.view)
        text = f"not ready: {reason}" if reason else "ready"
        if self.path == "/statusz":
            text = json.dumps(page)
        self.send_response(503 if reason and self.path == "/readyz" else 200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


if ARGS.fail:
    sys.exit(print(ARGS.fail) or 3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if ARGS.deaf else lambda *_: os._exit(0))
with HTTPServer(("127.0.0.1", 0), Admin) as server:
    ANNOUNCED = {"name": ARGS.name, "admin_address": f"127.0.0.1:{server.server_port}"}
    with open(ARGS.announce_file + ".new", "w", encoding="utf-8") as file:
        json.dump(ANNOUNCED, file)
    os.rename(ARGS.announce_file + ".new", ARGS.announce_file)
    server.serve_forever()
