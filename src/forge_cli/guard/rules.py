"""Whether to retrain, and why or why not: the rules of guard.yaml on what was measured.

Only what is set in the file speaks, each with its numbers. Suspicious files are named but hold
nothing back: the rest of the repository may well have moved on, and whether a model learnt
something wrong from them is what the gates find out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from forge_cli.guard.config import GuardConfig, parse_duration, within_hours
from forge_cli.guard.machine import Machine
from forge_cli.guard.records import Decision, Drift, Mode, Reason
from forge_cli.guard.state import State

# What no file tells of, such as the power, is asked for again after this time.
ASK_AGAIN = timedelta(minutes=10)
_DAY = timedelta(hours=24)
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def decide(
    config: GuardConfig, drift: Drift, state: State, machine: Machine, now: datetime,
    hindrance: str = "",
) -> Decision:  # fmt: skip
    """What the rules say. Pure: the same values give the same decision.

    Args:
        now: with its time zone, in which quiet hours are meant.
        hindrance: why a new model could not be deployed; better known before it is trained.
    """
    triggers = list(_triggers(config, drift, state))
    holds = [
        *_holds(config, machine, now),
        *_budget(config, state, now),
        *_of_the_code(config, drift, state),
    ]
    if hindrance:
        until = (now + ASK_AGAIN).isoformat()
        holds.append(Reason(rule="deploy", says=True, text=hindrance, until=until))
    return Decision(
        wanted=any(reason.says for reason in triggers),
        held=any(reason.says for reason in holds),
        mode=_mode(config, drift, state),
        triggers=triggers,
        holds=holds,
    )


def next_look(decision: Decision, now: datetime) -> datetime | None:
    """When to look again though nothing was noticed: when the last hold has ended.

    None: nothing is held back, or what holds it ends by a change and not by time.
    """
    held = [reason.until for reason in decision.holds if reason.says]
    if not decision.wanted or not held or not all(held):
        return None
    return max(now, *map(_moment, held))


def in_words(decision: Decision) -> str:
    """The decision in a line."""
    asks = "; ".join(reason.text for reason in decision.triggers if reason.says)
    if not decision.wanted:
        return "no retraining: no rule asks for one"
    if decision.held:
        holds = "; ".join(reason.text for reason in decision.holds if reason.says)
        return f"no retraining yet: {holds} (asked for: {asks})"
    return f"retraining ({decision.mode}): {asks}"


def span(seconds: float) -> str:
    """A time as people say it: 40s, 2m, 3h 20m, 2d 4h."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h" + f" {minutes}m" * bool(minutes)
    days, hours = divmod(hours, 24)
    return f"{days}d" + f" {hours}h" * bool(hours)


def _mode(config: GuardConfig, drift: Drift, state: State) -> Mode:
    if state.deployed is None:
        return "first"
    return "afresh" if drift.share >= config.retraining.afresh_over else "incremental"


def _triggers(config: GuardConfig, drift: Drift, state: State) -> Iterator[Reason]:
    when = config.retrain_when
    if state.deployed is None:
        # Drift from nothing says nothing.
        yield Reason(rule="first", says=True, text="no model is deployed yet")
        return
    if when.drift is not None:
        count, over = drift.added + drift.changed + drift.gone, drift.share > when.drift
        text = f"drift {drift.share:.3g} ({count} of {drift.symbols} symbols) is "
        text += f"{'over' if over else 'not over'} {when.drift:g}"
        yield Reason(rule="retrain_when.drift", says=over, text=text)
    if when.loss is not None:
        yield _measured("loss", drift.new_loss, drift.old_loss, when.loss, drift)
    if when.score is not None:
        # A loss that is higher is worse, a score that is lower.
        yield _measured("score", drift.old_score, drift.new_score, when.score, drift)
    if when.tags:
        found = [tag for tag in drift.tags if any(fnmatch.fnmatchcase(tag, g) for g in when.tags)]
        yield _matched("tags", "new tag", found, when.tags)
    if when.paths:
        yield _matched("paths", "critical path changed", _critical(drift, when.paths), when.paths)
    if when.corrections is not None:
        enough = drift.corrections >= when.corrections
        text = (
            f"{drift.corrections} answers were corrected, {when.corrections} ask for a retraining"
        )
        yield Reason(rule="retrain_when.corrections", says=enough, text=text)


def _measured(
    rule: str, higher: float | None, lower: float | None, most: float, drift: Drift
) -> Reason:
    """A rule on how much worse the deployed model is on new code."""
    name = f"retrain_when.{rule}"
    if higher is None or lower is None:
        return Reason(rule=name, says=False, text=f"{rule} on new and old code was not measured")
    over = higher - lower > most
    new, old = (higher, lower) if rule == "loss" else (lower, higher)
    text = f"{rule} {new:.3f} on new code ({drift.new_rows} rows), {old:.3f} on old "
    text += f"({drift.old_rows}): worse by {higher - lower:.3g}, "
    text += f"{'over' if over else 'not over'} {most:g}"
    return Reason(rule=name, says=over, text=text)


def _matched(rule: str, what: str, found: list[str], globs: list[str]) -> Reason:
    if not found:
        text = f"no {what}, by {', '.join(globs)}"
    else:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        text = f"{what}: {', '.join(found[:3])}{more}"
    return Reason(rule=f"retrain_when.{rule}", says=bool(found), text=text)


