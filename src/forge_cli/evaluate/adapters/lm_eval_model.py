"""lm-eval's requests, answered by a Forge run.

Requests of one context (the choices of a question, questions after the same examples) run it once,
answers are decoded in batches, and each is handed to lm-eval's cache as soon as it is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from forge_cli.core.errors import ForgeError
from forge_cli.evaluate.adapters.run_model import Written, open_run_model
from forge_cli.models.chat import turns_of
from forge_cli.models.shared_context import Row


class ForgeLM(TemplateLM):
    """A side of a run, by lm-eval's `--model_args run=DIR[,side=SIDE][,NAME=VALUE …]`.

    Args:
        run: a run directory.
        side: base, tuned, checkpoint:STEP or a GGUF file.
        max_length: tokens of context and answer together (none: what the model was made for).
        max_gen_toks: most tokens of an answer, where a task says nothing.
        model: lm-eval names the folder of its results by it; nothing else does.
        batch_size, max_batch_size, device: lm-eval always gives them; Forge puts batches together
            by what requests share.

    Raises:
        UsageError: there is no such run or side. ForgeError: the model cannot be loaded.
    """

    def __init__(
        self,
        run: str,
        side: str = "tuned",
        max_length: int | None = None,
        max_gen_toks: int = 256,
        model: str = "",
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
    ) -> None:
        super().__init__()
        self.run, self.side = str(run), str(side)
        self._model = open_run_model(Path(self.run), self.side)
        self.tokenizer = self._model.tokenizer
        self.max_length = max_length or self._model.max_length
        self.max_gen_toks = max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """Ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """Stands before a text that nothing stands before: BOS, or where there is none EOS."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def tokenizer_name(self) -> str:
        """Names tokenizer and chat template in lm-eval's cache of requests."""
        template = hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()
        return re.sub(r"[^\w.-]+", "_", f"{self._model.base}-{template[:12]}")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval's results say about the model."""
        return {
            "forge_run": str(Path(self.run).absolute()),
            "forge_side": self.side,
            "forge_base": self._model.base,
            "forge_parameters": self._model.parameters,
        }

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids of a text; None adds BOS where the tokenizer does and the text has none."""
        if add_special_tokens is None:
            bos = self.tokenizer.bos_token
            add_special_tokens = not (bos and string.startswith(bos))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as the model was trained on it; without a prompt its last turn stays open."""
        return str(
            self.tokenizer.apply_chat_template(
                turns_of(self.tokenizer, chat_history),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        found = [(0.0, False)] * len(rows)
        with tqdm(total=len(rows), desc="loglikelihood", disable=disable_tqdm) as bar:

            def keep(index: int, chance: float, greedy: bool) -> None:
                found[index] = (chance, greedy)
                self.cache_hook.add_partial("loglikelihood", requests[index][0], found[index])
                bar.update(1)

            self._model.likelihoods(rows, keep)
        return found

    def _row(self, context: list[int], continuation: list[int]) -> Row:
        """The last tokens that fit; the last of all is only foretold."""
        if len(continuation) > self.max_length:
            raise ForgeError(
                f"a continuation has {len(continuation)} tokens, the model takes {self.max_length}",
                "give a larger max_length in --model_args",
            )
        ids = (context + continuation)[-(self.max_length + 1) :]
        return Row(ids, len(ids) - len(continuation))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, each token judged once, in windows of `max_length`."""
        texts: list[str] = [request.args[0] for request in requests]
        rows: list[Row] = []
        of: list[int] = []
        for number, text in enumerate(texts):
            # The prefix token is their BOS.
            ids = self.tok_encode(text, add_special_tokens=False)
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
                rows.append(self._row(*make_disjoint_window(window)))
                of.append(number)
        totals, missing = [0.0] * len(texts), [of.count(number) for number in range(len(texts))]
        with tqdm(total=len(rows), desc="loglikelihood_rolling", disable=disable_tqdm) as bar:

            def keep(index: int, chance: float, _: bool) -> None:
                number = of[index]
                totals[number] += chance
                missing[number] -= 1
                if not missing[number]:
                    found = totals[number]
                    self.cache_hook.add_partial("loglikelihood_rolling", (texts[number],), found)
                bar.update(1)

            self._model.likelihoods(rows, keep)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to the first of its stop strings."""
        asked: list[tuple[str, dict[str, Any]]] = [request.args for request in requests]
        texts = [""] * len(asked)
        alike: dict[str, list[int]] = {}
        for index, (_, settings) in enumerate(asked):
            alike.setdefault(json.dumps(settings, sort_keys=True), []).append(index)
        with tqdm(total=len(asked), desc="generate_until", disable=disable_tqdm) as bar:

            def keep(index: int, answer: Written) -> None:
                texts[index] = answer.text
                self.cache_hook.add_partial("generate_until", asked[index], answer.text)
                bar.update(1)

            for indices in alike.values():
                limit, stops = self._how(asked[indices[0]][1])
                prompts = [self._prompt(asked[index][0], limit) for index in indices]

                def hand_on(place: int, answer: Written, of: Sequence[int] = indices) -> None:
                    keep(of[place], answer)

                self._model.generate(prompts, limit, stops, hand_on)
        return texts

    def _how(self, settings: dict[str, Any]) -> tuple[int, list[str]]:
        """Most tokens and stop strings of a request."""
        how = normalize_gen_kwargs(settings, self.max_gen_toks)
        if how["do_sample"]:
            raise ForgeError(
                "a task asks for samples (do_sample): Forge answers greedily",
                "add --gen_kwargs do_sample=False",
            )
        limit = int(how["max_gen_toks"])
        if limit >= self.max_length:
            raise ForgeError(
                f"a task asks for {limit} tokens, the model takes {self.max_length} with the "
                "question",
                "add --gen_kwargs max_gen_toks=N",
            )
        return limit, list(how["until"])

    def _prompt(self, context: str, limit: int) -> list[int]:
        """The last tokens of a context that leave room for the answer, at least one."""
        ids = self.tok_encode(context) or [self.prefix_token_id]
        return ids[-(self.max_length - limit) :]
