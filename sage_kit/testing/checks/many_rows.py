"""Checks of a component in use, with few rows and with many: some faults show only where there are many."""

from __future__ import annotations

import math

from sage_kit.testing.exercises import SHARE, differing, recorded, require_nothing
from sage_kit.testing.registry import CHECKS, CheckWarning, NotApplicable, check
from sage_kit.testing.subject import Subject

USED = ("reducer", "sampler", "inverter", "lift", "filter", "loss", "decoder", "metric", "stop_rule", "task_kind")
"""Kinds that are used with rows."""
LEAST_SECONDS = 0.2  # processor time with many rows below which nobody waits, however it grows [s]
STEEP = 9.0
"""Growth of the time, with four times the rows, that is told of; 4 is linear, 5 is n log n, 16 is quadratic [1]."""

LONGEST = 30.0  # processor time with many rows above which it is not measured once more [s]


@check(*USED)
def works_with_many_rows(subject: Subject) -> None:
    """With about 2,500 rows it returns what it returns with few: the right shape and type, finite, for each row.

    To fix: look for what depends on the number of rows: a shortcut for many, a batch whose rest is left out, an index
    of 8 or 16 bits, a fixed buffer.
    """
    subject.need_packages()
    failure = subject.recording
    if isinstance(failure, BaseException):
        _try_few(subject)
        raise failure


def _try_few(subject: Subject) -> None:
    """Skip the check where few rows do not work either, which the check of the kind's answers tells."""
    names = (f"{subject.spec.kind}_shapes", "decoder_fit", "stop_rule_answers")
    for name in names:
        for other in CHECKS:
            if other.name == name and subject.spec.kind in other.kinds:
                try:
                    other.function(subject)
                except (Exception, SystemExit):  # a component may raise anything
                    raise NotApplicable(f"not run: first mend what {name} found") from None


@check(*USED)
def is_repeatable_with_many_rows(subject: Subject) -> None:
    """Another object with the same seed and input gives the same, whatever the time and the global random states.

    To fix: draw everything random from the generator that the request brings, or from ``context.seed``; never from the
    time, the process or a generator without a seed. A reducer that cannot be repeated says `repeatable=False`.
    """
    recording = recorded(subject)
    if subject.spec.kind == "reducer" and not subject.reducer_spec.repeatable:
        raise NotApplicable("the spec says that it is not repeatable")
    names = differing(recording.many.outputs, recording.other.outputs)
    size = recording.exercise.words(recording.exercise.many)
    require_nothing(names, f"two objects give different {{}} under the same seed, with {size}")


@check(*USED)
def second_use_agrees(subject: Subject) -> None:
    """One object that is used twice with the same input gives the same twice, and leaves the first result as it was.

    To fix: let the first use leave nothing behind that changes the second: set attributes anew in each call, copy a
    buffer before you return it, and make generators from ``context.seed`` within the call.
    """
    recording = recorded(subject)
    require_nothing(recording.overwritten, "its second use overwrites what the first returned: {}")
    if subject.spec.kind == "reducer" and not subject.reducer_spec.repeatable:
        raise NotApplicable("the spec says that it is not repeatable")
    if subject.is_stateful:
        raise NotApplicable("it has a state that goes on, which survives_a_resume looks at")
    names = differing(recording.many.copies, recording.again.outputs)
    require_nothing(names, "used a second time with the same input, one object gives different {}")


@check(*USED)
def keeps_many_rows(subject: Subject) -> None:
    """Its input is left as it was with many rows, too.

    To fix: work on a copy, ``np.array(vectors)``; in a run the arrays are read-only.
    """
    recording = recorded(subject)
    many = recording.exercise.words(recording.exercise.many)
    if any(not name.endswith(many) for name in recording.changed_inputs):
        raise NotApplicable(f"not run: first mend what {subject.spec.kind}_keeps_its_input found")
    require_nothing(recording.changed_inputs, "it changes its input in place: {}")


@check("reducer", "sampler", "inverter", "filter")
def returns_no_view(subject: Subject) -> None:
    """What it returns has memory of its own: an array that shares its input's would change with it.

    To fix: end with ``.copy()``, or select with an array of indices, which copies, instead of a slice.
    """
    require_nothing(recorded(subject).shared, "{}")


@check("reducer", "sampler", "inverter", "lift", "filter", "decoder", "metric")
def time_grows_slowly(subject: Subject) -> None:
    """Four times the rows take less than nine times the time; a warning, not a failure.

    It is the processor time of the whole process, the least of two tries with new objects each, with 2,500 rows and
    with a quarter of them. What takes less than 0.2 s with 2,500 is not looked at.

    To fix: replace a loop over pairs of rows by a neighbour index (sklearn.neighbors), landmarks or a matrix product in
    parts; users have a hundred thousand rows.
    """
    recording = recorded(subject)
    many, few = recording.exercise.many, recording.exercise.many // SHARE
    long = min(recording.many.seconds, recording.other.seconds)
    if long < LEAST_SECONDS:
        return
    short = recording.seconds(few)
    if long < STEEP * short:
        return
    if long < LONGEST:  # once more, since another process may have been in the way
        long, short = min(long, recording.seconds(many)), max(short, recording.seconds(few))
    if long >= STEEP * short:
        words = recording.exercise.words
        raise CheckWarning(
            f"it takes {long:.1f} s of processor time with {words(many)} and {short:.2f} s with {words(few)}: with "
            f"100,000 rows that would be about {_hours(long, short, many)}"
        )


def _hours(long: float, short: float, rows: int) -> str:
    power = math.log(long / short) / math.log(SHARE)
    seconds = long * (100_000 / rows) ** power
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
