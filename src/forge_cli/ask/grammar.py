"""The answer form as a grammar of llama.cpp, in which no quote can be false.

A quote walks through a suffix automaton (Blumer et al. 1985): the smallest machine that takes all
spans of the documents and nothing else, with at most two states a character. One state is one rule
that ends in the next, so the parser's stacks stay as small as they begin.
Form: llama.cpp `grammars/README.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.core.answer_form import BEGIN, END

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def answer_grammar(documents: Sequence[str]) -> str:
    """GBNF of an answer about documents: a reason, quotes of them, the answer, which is free."""
    machine = _Automaton()
    for text in documents:
        for part in text.split(END):  # which no quote holds
            machine.add(part)
    rules = [
        r'root ::= "##Reason: " reason quote* "\n##Answer: " final',
        r'reason ::= ([^#] | "#" [^#])*',
        r"final ::= [^\x01]*",
        rf'quote ::= "\n{BEGIN}\n" s0',
        rf'end ::= "\n{END}"',
    ]
    for state, follows in enumerate(machine.follows):
        ways = [f"{_literal(sign)} s{after}" for sign, after in follows.items()]
        rules.append(f"s{state} ::= " + " | ".join([*ways, "end"] if state else ways or ["end"]))
    return "\n".join(rules)


class _Automaton:
    """States by number, 0 at the start; each is where all spans that end alike lead."""

    def __init__(self) -> None:
        self.follows: list[dict[str, int]] = [{}]
        self._link, self._length = [-1], [0]

    def add(self, text: str) -> None:
        """Take all spans of a text, none of which reaches into another text."""
        last = 0
        for sign in text:
            last = self._extend(last, sign)

    def _extend(self, last: int, sign: str) -> int:
        known = self.follows[last].get(sign)
        if known is not None:  # of a text before
            return self._apart(last, sign, known)
        state = self._state({}, self._length[last] + 1, 0)
        at = last
        while at != -1 and sign not in self.follows[at]:
            self.follows[at][sign] = state
            at = self._link[at]
        if at != -1:
            self._link[state] = self._apart(at, sign, self.follows[at][sign])
        return state

    def _apart(self, at: int, sign: str, after: int) -> int:
        """Where the spans through `at` alone lead: `after`, or a copy if that has longer ones."""
        if self._length[after] == self._length[at] + 1:
            return after
        copy = self._state(dict(self.follows[after]), self._length[at] + 1, self._link[after])
        self._link[after] = copy
        while at != -1 and self.follows[at].get(sign) == after:
            self.follows[at][sign] = copy
            at = self._link[at]
        return copy

    def _state(self, follows: dict[str, int], length: int, link: int) -> int:
        self.follows.append(follows)
        self._length.append(length)
        self._link.append(link)
        return len(self.follows) - 1


def _literal(sign: str) -> str:
    plain = _ESCAPES.get(sign, sign)
    return f'"\\x{ord(sign):02X}"' if plain == sign and ord(sign) < 32 else f'"{plain}"'
