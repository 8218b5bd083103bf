"""A W&B server on loopback that answers just enough for a run in online mode, until it dies."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "janus_pl", "entity": {"id": "e", "name": "somebody"}}
BUCKET = {"id": "b", "displayName": "a run", "config": "{}", "project": PROJECT}
ANSWERS: dict[str, Any] = {
    "Viewer": {"viewer": {"id": "u", "entity": "somebody", "username": "somebody", "flags": "{}"}},
    "CreateRunFiles": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
}


class Server(ThreadingHTTPServer):
    """Serves in a thread of its own until `/die` is asked for; then connections are refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.alive = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def die(self) -> None:
        if self.alive:
            self.alive = False
            self.shutdown()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection is closed after every answer."""

    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation, name = self.path, ""
        if self.path == "/graphql":
            query = json.loads(body)
            operation, name = query["operationName"], query.get("variables", {}).get("name")
        self.server.asked.append(operation)
        if self.path == "/die":
            self.server.die()
        data = ANSWERS.get(operation, {})
        if operation == "UpsertBucket":
            data = {"upsertBucket": {"bucket": {**BUCKET, "name": name}, "inserted": True}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass
