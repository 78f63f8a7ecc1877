"""Teachers: over real HTTP with real faults; nothing that they write is believed unseen."""

from __future__ import annotations

import email
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from forge_cli import mine, raft
from forge_cli.core.config import resolve
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT
from forge_cli.core.records import Chunk, Example, Message, Verdict
from forge_cli.pipeline.dry_run import plan
from forge_cli.raft.pairs import find_quote, read_pairs
from forge_cli.raft.questions import Ask
from forge_cli.raft.teach import verified
from forge_cli.teachers import Completion, open_teacher
from forge_cli.teachers.cache import Cached
from forge_cli.teachers.mlx import MlxTeacher
from forge_cli.teachers.openai import OpenAITeacher
from openai_server import OpenAIServer
from tiny_train import save_model

SOURCE = '''
def mean(values, default=None):
    """Average the values of a list."""
    if not values:
        return default
    return sum(values) / len(values)


def spread(values):
    """How far the values lie apart from each other."""
    return max(values) - min(values)
'''


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "a.py").write_text(SOURCE)
    return list(mine.run(folder))


def good(messages: list[dict[str, str]]) -> str:
    name, quote = ("mean", "return default") if "mean" in messages[1]["content"] else (
        "spread", "return max(values) - min(values)",
    )  # fmt: skip
    pair = {"question": f"What does `{name}` give?", "answer": f"See {name}.", "quote": quote}
    return f"Sure!\n{json.dumps(pair)}\n"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    running = OpenAIServer(good)
    yield running
    running.close()


def prompt(text: str) -> list[Message]:
    return [Message(role="system", content="Write."), Message(role="user", content=text)]


def teacher(server: OpenAIServer, **options: object) -> OpenAITeacher:
    return OpenAITeacher("openai:m", "m", server.url, backoff=0, **options)  # type: ignore[arg-type]


def ask(who: OpenAITeacher | Cached, count: int) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    who.complete([prompt(f"spread {n}") for n in range(count)], found.__setitem__)
    return found


