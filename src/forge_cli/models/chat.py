"""From chat messages to token ids with the supervised span, by the model's own template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.models.shared_context import Row


def tokenise(tokenizer: Any, messages: Sequence[Message]) -> Row:
    """Token ids of a whole chat; supervised are the answer and its end-of-turn token.

    Raises:
        ForgeError: the template does not keep the prompt as a prefix of the whole chat, so
            that prompt and answer cannot be told apart.
    """
    chat = [message.model_dump() for message in messages]
    prompt = prompt_ids(tokenizer, messages[:-1])
    whole = list(tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=False))
    return _row(tokenizer, prompt, whole)


def tokenise_many(tokenizer: Any, chats: Sequence[Sequence[Message]]) -> list[Row | ForgeError]:
    """`tokenise` of each chat, with the error in place of a row; all cores work on it."""
    dumped = [[message.model_dump() for message in chat] for chat in chats]
    options: dict[str, Any] = {"tokenize": False}
    texts = [
        tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, **options)
        for chat in dumped
    ]
    texts += [
        tokenizer.apply_chat_template(chat, add_generation_prompt=False, **options)
        for chat in dumped
    ]
    # The template has written the special tokens already.
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ids = [one.ids for one in encoded]
    rows: list[Row | ForgeError] = []
    for prompt, whole in zip(ids[: len(chats)], ids[len(chats) :], strict=True):
        try:
            rows.append(_row(tokenizer, prompt, whole))
        except ForgeError as error:
            rows.append(error)
    return rows


def _row(tokenizer: Any, prompt: list[int], whole: list[int]) -> Row:
    if whole[: len(prompt)] != prompt:
        raise ForgeError(
            "the chat template changes the prompt when an answer follows",
            "choose a model whose template keeps it (most instruct models do)",
        )
    # What a template prints after the end of turn (a newline) is not the model's to say.
    ends = set(tokenizer.eos_token_ids)
    answer = range(len(prompt), len(whole))
    last = max((i for i in answer if whole[i] in ends), default=len(whole) - 1)
    return Row(whole[: last + 1], len(prompt))


def prompt_ids(tokenizer: Any, messages: Sequence[Message], **variables: str) -> list[int]:
    """Token ids of a prompt, up to where the answer begins; `variables` go to the template."""
    chat = [message.model_dump() for message in messages]
    options = {"tokenize": True, "add_generation_prompt": True, **variables}
    return list(tokenizer.apply_chat_template(chat, **options))


def prompt_text(tokenizer: Any, messages: Sequence[Message], **variables: str) -> str:
    """The rendered prompt, as text; `variables` go to the template."""
    chat = [message.model_dump() for message in messages]
    options = {"tokenize": False, "add_generation_prompt": True, **variables}
    return str(tokenizer.apply_chat_template(chat, **options))
