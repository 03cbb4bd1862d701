"""A Capy that is slow, drips, goes away or takes another token: what is shared keeps nobody waiting. Real sockets, real triggers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.api.client import AsyncCapyClient
from airflow_provider_capy.polling.registry import registry
from tests.unit.polling.scripted import (
    INTERVAL,
    TOKEN,
    Asked,
    Line,
    ScriptedCapy,
    answer,
    latest,
    outcomes,
    refusal,
    wait_for,
    wait_for_all,
)

if TYPE_CHECKING:
    from tests.unit.polling.scripted import Ended

# What this machine may take for a look that is due.
BUSY = 1.5
NEW = "capy_rotated"


async def test_two_connections_with_one_token_that_is_rotated_in_one_of_them(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch, quick_proof: None
) -> None:
    for name in ("ROTATED", "FORGOTTEN"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", capy.connection())
    of_rotated, of_forgotten = set(capy.threads(12, "rotated", ready_in=2.5)), set(capy.threads(12, "forgotten"))
    good = TOKEN

    async def judge(asked: Asked, _: Line) -> bytes | None:
        if asked.token != good:
            return refusal(401)
        # The new one is of another organisation, which does not know the other threads.
        return refusal(404) if good == NEW and asked.thread_id in of_forgotten else None

    capy.script = judge
    waits = [
        asyncio.ensure_future(wait_for_all(ids, project_id=name, capy_conn_id=name))
        for name, ids in (("rotated", of_rotated), ("forgotten", of_forgotten))
    ]
    await asyncio.sleep(1.0)
    assert len(registry()._pollers) == 2
    monkeypatch.setenv("AIRFLOW_CONN_ROTATED", capy.connection(NEW))
    good, rotated_at = NEW, time.time()
    rotated, forgotten = await asyncio.gather(*waits)
    assert outcomes(rotated) == {"ready": 12}
    assert latest(capy, rotated) < 2 * INTERVAL + BUSY
    assert {one.event["failure"]["status_code"] for one in forgotten} == {401}
    assert outcomes(forgotten) == {"poll_failed": 12}
    shown = defaultdict(set)
    for asked in capy.asked:
        shown[asked.token].add(asked.thread_id or asked.project_id)
    assert shown[NEW] <= of_rotated | {"rotated"}
    # Each of those in flight with the old one is sent once more with the new one, and nothing after them.
    late = [asked for asked in capy.asked if asked.at > rotated_at + INTERVAL + BUSY and asked.token == TOKEN]
    assert {asked.thread_id or asked.project_id for asked in late} <= of_forgotten | {"forgotten"}


async def test_four_hundred_projects_of_a_slow_capy(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__CAPY__POLL_REQUESTS", "40")

    async def slow(*_: Any) -> None:
        await asyncio.sleep(0.25)

    capy.script = slow
    began = time.time()
    waits = []
    for number in range(400):
        [thread_id] = capy.threads(1, f"prj_{number}", ready_in=0.5)
        waits.append(wait_for(thread_id, project_id=f"prj_{number}"))
    ended = await asyncio.gather(*waits)
    assert outcomes(ended) == {"ready": 400}
    assert 40 <= capy.most_open <= 40 + 40 // 4
    # Ten turns of 0.25 s, once more for those that were asked for too early; one after the other it would take 100 s and more.
    assert time.time() - began < 12.0
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


async def test_pages_that_take_longer_than_an_interval(capy: ScriptedCapy) -> None:
    async def slow(asked: Asked, _: Line) -> None:
        if not asked.thread_id:
            await asyncio.sleep(2.0)

    capy.script = slow
    working, done = capy.threads(20), capy.threads(20, ready_in=1.0, over=2.0)
    began = time.time()
    ended, late = await asyncio.gather(wait_for_all(done), wait_for_all(working, deadline=began + 3.0))
    assert (outcomes(ended), outcomes(late)) == ({"ready": 20}, {"timeout": 20})
    assert capy.pages() >= 1
    # A page keeps a look waiting for an interval at the most.
    assert latest(capy, ended) < 2 * INTERVAL + BUSY
    assert max(one.at for one in late) - began - 3.0 < BUSY
    looks = defaultdict(lambda: [began])
    for asked in capy.asked:
        looks[asked.thread_id].append(asked.at)
    for thread_id in working:
        times = looks[thread_id]
        assert max(b - a for a, b in pairwise(times)) < 2.2 * INTERVAL + BUSY
        # No more than alone either.
        assert len(times) <= 3.0 / (0.9 * INTERVAL) + 3


async def test_second_looks_come_on_time_beside_pages_that_take_longer(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = capy.threads(3)
    began = time.time()

    async def slow(asked: Asked, _: Line) -> bytes | None:
        if not asked.thread_id:
            await asyncio.sleep(2.0)
        elif asked.thread_id in blocked and time.time() > began + 0.7:
            return answer(200, {**capy.shown(asked.thread_id, "prj"), "runState": "blocked", "blockedOn": ["x"]})
        return None

    capy.script = slow
    ended, _ = await asyncio.gather(
        wait_for_all(blocked), wait_for_all(capy.threads(20), deadline=began + 4.5), return_exceptions=True
    )
    assert outcomes(ended) == {"blocked": 3}
    # Seen within two intervals, and believed after three seconds.
    assert max(one.at for one in ended) - began < 0.7 + 2 * INTERVAL + 3.0 + INTERVAL + BUSY


@pytest.mark.parametrize("interval", [INTERVAL, 3.0])
async def test_a_page_whose_headers_drip_keeps_no_deadline_waiting(
    capy: ScriptedCapy, in_step: None, interval: float
) -> None:
    async def drip(asked: Asked, line: Line) -> bytes | None:
        if asked.thread_id:
            return None
        line.writer.write(b"HTTP/1.1 200 X\r\n")
        while True:
            line.writer.write(b"x-drip: 1\r\n")
            await line.writer.drain()
            await asyncio.sleep(0.1)

    capy.script = drip
    deadline = time.time() + 2.3
    ended = await wait_for_all(capy.threads(6), poll_interval=interval, deadline=deadline)
    assert outcomes(ended) == {"timeout": 6}
    assert capy.pages() >= 1
    assert max(one.at for one in ended) - deadline < BUSY
    assert registry().is_empty


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When requests were sent, also those that reach nobody (epoch seconds)."""
    times: list[float] = []
    real = AsyncCapyClient._once

    async def counted(self: Any, call: Any) -> Any:
        times.append(time.time())
        return await real(self, call)

    monkeypatch.setattr(AsyncCapyClient, "_once", counted)
    return times


