"""What llama.cpp's converter makes of the tiny models: make_gguf_metadata.py LLAMA_CPP_CHECKOUT

    PYTHONPATH=src:tests python tests/golden/make_gguf_metadata.py LLAMA_CPP_CHECKOUT

Saves each model of `tiny_families` as Hugging Face has it, runs the checkout's own
`convert_hf_to_gguf.py` over it at F16, and keeps what the file says (`gguf_facts`) in
gguf_metadata.json. Needs torch, transformers and sentencepiece. The converter tells a
pre-tokeniser by a hash of the ids that real models give; the tiny ones have other ids, so that
its name is handed to the converter here, and is tested by its effect in
tests/unit/test_pretokenizers.py.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

FILE = Path(__file__).with_name("gguf_metadata.json")
CLASSES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM", "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}  # fmt: skip
_EXPERTS = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}  # as Mixtral calls them
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # of SentencePiece


def as_published(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Experts one by one, as checkpoints have them; mlx-lm stacks them.

    In float32: of float16, the converter would add 1 to Gemma's norms in float16.
    """
    out = {}
    for name, value in weights.items():
        if ".switch_mlp." not in name:
            out[name] = value
            continue
        place, part = name.split(".switch_mlp.")
        part = part.removesuffix(".weight")
        leaf = _EXPERTS[part] if "block_sparse_moe" in place else part
        for at, expert in enumerate(value):
            out[f"{place}.experts.{at}.{leaf}.weight"] = expert
    return out


def complete_tokenizer(folder: Path, kind: str) -> None:
    """The files and settings beyond tokenizer.json that real models of `kind` have."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    document = json.loads((folder / "tokenizer.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("pad_token"), dict):
        settings["pad_token"] = settings["pad_token"]["content"]
    if document["model"].get("byte_fallback"):
        settings["added_tokens_decoder"] = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in document["added_tokens"]
        }
        save_pieces(folder / "tokenizer.model", document)
    elif kind == "phi3":
        settings["tokenizer_class"] = "GPT2Tokenizer"  # by which the converter knows Phi 4
    file.write_text(json.dumps(settings))


def save_pieces(file: Path, document: dict[str, Any]) -> None:
    """The SentencePiece model that a tokenizer.json was made of."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type = 2  # BPE
    model.trainer_spec.byte_fallback = True
    added = {token["content"]: token for token in document["added_tokens"]}
    for text, at in sorted(document["model"]["vocab"].items(), key=lambda item: item[1]):
        kind = _NORMAL
        if text == "<unk>":
            kind = _UNKNOWN
        elif text in added:
            kind = _CONTROL if added[text]["special"] else _USER_DEFINED
        elif text.startswith("<0x"):
            kind = _BYTE
        # Trained models number their pieces in the order of the merges.
        score = -float(at) if kind == _NORMAL else 0.0
        model.pieces.add(piece=text, score=score, type=kind)
    file.write_bytes(model.SerializeToString())


def convert(checkout: Path, family: str, pre: str, work: Path) -> dict[str, Any]:
    """Facts of the file that the converter makes of one family."""
    import conversion.base

    from gguf_facts import facts, pieces_by_score
    from tiny_families import SENTENCEPIECE, save_family

    folder = work / "model"
    config, weights = save_family(folder, family)
    complete_tokenizer(folder, config["model_type"])
    config["architectures"] = [CLASSES[config["model_type"]]]
    (folder / "config.json").write_text(json.dumps(config))
    save_file(as_published(weights), str(folder / "model.safetensors"))
    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    out = work / "out.gguf"
    sys.argv = ["convert", str(folder), "--outfile", str(out), "--outtype", "f16", "--no-lazy"]
    sys.argv += ["--model-name", "tiny"]
    runpy.run_path(str(checkout / "convert_hf_to_gguf.py"), run_name="__main__")
    found = facts(out)
    if pre in SENTENCEPIECE:
        found["pieces"] = pieces_by_score(out)
    return found


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(checkout), str(checkout / "gguf-py")]
    from tiny_families import FAMILIES

    found = {}
    for family, (_, pre, _) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as work:
            found[family] = convert(checkout, family, pre, Path(work))
    lines = [f" {json.dumps(name)}: {as_text(told)}" for name, told in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def as_text(told: dict[str, Any]) -> str:
    """One family, with a line for each key and tensor, so that a change is seen in a diff."""
    parts = []
    for part, value in told.items():
        if isinstance(value, dict):
            rows = [f"   {json.dumps(key)}: {json.dumps(row)}" for key, row in value.items()]
            parts.append(f"  {json.dumps(part)}: {{\n" + ",\n".join(rows) + "\n  }")
        else:
            parts.append(f"  {json.dumps(part)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n }"


if __name__ == "__main__":
    main()
