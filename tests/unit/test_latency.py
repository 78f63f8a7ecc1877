"""Times by the clock: what a server streams, and what an answer's moments come to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Message
from forge_cli.evaluate import latency_process
from forge_cli.evaluate.latency import Speed, Timing
from forge_cli.evaluate.latency_process import clock
from forge_cli.teachers.openai import OpenAITeacher
from forge_cli.teachers.streaming import stream
from openai_server import OpenAIServer

CHAT = [Message(role="user", content="q")]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    server = OpenAIServer(lambda chat: "one two three")
    yield server
    server.close()


def teacher(url: str) -> OpenAITeacher:
    return OpenAITeacher("openai:m", "m", url, max_tokens=7, timeout=5)


def test_a_server_is_heard_piece_by_piece(server: OpenAIServer) -> None:
    assert list(stream(teacher(server.url), CHAT)) == ["one", "two", "three"]
    assert server.requests == [
        {
            "model": "m", "messages": [{"role": "user", "content": "q"}], "temperature": 0,
            "max_tokens": 7, "stream": True,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "says"),
    [(503, "HTTP 503: .*as told"), ((200, {"choices": []}), "it does not stream an answer")],
)
def test_a_server_that_does_not_stream_is_named(
    server: OpenAIServer, fault: object, says: str
) -> None:
    server.faults.append(fault)
    with pytest.raises(ForgeError, match=says):
        list(stream(teacher(server.url), CHAT))
    assert len(server.requests) == 1, "a second try would be no measure"


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ForgeError, match=r"openai:m at http://127.0.0.1:9/v1: ConnectError"):
        list(stream(teacher("http://127.0.0.1:9/v1"), CHAT))


def test_a_key_is_not_streamed_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(UsageError, match="unencrypted"):
        list(stream(teacher("http://192.0.2.1/v1"), CHAT))


class Slow:
    """A side whose tokens come at moments that are told."""

    def __init__(self, moments: list[float], now: list[float]) -> None:
        self.moments, self.now = moments, now

    def stream(self, prompt: list[Message]) -> Iterator[None]:
        for moment in self.moments:
            self.now[0] = moment
            yield
        self.now[0] += 100  # what comes after the last token is no token's time


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        ([3.0, 4.0, 7.0], {"first": 3.0, "each": 2.0, "tokens": 3}),
        ([3.0], {"first": 3.0, "each": None, "tokens": 1}),
        ([], {"first": 100.0, "each": None, "tokens": 0}),
    ],
)
def test_seconds_to_the_first_token_and_for_each_after_it(
    monkeypatch: pytest.MonkeyPatch, moments: list[float], found: dict[str, object]
) -> None:
    now = [0.0]
    monkeypatch.setattr(latency_process.time, "perf_counter", lambda: now[0])
    assert clock(Slow(moments, now), CHAT) == found  # type: ignore[arg-type]


def test_a_side_is_summed_up_by_medians() -> None:
    timings = [Timing(1.0, 0.5, 9), Timing(9.0, 0.1, 9), Timing(2.0, None, 1)]
    assert Speed(timings, 7).as_summary() == {
        "n": 3, "first_token_seconds": 2.0, "tokens_per_second": pytest.approx(1 / 0.3),
        "peak_bytes": 7,
    }  # fmt: skip
    assert Speed(timings[2:], None).as_summary()["tokens_per_second"] is None