@pytest.mark.parametrize("how", ["refused", "html"])
async def test_an_outage_under_sixty_waits(
    capy: ScriptedCapy, sent: list[float], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level("INFO")
    ids = capy.threads(60, ready_in=5.0)
    [late] = capy.threads(1)
    began = time.time()
    waits = asyncio.gather(*(wait_for(one) for one in ids))
    at_its_end = asyncio.ensure_future(wait_for(late, deadline=began + 3.0))
    await asyncio.sleep(1.0)

    async def away(*_: Any) -> bytes:
        return answer(503, b"<html>No server is available</html>", content_type="text/html")

    if how == "refused":
        await capy.stop()
    else:
        capy.script = away
    await asyncio.sleep(4.0)
    if how == "refused":
        await capy.start()
    capy.script = None
    back = time.time()
    during = [at for at in sent if began + 1.5 < at < back]
    ended: list[Ended] = await waits
    last = await at_its_end
    assert (outcomes(ended), last.outcome) == ({"ready": 60}, "timeout")
    assert last.at - began - 3.0 < BUSY
    # A probe comes every two seconds, those who look again in a moment beside it, and the look at the deadline.
    assert len(during) < 20
    assert max(one.at for one in ended) - back < 2.0 + 2 * INTERVAL + BUSY
    lines = Counter(
        words for record in caplog.records for words in ("slow down together", "go on after") if words in record.msg
    )
    assert lines == {"slow down together": 1, "go on after": 1}
    told = [record for record in caplog.records if "could not be looked at" in record.getMessage()]
    assert len(told) <= 3


async def test_a_queue_of_slow_gets_keeps_no_deadline_waiting(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CAPY__POLL_REQUESTS", "4")

    async def slow(*_: Any) -> None:
        await asyncio.sleep(0.4)

    capy.script = slow
    deadline = time.time() + 2.0
    waits = [
        asyncio.ensure_future(wait_for(capy.threads(1, f"prj_{number}")[0], project_id=f"prj_{number}"))
        for number in range(60)
    ]
    ended = await wait_for_all(capy.threads(6, "late"), deadline=deadline, project_id=None)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert outcomes(ended) == {"timeout": 6}
    # The end of the GETs that make room, and two turns of four.
    assert max(one.at for one in ended) - deadline < 3 * 0.4 + BUSY
