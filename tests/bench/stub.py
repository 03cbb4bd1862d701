"""One HTTPS server in a process of its own that plays Capy, dbt Cloud, Databricks and any HTTP service, and keeps count.

Run as ``python -m tests.bench.stub CERTIFICATE KEY``; prints its port. ``POST /_plan`` says how many threads there are, how
many of others' stand before them in every list of those at work, and when ours begin to settle and over how many seconds;
``GET /_stats`` tells what arrived since.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from urllib.parse import parse_qs, urlsplit

import uvloop

PAGE = 100


class World:
    def __init__(self) -> None:
        self.connections = 0
        self.plan({"threads": 0, "settle_at": None, "over": 1.0})

    def plan(self, plan: dict) -> dict:
        if "threads" in plan:
            self.threads, self.others = plan["threads"], plan.get("others", 0)
            self.requests, self.handshakes, self.arrivals = 0, 0, []
            self.head = [self._head(number) for number in range(self.threads)]
            self.stranger = self._head(-1) + ', "status": "active", "runState": "running"}'
        self.settle_at, self.over = plan["settle_at"], plan["over"]
        return {}

    @staticmethod
    def _head(number: int) -> str:
        tasks = [
            {
                "id": f"tsk_{n}",
                "threadIndex": n,
                "identifier": f"ENG-{n}",
                "title": "A task with a title of some words",
                "status": "in_progress",
            }
            for n in range(3)
        ]
        requests = [
            {
                "number": 7,
                "url": "https://github.com/org/repo/pull/7",
                "repoFullName": "org/repo",
                "state": "open",
                "headRef": "capy/branch",
                "baseRef": "main",
                "draft": False,
            }
        ]
        people = [
            {
                "userId": f"usr_{n}",
                "userType": "human",
                "firstParticipatedAt": "2026-11-01T10:00:00.000Z",
                "lastParticipatedAt": "2026-11-01T11:00:00.000Z",
            }
            for n in range(2)
        ]
        item = {
            "id": f"jam_{number}",
            "projectId": "prj_bench",
            "title": "Upgrade the dependencies of the service and fix what breaks",
            "tags": [{"name": "airflow", "color": "#00f"}],
            "participants": people,
            "tasks": tasks,
            "pullRequests": requests,
            "slackThreads": [],
            "waitingOn": [],
            "blockedOn": [],
            "pendingWakeups": 0,
            "createdAt": "2026-11-01T10:00:00.000Z",
            "updatedAt": "2026-11-01T11:00:00.000Z",
        }
        return json.dumps(item)[:-1]

    def settled(self, number: int) -> bool:
        if self.settle_at is None:
            return False
        # Evenly over the time, in no order that pages or polls could share.
        return time.time() >= self.settle_at + self.over * ((number * 7919) % self.threads) / max(self.threads, 1)

    def item(self, number: int) -> str:
        status, state = ("idle", "ready") if self.settled(number) else ("active", "running")
        return f'{self.head[number]}, "status": "{status}", "runState": "{state}"}}'

    def page(self, query: dict) -> str:
        wanted = query.get("status")
        number = int(query.get("cursor") or (0 if wanted == "idle" else -self.others))
        shown = [self.stranger] * min(max(-number, 0), PAGE)
        number += len(shown)
        while number < self.threads and len(shown) < PAGE:
            if wanted is None or (wanted == "idle") == self.settled(number):
                shown.append(self.item(number))
            number += 1
        more = number < self.threads
        cursor = f'"{number}"' if more else "null"
        return f'{{"items": [{", ".join(shown)}], "nextCursor": {cursor}, "hasMore": {str(more).lower()}}}'

    def answer(self, target: str, body: bytes) -> tuple[int, str]:  # noqa: PLR0911 - one line a service
        if target == "/_plan":
            return 200, json.dumps(self.plan(json.loads(body)))
        if target == "/_stats":
            return 200, json.dumps(
                {"requests": self.requests, "connections": self.handshakes, "arrivals": self.arrivals}
            )
        self.requests += 1
        self.arrivals.append(round(time.time(), 3))
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if url.path == "/api/v1/threads":
            return 200, self.page(query)
        if parts[:3] == ["api", "v1", "threads"]:
            return 200, self.item(int(parts[3].removeprefix("jam_")))
        if parts[:2] == ["api", "v2"] and "runs" in parts:
            number = int(parts[parts.index("runs") + 1])
            return 200, json.dumps({"data": {"id": number, "status": 10 if self.settled(number) else 3}})
        if "jobs" in parts:
            number = int(query.get("run_id") or json.loads(body or b"{}").get("run_id", 0))
            life = (
                {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
                if self.settled(number)
                else {"life_cycle_state": "RUNNING"}
            )
            return 200, json.dumps({"run_id": number, "state": {**life, "state_message": ""}, "run_page_url": "x"})
        number = int(parts[-1])
        return (200 if self.settled(number) else 404), '{"ok": true}'


async def serve(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    fresh = True
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            _, target, _ = head.split("\r\n", 1)[0].split(" ")
            length = next(
                (int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0
            )
            body = await reader.readexactly(length) if length else b""
            if fresh and not target.startswith("/_"):
                fresh = False
                world.handshakes += 1
            status, text = world.answer(target, body)
            answer = text.encode()
            reason = "OK" if status == 200 else "Not Found"
            writer.write(
                f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n".encode()
                + answer
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    world = World()
    server = await asyncio.start_server(lambda r, w: serve(world, r, w), "127.0.0.1", 0, ssl=context, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
