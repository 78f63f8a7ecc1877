"""inspect-ai's model provider `forge`.

    inspect eval task.py --model forge/.forge/runs/NAME [-M side=base]

inspect-ai finds this module by its entry point and imports it with any of its commands, so what is
heavy is imported when a model is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Message

if TYPE_CHECKING:
    from forge_cli.evaluate.adapters.one_batch import Request

# Where neither the task nor the command line gives a limit.
_MOST_TOKENS = 1024


@modelapi(name="forge")  # type: ignore[untyped-decorator]
def forge() -> type[ModelAPI]:
    """The provider, by the name that `--model forge/…` gives."""
    return ForgeAPI


class ForgeAPI(ModelAPI):
    """A side of a run: greedy answers; requests that wait together are one batch.

    Args:
        model_name: a run directory.
        side: base, tuned, checkpoint:STEP or a GGUF file (`-M side=…`).

    Raises:
        UsageError: there is no such run or side. ForgeError: the model cannot be loaded.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect-ai's own signature)
        side: str = "tuned",
    ) -> None:
        from forge_cli.evaluate.adapters.one_batch import BatchThread
        from forge_cli.evaluate.adapters.run_model import open_run_model

        super().__init__(model_name, base_url, api_key, [], config)
        # One run may be judged against itself, by two sides.
        self.side = str(side)
        with _hinted():
            self.thread = BatchThread(lambda: open_run_model(Path(model_name), self.side))

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a chat.

        Raises:
            ForgeError: it needs tools, chance or more than one answer, or the model fails.
        """
        from forge_cli.evaluate.adapters.one_batch import Request, TooLong

        began = time.monotonic()
        try:
            with _hinted():
                _check(tools, config)
                chat = [_message(message) for message in input]
                stops = tuple(config.stop_seqs or ())
                request = Request(chat, config.max_tokens or _MOST_TOKENS, stops)
                return await self._answered(request, began)
        except TooLong as error:
            return ModelOutput.from_content(self.model_name, "", "model_length", error.message)

    async def _answered(self, request: Request, began: float) -> ModelOutput:
        self.thread.ask(request)
        try:
            found = await anyio.to_thread.run_sync(request.answer.result, abandon_on_cancel=True)
        except BaseException:
            request.answer.cancel()  # the sample was given up: no need to begin with it
            raise
        reason: StopReason = "stop" if found.whole else "max_tokens"
        answer = ChatMessageAssistant(content=found.text, model=self.model_name, source="generate")
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=answer, stop_reason=reason)],
            usage=ModelUsage(
                input_tokens=found.prompt_tokens,
                output_tokens=found.tokens,
                total_tokens=found.prompt_tokens + found.tokens,
            ),
            time=time.monotonic() - began,
        )

    def max_tokens(self) -> int:
        """Most tokens of an answer, where nothing is said."""
        return _MOST_TOKENS

    def max_connections(self) -> int:
        """Requests at once: as many as a batch takes."""
        from forge_cli.evaluate.adapters.one_batch import MOST

        return MOST

    def connection_key(self) -> str:
        """A thread answers for each run and side."""
        return f"{self.model_name} {self.side}"

    def collapse_user_messages(self) -> bool:
        """Many chat templates want turns to alternate."""
        return True

    def collapse_assistant_messages(self) -> bool:
        """See `collapse_user_messages`."""
        return True

    def close(self) -> None:
        """Free the model."""
        self.thread.close()


@contextmanager
def _hinted() -> Iterator[None]:
    """Have Forge's advice stand under an error: inspect-ai prints tracebacks."""
    try:
        yield
    except ForgeError as error:
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        raise


def _check(tools: list[ToolInfo], config: GenerateConfig) -> None:
    if tools:
        raise UsageError("the task gives the model tools: Forge's call none", "choose another task")
    if config.temperature:
        raise UsageError(
            f"temperature {config.temperature:g}: Forge answers greedily", "add --temperature 0"
        )
    if config.num_choices and config.num_choices > 1:
        raise UsageError("num_choices: greedy answers are all alike", "use epochs, or one choice")
    if config.logprobs:
        raise UsageError("logprobs are not handed on", "run it without --logprobs")


def _message(message: ChatMessage) -> Message:
    if message.role == "tool":
        raise ForgeError("a chat has the result of a tool: Forge's models know none")
    if not isinstance(message.content, str) and any(
        part.type not in ("text", "reasoning") for part in message.content
    ):
        raise ForgeError("a chat has pictures, sound or files: Forge's models read text alone")
    return Message(role=message.role, content=message.text)