def test_answers_come_with_their_tokens_and_the_key_goes_to_the_server(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-1")
    who = teacher(server)
    found = ask(who, 5)
    assert sorted(found) == list(range(5)) and all("spread" in c.text for c in found.values())
    assert (who.usage.answers, who.usage.prompt_tokens) == (5, 50)
    assert who.usage.cost((1_000_000, 2_000_000)) == 50 + 2 * 25
    assert {h["Authorization"] for h in server.headers} == {"Bearer k-1"}
    assert {r["model"] for r in server.requests} == {"m"}


@pytest.mark.parametrize("fault", [429, 500, 503, "close", "junk", "empty", "hang"])
def test_what_passes_is_tried_again(server: OpenAIServer, fault: int | str) -> None:
    server.faults.extend([fault, fault])
    who = teacher(server, jobs=1, timeout=2 if fault == "hang" else 30)
    found = ask(who, 2)
    assert all(c.text for c in found.values())
    assert (who.usage.retries, who.usage.failed) == (2, 0)


def test_a_prompt_that_never_succeeds_is_named_and_the_rest_goes_on(server: OpenAIServer) -> None:
    who = teacher(server, jobs=1)
    ask(who, 1)
    server.faults.extend([500] * 5)
    found = ask(who, 3)
    assert "HTTP 500" in found[0].error and found[1].text and found[2].text
    assert who.usage.failed == 1


@pytest.mark.parametrize(("status", "words"), [(401, "key"), (403, "access"), (404, "no such")])
def test_what_no_prompt_gets_past_stops_at_once(
    server: OpenAIServer, status: int, words: str
) -> None:
    server.faults.extend([status] * 9)
    with pytest.raises(ForgeError, match=words):
        ask(teacher(server, jobs=1), 50)
    assert len(server.requests) == 1


def test_a_server_that_is_not_there(chunks: list[Chunk], server: OpenAIServer) -> None:
    server.close()
    found = ask(teacher(server, jobs=2), 40)
    assert all(found[n].error for n in range(40))
    assert sum("not asked" in c.error for c in found.values()) >= 30
    with pytest.raises(ForgeError, match="no prompt of 2 was answered"):
        list(raft.run(chunks, teacher=teacher(server)))
    with pytest.raises(ForgeError, match="nonsense: "):
        ask(OpenAITeacher("openai:m", "m", "nonsense", backoff=0), 1)


def test_a_server_that_stops_half_way_is_not_asked_for_ever(server: OpenAIServer) -> None:
    who = teacher(server, jobs=1)
    ask(who, 1)
    server.faults.extend([503] * 5 * 3)
    found = ask(who, 20)
    assert len(server.requests) == 1 + 5 * 3 and who.usage.failed == 20
    assert "HTTP 503" in found[0].error and "not asked" in found[19].error


def test_one_prompt_that_always_fails_is_no_reason_to_stop(
    chunks: list[Chunk], server: OpenAIServer, tmp_path: Path
) -> None:
    def run() -> list[Example]:
        return list(raft.run(chunks, teacher=Cached(teacher(server, jobs=1), tmp_path)))

    server.faults.extend([413])
    first = run()
    server.faults.extend([413])
    assert run() == first and any(row.origin.teacher for row in first)


def test_what_newer_models_do_not_take_is_left_out(server: OpenAIServer) -> None:
    for name in ("max_tokens", "temperature"):
        server.faults.append((400, {"error": {"message": "unsupported", "param": name}}))
    found = ask(teacher(server, jobs=1), 1)
    assert found[0].text and {*server.requests[-1]} == {
        "model", "messages", "max_completion_tokens",
    }  # fmt: skip


def test_no_money_is_no_passing_fault(server: OpenAIServer) -> None:
    server.faults.append((429, {"error": {"message": "pay", "code": "insufficient_quota"}}))
    with pytest.raises(ForgeError, match="out of money"):
        ask(teacher(server, jobs=1), 3)


def test_the_key_is_shown_to_nobody_else(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-secret")
    server.faults.append((401, {"error": {"message": "wrong key k-secret"}}))
    with pytest.raises(ForgeError, match="wrong key …"):
        ask(teacher(server, jobs=1), 1)
    with pytest.raises(UsageError, match="unencrypted"):
        ask(OpenAITeacher("openai:m", "m", "http://example.com/v1"), 1)
    ask(OpenAITeacher("ollama:m", "m", server.url), 1)
    assert "Authorization" not in server.headers[-1]
    for url in ("http://me:pw@box/v1", "https://box/v1?key=1", "http://["):
        with pytest.raises(UsageError, match="--teacher-url"):
            open_teacher("openai:m", url=url)


def test_a_date_to_try_again_at_is_kept_to(server: OpenAIServer) -> None:
    past = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    server.faults.append((429, {}, past))
    who = OpenAITeacher("openai:m", "m", server.url, jobs=1, backoff=1e6)
    assert ask(who, 1)[0].text and who.usage.retries == 1


def test_so_many_at_once_and_no_more(server: OpenAIServer) -> None:
    server.gate = threading.Barrier(3)
    ask(teacher(server, jobs=3), 12)
    assert server.most_at_once == 3


def test_the_cache_pays_once_and_goes_on_after_a_stop(server: OpenAIServer, tmp_path: Path) -> None:
    who = Cached(teacher(server, jobs=1), tmp_path)

    class Stop(Exception):
        pass

    def stop_after_two(number: int, found: Completion) -> None:
        if number == 2:
            raise Stop

    with pytest.raises(Stop):
        who.complete([prompt(f"spread {n}") for n in range(6)], stop_after_two)
    asked = len(server.requests)
    who.file.write_bytes(who.file.read_bytes() + b'\n{"key": "torn')
    again = Cached(teacher(server, jobs=1), tmp_path)
    found = ask(again, 6)
    assert sorted(found) == list(range(6)) and all(c.text for c in found.values())
    assert again.usage.cached == 3 and len(server.requests) == asked + 3
    server.close()
    assert ask(Cached(teacher(server), tmp_path), 6) == found
    assert who.file.stat().st_mode & 0o077 == 0, "answers quote private code"
    other = ask(Cached(teacher(server, max_tokens=9), tmp_path), 1)
    assert other[0].error, "other parameters, other answers"


def test_errors_are_not_kept(server: OpenAIServer, tmp_path: Path) -> None:
    server.faults.extend([400])
    who = Cached(teacher(server, jobs=1), tmp_path)
    assert ask(who, 2)[0].error
    assert not ask(Cached(teacher(server, jobs=1), tmp_path), 2)[0].error


def test_taught_rows_go_through_the_same_contexts(
    chunks: list[Chunk], server: OpenAIServer
) -> None:
    rows = list(raft.run(chunks, teacher=teacher(server), oracle_p=1))
    taught = [r for r in rows if r.origin.teacher == "openai:m"]
    assert {r.question for r in taught} == {"What does `mean` give?", "What does `spread` give?"}
    for row in taught:
        texts = {d.id: d.text for d in row.documents}
        assert all(q.text in texts[q.document] for q in row.answer.quotes) and row.answer.quotes
    plain = [r for r in rows if r.origin.teacher is None]
    assert plain == list(raft.run(chunks, oracle_p=1)), "a teacher adds, and changes nothing"


def test_what_cannot_be_proved_is_refused_by_reason(chunks: list[Chunk]) -> None:
    mean = next(c for c in chunks if c.symbol == "mean")

    def pair(**changes: object) -> str:
        return json.dumps({
            "question": "What is `mean` of nothing?", "answer": "The `default`.",
            "quote": "return default", **changes,
        })  # fmt: skip

    lines = [
        pair(),
        pair(),
        pair(question="What does this function do without values?"),
        pair(question="What happens without values?"),
        pair(question="What, of nothing, is `mean`?"),
        pair(question="What does the document say of `mean`?"),
        pair(question="Is `mean` pure?", answer="Yes."),
        pair(question="What then is `mean`?", answer="The mean."),
        pair(question="`mean`?"),
        pair(question="How long is `mean`?", answer="x" * 601),
        pair(question="How many does `mean` take?", answer="At most 7 of them."),
        pair(question="Whom does `mean` ask?", answer="The inner_mean function."),
        pair(
            question="What, in `mean`, is divided?",
            quote="return sum(values) / len(valuez)",
            answer="All by the length of valuez.",
        ),
        pair(question=["no", "text"]),
        pair(question="Why is there `mean`?", answer="Something helpful."),
        pair(quote="return 42  # made up"),
        pair(question="Why does `mean` divide?", quote="return sum(values)  /  len(values)"),
        pair(question="And `mean` of one?", quote="return sum(values) / len(value)"),
        pair(question="Is `mean` fast?", answer="It calls `numpy.mean`."),
        pair(question="Is `mean` short?", quote="if"),
        pair(question="Is `mean` known?", answer="The documents do not contain the answer."),
        json.dumps({"question": "Is `mean` whole?"}),
        '{"question": "torn',
    ]
    found = list(verified("\n".join(lines), mean, "`mean`"))
    assert [(a.question, a.quotes) for a in found if isinstance(a, Ask)] == [
        ("What is `mean` of nothing?", ["return default"]),
        ("What does `mean` do without values?", ["return default"]),
        ("Why does `mean` divide?", ["return sum(values) / len(values)"]),
        ("And `mean` of one?", ["return sum(values) / len(values)"]),
    ]
    assert Counter(reason for reason in found if isinstance(reason, str)) == {
        "asked twice": 2, "its question does not name the definition": 1,
        "its quote is not in the document": 1, "it does not answer": 1,
        "its answer names what is not in the document": 3, "a field is missing": 2,
        "its quote is too long or too short": 1, "its answer says nothing": 2,
        "its question speaks of how it was asked": 1, "too long or too short": 2,
        "its answer has nothing to do with the document": 1,
        "its answer rests on what is not in the document": 1,
    }  # fmt: skip
    assert list(verified("I am sorry, but", mean, "`mean`")) == ["no JSON"]


def test_a_question_names_its_definition_in_full(chunks: list[Chunk]) -> None:
    mean = next(c for c in chunks if c.symbol == "mean")
    method = mean.model_copy(update={"symbol": "Stats.mean"})
    for asked in ("What does mean() give?", "What does `mean` give?", "What does this method give?",
                  "What does `Stats.mean` give?"):  # fmt: skip
        pair = {"question": asked, "answer": "The average.", "quote": "return default"}
        (found,) = verified(json.dumps(pair), method, "`Stats.mean` (in `a.py`)")
        assert isinstance(found, Ask)
        assert found.question == "What does `Stats.mean` (in `a.py`) give?"


def test_lines_that_a_quote_miscopies_are_quoted_as_they_stand() -> None:
    text = "def f(a):\n    if not a:\n        return None\n    return a + 1\n"
    quote = "if not a :\n  return None;"
    assert find_quote(quote, text) == "if not a:\n        return None"
    assert find_quote("```python\nreturn a + 1\n```", text) == "return a + 1"


def test_pairs_are_read_from_whatever_stands_around_them() -> None:
    text = '```json\n[{"question": 1}, {"x": {"question": 2}}]\n``` {"question": {"a": "}"}}'
    assert [p["question"] for p in read_pairs(text)] == [1, {"a": "}"}]
    assert find_quote("nothing of it", "x = 1") == ""


def test_a_model_in_this_process_and_its_junk(chunks: list[Chunk], tmp_path: Path) -> None:
    """A random model writes nonsense: it costs the questions, not the run."""
    who = MlxTeacher(str(save_model(tmp_path)), max_tokens=12)
    verdicts: list[Verdict] = []
    rows = list(raft.run(chunks, teacher=who, oracle_p=1, on_reject=verdicts.append))
    assert [(v.check, v.reason, v.path) for v in verdicts] == [("taught", "no JSON", "a.py")] * 2
    assert who.usage.answers == 2 and who.usage.completion_tokens > 0
    assert rows and all(r.origin.teacher is None for r in rows)


@pytest.mark.parametrize("spec", ["gpt", "openai:", "mlx", "anthropic:x", ""])
def test_teachers_that_there_are_none_of(spec: str) -> None:
    with pytest.raises(UsageError, match="not known"):
        open_teacher(spec)
    with pytest.raises(UsageError, match="teacher") as error:
        resolve({"teacher": spec}, environ={})
    assert "mlx:MODEL" in error.value.hint
    assert open_teacher("none") is None


def test_a_plan_asks_no_teacher(server: OpenAIServer, tmp_path: Path) -> None:
    model = str(save_model(tmp_path))
    flags = {"teacher": "openai:m", "teacher_url": server.url, "cache": False, "questions": 1}
    flags |= {"model": model, "max_tokens": 100_000}
    plan(str(Path(email.__file__).parent), resolve(flags, environ={}), SILENT)
    assert server.requests == []
