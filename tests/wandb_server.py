"""A W&B server on loopback that answers just enough: for a run in online mode, until it dies, for
reading runs back, and for a sweep with one agent."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "janus_pl", "entity": {"id": "e", "name": "somebody"}}
BUCKET = {"id": "b", "displayName": "a run", "config": "{}", "project": PROJECT}
ANSWERS: dict[str, Any] = {
    "Viewer": {"viewer": {"id": "u", "entity": "somebody", "username": "somebody", "flags": "{}"}},
    "GetDefaultEntity": {"viewer": {"id": "u", "entity": "somebody"}},
    "CreateRunFiles": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
}


class Server(ThreadingHTTPServer):
    """Serves in a thread of its own until `/die` is asked for; then connections are refused.

    Attributes:
        asked: the names of operations, or paths.
        runs_told: the ids of runs that were created or changed, as they came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.runs_told: list[str] = []
        self.alive = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, operation: str, variables: Mapping[str, Any]) -> Any:
        """The data of an answer; the variables are those of the query."""
        if operation == "UpsertBucket":
            self.runs_told.append(variables.get("name") or "")
            bucket = {**BUCKET, "name": variables.get("name")}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        return ANSWERS.get(operation, {})

    def die(self) -> None:
        if self.alive:
            self.alive = False
            self.shutdown()
            self.server_close()


class RunsServer(Server):
    """Has runs, each with its rows: `node` makes one."""

    def __init__(self, runs: Mapping[str, tuple[dict[str, Any], Sequence[Mapping]]]) -> None:
        super().__init__()
        self.runs = runs
        self.filters: list[Any] = []

    def answer(self, operation: str, variables: Mapping[str, Any]) -> Any:
        if operation == "Runs":
            self.filters.append(json.loads(variables["filters"]))
            edges = [{"node": head, "cursor": name} for name, (head, _) in self.runs.items()]
            page = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            count = {"internalId": "1", "runCount": len(edges), "readOnly": False}
            return {"project": {**count, "runs": page}}
        rows = self.runs.get(variables.get("name") or variables.get("runName", ""), ({}, ()))[1]
        if operation == "RunHistoryKeys":
            keys: Any = {"lastStep": len(rows) - 1, "sets": [], "keys": {}}
            return {"project": {"run": {"historyKeys": keys}}}
        if operation == "RunParquetHistory":
            live = [{"_step": step} for step in range(len(rows))]
            return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}
        if operation == "HistoryPage":
            rows = self.runs[variables["run"]][1]
            lines = [json.dumps({"_step": step, **row}) for step, row in enumerate(rows)]
            lines = lines[variables["minStep"] : variables["maxStep"]]
            return {"project": {"run": {"history": lines}}}
        return super().answer(operation, variables)


class SweepServer(Server):
    """Takes one sweep and hands its points to an agent, one after the other.

    Attributes:
        config: the sweep as it was created, None before.
    """

    def __init__(self, points: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.config: str | None = None
        self._waiting = list(points.items())

    def answer(self, operation: str, variables: Mapping[str, Any]) -> Any:
        if operation == "UpsertSweep":
            self.config = variables["config"]
            sweep = {"name": "s1", "project": PROJECT}
            return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
        if operation == "SweepWithRuns":
            found = {"id": "i", "name": "s1", "state": "RUNNING", "config": self.config}
            return {"project": {"sweep": {**found, "runs": {"edges": []}}}}
        if operation == "GetSweepState":
            return {"project": {"sweep": {"state": "RUNNING"}}}
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "a"}}}
        if operation == "Heartbeat":
            busy = bool(json.loads(variables["runState"]))
            return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": self._command(busy)}}
        return super().answer(operation, variables)

    def _command(self, busy: bool) -> str:
        if busy:
            return "[]"
        if not self._waiting:
            return json.dumps([{"id": "end", "type": "exit"}])
        name, point = self._waiting.pop(0)
        args = {key: {"value": value} for key, value in point.items()}
        run = {"id": name, "type": "run", "run_id": name, "program": "", "args": args}
        return json.dumps([run])


def node(name: str, config: Mapping[str, Any], state: str = "finished", **given: Any) -> Any:
    """What the server knows of a run beside its rows."""
    nothing = dict.fromkeys(("sweepName", "commit", "notes", "group", "historyKeys"))
    return {
        **nothing,
        "id": name,
        "name": name,
        "displayName": name,
        "state": state,
        "tags": [],
        "jobType": "train",
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "description": "",
        "user": {"name": "somebody", "username": "somebody"},
        "config": json.dumps({key: {"value": value} for key, value in config.items()}),
        "systemMetrics": "{}",
        "summaryMetrics": "{}",
        "historyLineCount": 0,
        "projectId": "1",
        **given,
    }


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection is closed after every answer."""

    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.path
        variables: dict[str, Any] = {}
        if self.path == "/graphql":
            query = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            operation = query.get("operationName") or (named[1] if named else "")
            variables = query.get("variables") or {}
        self.server.asked.append(operation)
        if self.path == "/die":
            self.server.die()
        answer = json.dumps({"data": self.server.answer(operation, variables)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass
