"""From chat messages to token ids with the supervised span, by the model's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.models.chat_form import as_template_reads
from forge_cli.models.shared_context import Row

_HINT = "choose a model whose template keeps it (most instruct models do)"


def turns_of(tokenizer: Any, chat: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """A chat as the tokenizer's template takes it (see `chat_form`).

    Raises:
        ForgeError: it takes no plain chat.
    """

    def render(turns: list[dict[str, Any]]) -> str:
        return _apply(tokenizer, turns, add_generation_prompt=True)

    return as_template_reads(str(tokenizer.chat_template), render, chat)


def _apply(tokenizer: Any, turns: list[dict[str, Any]], **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ForgeError(
            f"the chat template refuses a chat: {reason}",
            "choose an instruct model that takes turns of system, user and assistant",
        ) from None


def _render(tokenizer: Any, messages: Sequence[Message], answered: bool, **variables: str) -> str:
    turns = turns_of(tokenizer, [message.model_dump() for message in messages])
    return _apply(tokenizer, turns, add_generation_prompt=not answered, **variables)


def _ids(tokenizer: Any, text: str) -> list[int]:
    # The template has written the special tokens already.
    return list(tokenizer.encode(text, add_special_tokens=False))


def tokenise(tokenizer: Any, messages: Sequence[Message]) -> Row:
    """Token ids of a whole chat; supervised are the answer and its end-of-turn token.

    Raises:
        ForgeError: the template refuses the chat, or does not keep the prompt as a prefix of the
            whole chat, so that prompt and answer cannot be told apart.
    """
    texts = chat_texts(tokenizer, messages)
    return _row(tokenizer, texts, *(_ids(tokenizer, text) for text in texts))


def tokenise_many(tokenizer: Any, chats: Sequence[Sequence[Message]]) -> list[Row | ForgeError]:
    """`tokenise` of each chat, with the error in place of a row; all cores work on it."""
    texts: list[tuple[str, str] | ForgeError] = []
    for chat in chats:
        try:
            texts.append(chat_texts(tokenizer, chat))
        except ForgeError as error:
            texts.append(error)
    pairs = [pair for pair in texts if not isinstance(pair, ForgeError)]
    flat = [text for pair in pairs for text in pair]
    encoded = iter(tokenizer.backend_tokenizer.encode_batch_fast(flat, add_special_tokens=False))
    rows: list[Row | ForgeError] = []
    for pair in texts:
        if isinstance(pair, ForgeError):
            rows.append(pair)
            continue
        prompt, whole = next(encoded).ids, next(encoded).ids
        try:
            rows.append(_row(tokenizer, pair, prompt, whole))
        except ForgeError as error:
            rows.append(error)
    return rows


def chat_texts(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, str]:
    """The rendered prompt of a chat, and the same with its answer behind it.

    Raises:
        ForgeError: the template refuses the chat, or changes the prompt when an answer follows.
    """
    prompt = _render(tokenizer, messages[:-1], answered=False)
    whole = _render(tokenizer, messages, answered=True)
    if whole.startswith(prompt):
        return prompt, whole
    # Some templates put the system text before the last user turn only, so that an answer takes
    # it away: what follows that turn is the same, and a server gives the prompt as it was.
    asked, answer = (message.content.strip() for message in messages[-2:])
    start = prompt.rfind(asked)
    if asked and start >= 0:
        _, found, rest = whole.rpartition(prompt[start:])
        if found and answer in rest:
            return prompt, prompt + rest
    pairs = enumerate(zip(prompt, whole, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
    raise ForgeError(
        f"the chat template changes the prompt when an answer follows "
        f"({prompt[at : at + 40]!r} is gone)",
        _HINT,
    )


def answer_spans(tokenizer: Any, texts: tuple[str, str], row: Row) -> list[tuple[int, int]]:
    """Where in the whole text each supervised token of a row begins and ends.

    Args:
        texts: of `chat_texts`, for the chat that the row was made of.
    """
    prompt, whole = texts
    encoded = tokenizer.backend_tokenizer.encode(whole, add_special_tokens=False)
    if encoded.ids[: len(row.ids)] == row.ids:
        return list(encoded.offsets[row.start : len(row.ids)])
    rest = tokenizer.backend_tokenizer.encode(whole[len(prompt) :], add_special_tokens=False)
    count = len(row.ids) - row.start
    return [(start + len(prompt), end + len(prompt)) for start, end in rest.offsets[:count]]


def _row(
    tokenizer: Any, texts: tuple[str, str], prompt_ids: list[int], whole_ids: list[int]
) -> Row:
    if whole_ids[: len(prompt_ids)] != prompt_ids:
        # A token reaches from the prompt into the answer. Who serves the model gives it the
        # prompt's own tokens, so the answer is what follows them.
        if _puts_space(tokenizer):
            raise ForgeError("the answer's first token reaches into the prompt", _HINT)
        whole_ids = prompt_ids + _ids(tokenizer, texts[1][len(texts[0]) :])
    # What a template prints after the end of turn (a newline) is not the model's to say.
    ends = set(tokenizer.eos_token_ids)
    answer = range(len(prompt_ids), len(whole_ids))
    last = max((i for i in answer if whole_ids[i] in ends), default=len(whole_ids) - 1)
    return Row(whole_ids[: last + 1], len(prompt_ids))


def _puts_space(tokenizer: Any) -> bool:
    """Whether a text is read as if a space stood before it, so that a part of one is not itself."""
    return bool(tokenizer.convert_ids_to_tokens(_ids(tokenizer, "x"))[0].startswith("\u2581"))


def prompt_ids(tokenizer: Any, messages: Sequence[Message], **variables: str) -> list[int]:
    """Token ids of a prompt, up to where the answer begins; `variables` go to the template.

    Raises:
        ForgeError: the template refuses the chat.
    """
    return _ids(tokenizer, prompt_text(tokenizer, messages, **variables))


def prompt_text(tokenizer: Any, messages: Sequence[Message], **variables: str) -> str:
    """The rendered prompt, as text; `variables` go to the template.

    Raises:
        ForgeError: the template refuses the chat.
    """
    return _render(tokenizer, messages, answered=False, **variables)