def _critical(drift: Drift, globs: list[str]) -> list[str]:
    import pathspec

    spec = pathspec.GitIgnoreSpec.from_lines(globs)
    return [path for path in drift.paths if spec.match_file(path)]


def _holds(config: GuardConfig, machine: Machine, now: datetime) -> Iterator[Reason]:
    hold = config.hold_while
    if hold.hours:
        yield _quiet(hold.hours, now)
    again = (now + ASK_AGAIN).isoformat()
    if hold.on_battery:
        known = {True: "on battery", False: "on power", None: "whether on battery is not known"}
        says = machine.on_battery is True
        text = known[machine.on_battery]
        yield Reason(
            rule="hold_while.on_battery", says=says, text=text, until=again if says else ""
        )
    if hold.active is not None:
        yield _active(machine.idle_seconds, parse_duration(hold.active), now)
    if hold.uncommitted:
        count = machine.uncommitted
        text = "whether something is uncommitted is not known"
        if count is not None:
            text = f"{count} files are not committed" if count else "all is committed"
        yield Reason(rule="hold_while.uncommitted", says=bool(count), text=text)


def _active(idle: float | None, within: float, now: datetime) -> Reason:
    rule = "hold_while.active"
    if idle is None:
        return Reason(rule=rule, says=False, text="whether the user is active is not known")
    text = f"the user was active {span(idle)} ago"
    if idle >= within:
        return Reason(rule=rule, says=False, text=f"{text}, not within {span(within)}")
    until = now + timedelta(seconds=within - idle)
    return Reason(
        rule=rule, says=True, text=f"{text}, within {span(within)}", until=until.isoformat()
    )


def _quiet(hours: list[str], now: datetime) -> Reason:
    minute = now.hour * 60 + now.minute
    found = next((text for text in hours if within_hours(text, now.weekday(), minute)), None)
    if found is None:
        text = f"not in quiet hours {', '.join(hours)}: it is {_clock(now)}"
        return Reason(rule="hold_while.hours", says=False, text=text)
    end = _end_of(hours, now)
    over = "never over"
    if end is not None:
        today = end.date() == now.date()
        over = "over at " + (f"{end:%H:%M}" if today else _clock(end))
    text = f"quiet hours {found}: it is {_clock(now)}, {over}"
    until = end.isoformat() if end else ""
    return Reason(rule="hold_while.hours", says=True, text=text, until=until)


def _end_of(hours: list[str], now: datetime) -> datetime | None:
    """The first minute from now on that is in none of the hours; None: they fill the week."""
    moment = now.replace(second=0, microsecond=0)
    for _ in range(7 * 24 * 60 + 1):
        day, minute = moment.weekday(), moment.hour * 60 + moment.minute
        if not any(within_hours(text, day, minute) for text in hours):
            return moment
        moment += timedelta(minutes=1)
    return None


def _clock(moment: datetime) -> str:
    return f"{_WEEKDAYS[moment.weekday()]} {moment:%H:%M}"


def _budget(config: GuardConfig, state: State, now: datetime) -> Iterator[Reason]:
    # Also what lies ahead by a clock that was set back, but not for ever.
    spent = sorted((_moment(one.time), one.seconds) for one in state.spent)
    spent = [one for one in spent if abs(now - one[0]) < _DAY]
    most, count = config.budget.retrainings, len(spent)
    begun = f"{count} of {most} retrainings in 24 hours are spent"
    until = spent[count - most][0] + _DAY if 0 < most <= count else None
    yield _spent("budget.retrainings", count >= most, begun, until, now)
    limit, used = parse_duration(config.budget.time), sum(seconds for _, seconds in spent)
    text = f"{span(used)} of {span(limit)} of retraining in 24 hours are spent"
    gone = accumulate(seconds for _, seconds in spent)
    freed = (
        begin + _DAY for (begin, _), past in zip(spent, gone, strict=True) if used - past < limit
    )
    yield _spent("budget.time", used >= limit, text, next(freed, None), now)


def _spent(rule: str, says: bool, text: str, until: datetime | None, now: datetime) -> Reason:
    if not says or until is None:
        return Reason(rule=rule, says=says, text=text)
    until = until.astimezone(now.tzinfo)
    return Reason(
        rule=rule, says=True, text=f"{text}, more from {_clock(until)}", until=until.isoformat()
    )


def _of_the_code(config: GuardConfig, drift: Drift, state: State) -> Iterator[Reason]:
    if state.refused and state.refused == drift.commit:
        text = f"the model of commit {drift.commit[:7]} was refused: a new commit is waited for"
        yield Reason(rule="refused", says=True, text=f"{text}, or forge guard once --force")
    elif state.refused_share and config.retrain_when.drift is not None:
        # Nearly the same code would give nearly the same model.
        # Nor is there more drift than all.
        step = min(config.retrain_when.drift, 1 - state.refused_share) / 2
        wanted = state.refused_share + step
        text = f"a model was refused at drift {state.refused_share:.3g}: the next one is tried at "
        yield Reason(rule="refused", says=drift.share < wanted, text=f"{text}{wanted:.3g}")
    if drift.suspicious:
        named = "; ".join(drift.suspicious[:3])
        more = f" and {len(drift.suspicious) - 3} more" if len(drift.suspicious) > 3 else ""
        text = f"looks broken, which the gates judge: {named}{more}"
        yield Reason(rule="suspicious", says=False, text=text)


def _moment(text: str) -> datetime:
    """A time that was written down; without a zone it is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


__all__ = ["ASK_AGAIN", "decide", "in_words", "next_look", "span"]
