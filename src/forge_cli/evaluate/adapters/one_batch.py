"""A thread that owns a model, and answers what waits as one batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.evaluate.adapters.run_model import RunModel, Written
from forge_cli.models.chat import prompt_ids

# Requests that are made together arrive one after another.
_QUIET_SECONDS = 0.02
# More at once would only take memory: answers are decoded sixteen together.
MOST = 16


@dataclass
class Request:
    """A chat to answer.

    Attributes:
        limit: most tokens of the answer. stops: strings that end it.
        answer: comes from the thread; a request whose answer was cancelled is not run.
    """

    chat: Sequence[Message]
    limit: int
    stops: tuple[str, ...] = ()
    answer: Future[Written] = field(default_factory=Future)


class BatchThread:
    """Loads a model in a thread of its own, where MLX then computes all of its answers.

    Args:
        open_model: called in the thread.

    Raises:
        ForgeError: the model cannot be loaded.
    """

    def __init__(self, open_model: Callable[[], RunModel]) -> None:
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.batches: list[int] = []  # requests in each so far
        ready: Future[None] = Future()
        # A harness that ends should not wait for an answer that nobody wants.
        threading.Thread(target=self._run, args=(open_model, ready), daemon=True).start()
        ready.result()

    def ask(self, request: Request) -> None:
        """Have a request answered; returns at once."""
        self._waiting.put(request)

    def close(self) -> None:
        """End the thread after what waits, and free the model."""
        self._waiting.put(None)

    def _run(self, open_model: Callable[[], RunModel], ready: Future[None]) -> None:
        try:
            model = open_model()
            # Both read files, which a later change of directory could hide.
            assert model.tokenizer and model.max_length
        except Exception as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        going = True
        while going:
            batch, going = self._take()
            batch = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if batch:
                self.batches.append(len(batch))
                _answer(model, batch)
        model.close()

    def _take(self) -> tuple[list[Request], bool]:
        """What waits, and whether more may come."""
        batch: list[Request] = []
        while len(batch) < MOST:
            try:
                found = self._waiting.get(timeout=_QUIET_SECONDS if batch else None)
            except queue.Empty:
                break
            if found is None:
                return batch, False
            batch.append(found)
        return batch, True


def _answer(model: RunModel, batch: Sequence[Request]) -> None:
    """Answer requests, those of one limit and one set of stop strings together."""
    alike: dict[tuple[int, tuple[str, ...]], list[tuple[Request, list[int]]]] = {}
    for one in batch:
        try:
            ids = prompt_ids(model.tokenizer, one.chat)
            limit = min(one.limit, model.max_length - len(ids))
            if limit < 1:
                raise TooLong(
                    f"a prompt has {len(ids)} tokens, the model takes {model.max_length}",
                    "make it shorter",
                )
            alike.setdefault((limit, one.stops), []).append((one, ids))
        except Exception as error:
            one.answer.set_exception(error)
    for (limit, stops), asked in alike.items():

        def done(
            index: int, answer: Written, of: Sequence[tuple[Request, list[int]]] = asked
        ) -> None:
            of[index][0].answer.set_result(answer)

        try:
            model.generate([ids for _, ids in asked], limit, stops, done)
        except Exception as error:
            for one, _ in asked:
                if not one.answer.done():
                    one.answer.set_exception(error)


class TooLong(ForgeError):
    """A prompt leaves no room for an answer."""
