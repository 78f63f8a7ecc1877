"""The picture of drift: what is drawn, what is told, and that it stands by itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from forge_cli.guard.config import GuardConfig
from forge_cli.guard.drift import drift_plot
from forge_cli.guard.records import Cycle, Drift, Outcome

CONFIG = GuardConfig.model_validate({"repositories": [{"path": "."}]})
UNBOUND = GuardConfig.model_validate(
    {"repositories": [{"path": "."}], "retrain_when": {"drift": None}}
)


def drift(day: int, share: float, **measured: Any) -> Drift:
    time = f"2026-03-{day:02}T08:00:00+01:00"
    return Drift(time=time, symbols=200, added=0, changed=0, gone=0, share=share, **measured)


def cycle(day: int, outcome: Outcome) -> Cycle:
    time = f"2026-03-{day:02}T08:00:05+00:00"
    return Cycle(id=f"{day}", repository="r", name="r", started=time, outcome=outcome)


def texts(picture: bytes) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.decode())


DRIFTS = [
    drift(1, 0.02), drift(4, 0.08, new_loss=1.6, old_loss=1.1, new_score=0.5, old_score=0.75),
    drift(9, 0.13, new_loss=1.9, old_loss=1.15, new_score=0.4, old_score=0.75),
]  # fmt: skip
CYCLES = [cycle(4, "refused"), cycle(9, "deployed"), cycle(10, "nothing to do")]


def test_it_shows_drift_loss_score_and_what_was_done() -> None:
    picture = drift_plot(DRIFTS, CYCLES, CONFIG)
    shown = texts(picture)
    for text in (
        "symbols that differ, %", "threshold 10 %", "loss, nats a token", "score, answer F1",
        "on new code", "on old code", "deployed", "refused",
    ):  # fmt: skip
        assert text in shown
    assert "rolled back" not in shown and "nothing to do" not in shown
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("role") == "img"
    assert root.get("aria-label") == (
        "Drift from 2026-03-01 to 2026-03-09, measured 3 times: at last 13.0 % of 200 symbols; "
        "the threshold is 10 %; loss on new code 1.90, on old 1.15 nats a token; "
        "score on new code 0.40, on old 0.75; deployed once; refused once."
    )
    assert picture == drift_plot(DRIFTS, CYCLES, CONFIG)
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", picture.decode()))
    assert all(c == "none" or (c.startswith("var(--") and "#" in c) for c in colours), colours


def test_what_was_never_measured_is_not_drawn() -> None:
    alone = drift_plot([drift(1, 0.0)], [], UNBOUND)
    assert texts(alone).count("symbols that differ, %") == 1
    assert not {"loss, nats a token", "on new code"} & set(texts(alone))
    assert b"threshold" not in alone and drift_plot([], CYCLES, CONFIG) == b""
    days = [text for text in texts(alone) if re.fullmatch(r"\d\d:\d\d|[A-Z][a-z]{2}.*", text)]
    assert len(days) >= 3, "a single moment still has an axis"
