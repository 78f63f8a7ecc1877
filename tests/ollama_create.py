"""What `server/create.go` of Ollama accepts, refuses and keeps, for the test server."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
QUANTIZE = (
    "create-time quantization is only supported for safetensors imports; "
    "quantize GGUF models with llama.cpp tools before importing"
)


class Refused(Exception):
    """An error with the HTTP status that it would have before a stream begins."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Manifest:
    """A model as the server keeps it."""

    digest: str
    template: str
    system: str
    license: str
    parameters: dict[str, Any]
    metadata: dict[str, Any]  # of the GGUF, what a text or a number is
    in_go: bool = False  # the template is Go's; else the GGUF's own Jinja renders

    @property
    def id(self) -> str:
        """What /api/tags calls its digest: of the manifest, so that two names may have one."""
        return hashlib.sha256(repr(sorted(vars(self).items(), key=str)).encode()).hexdigest()

    def go_render(self, messages: list[dict[str, str]]) -> str:
        """The prompt by Go's own template engine; only `.Messages`, as Forge's templates."""
        import go_template

        with tempfile.NamedTemporaryFile("w", suffix=".tmpl", encoding="utf-8") as file:
            file.write(self.template)
            file.flush()
            turns = [{"Role": m["role"], "Content": m["content"]} for m in messages]
            return go_template.render(Path(file.name), {"Messages": turns}).decode()


Blob = Callable[[str], Path]
Keep = Callable[[str, Manifest], None]


def check_create(body: dict[str, Any], blob: Blob) -> None:
    """The errors that CreateHandler raises before its stream begins, in its order."""
    files, parameters = body.get("files"), body.get("parameters") or {}
    for key in ("files", "parameters", "adapters"):
        if not isinstance(body.get(key) or {}, dict):
            raise Refused(f"json: cannot unmarshal into Go struct field .{key}")
    if parameters.get("typical_p") is not None:
        raise Refused("typical_p is deprecated and cannot be set as a model parameter")
    for path, digest in (files or {}).items():
        parts = path.split("/")
        if re.search(r"[\\:]", path) or any(part in ("", ".", "..") for part in parts):
            raise Refused(f"file path must be relative: {path}")
        if not DIGEST.fullmatch(digest):
            raise Refused(f"invalid digest for {path}: invalid digest format")
    if body.get("adapters"):
        raise Refused("LoRA adapters are no longer supported")
    full_name(body.get("model") or "")
    for path, digest in (files or {}).items():
        if not path.endswith((".gguf", ".safetensors")) and not blob(digest).exists():
            raise Refused(
                f"blob not found for {path} (digest {digest}): "
                f"open {blob(digest)}: no such file or directory"
            )
    if body.get("quantize") or body.get("quantization"):
        raise Refused(QUANTIZE)


def create(body: dict[str, Any], blob: Blob, keep: Keep) -> Iterator[str]:
    """Yield the statuses of a create; what is raised may come in the middle."""
    files = body.get("files")
    if body.get("from"):
        raise Refused("pull model manifest: file does not exist", 500)
    if files is None:
        raise Refused("neither 'from' or 'files' was specified")
    if not files:
        raise Refused("no files provided to convert")
    if len(files) > 1:
        raise Refused("mixed model file types")
    ((path, digest),) = files.items()
    if path.endswith(".safetensors"):
        raise Refused("supplied file was not in GGUF format")
    yield "parsing GGUF"
    head = read_gguf(blob(digest))
    if head.get("general.type") == "adapter":
        raise Refused(f"LoRA adapters are no longer supported: {path} is a LoRA adapter")
    jinja, parameters = head.get("tokenizer.chat_template", ""), {}
    template = jinja or "{{ .Prompt }}"
    in_go = bool(body.get("template"))
    if "<|im_start|>" in jinja and len(jinja) < 600:
        yield "using autodetected template chatml"
        template, parameters = CHATML, {"stop": ["<|im_start|>", "<|im_end|>"]}
        in_go = True
    if blob(digest).exists():
        yield f"using existing layer {digest}"
    yield "writing manifest"
    manifest = Manifest(
        digest=digest,
        template=body.get("template") or template,
        system=body.get("system", ""),
        license=body.get("license", ""),
        parameters={**parameters, **(body.get("parameters") or {})},
        metadata={k: v for k, v in head.items() if k != "tokenizer.chat_template"},
        in_go=in_go,
    )
    keep(full_name(body["model"]), manifest)
    yield "success"


def full_name(name: str) -> str:
    """`name` as the registry spells it, with :latest; raise for what Name.IsValid refuses."""
    path, _, tag = name.rpartition(":") if name.rfind(":") > name.rfind("/") else (name, "", "x")
    *above, model = path.split("/")
    if len(above) > 2 or (above and "." in above[-1]):
        raise Refused("invalid model name")
    for part in (*above, model, tag):
        if not PART.fullmatch(part) or len(part) > 80:
            raise Refused("invalid model name")
    return name if path != name else f"{name}:latest"


@lru_cache  # a blob never changes, and the reader takes seconds
def read_gguf(blob: Path) -> dict[str, Any]:
    """The text fields of a GGUF, by its own library; the server's errors for what is none."""
    from gguf import GGUFReader

    if not blob.exists():
        raise Refused(f"open {blob}: no such file or directory", 500)
    if blob.read_bytes()[:4] != b"GGUF":
        raise Refused("invalid file magic", 500)
    wanted = ("general.", "forge.", "tokenizer.chat_template")
    try:
        fields = GGUFReader(str(blob)).fields
    except (ValueError, IndexError, KeyError) as error:
        raise Refused(f"unexpected EOF: {error}", 500) from error
    return {key: field.contents() for key, field in fields.items() if key.startswith(wanted)}


def go_syntax(value: Any) -> str:
    """`%#v` of a value that came out of JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    number = Decimal(repr(float(value))).normalize()  # a number of JSON is a float64 in Go
    if number and not -4 <= number.adjusted() < 6:
        return f"{float(number):.{len(number.as_tuple().digits) - 1}e}"
    return f"{number:f}"
