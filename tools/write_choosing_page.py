"""Write `docs/choosing.md`, which loss, which lift, when, and the table of gains in `README.md`, from `results/`.

All numbers on both come from saved results; where there is none, the page says so. Whoever adds a result runs this.

    python tools/write_choosing_page.py           # write both
    python tools/write_choosing_page.py --check   # only say whether they are up to date; exit status 1 if not
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.reports.page_text import table_head, table_row
from sage_kit.storage.files import write_texts
from sage_kit.studies.ledger import COUNTED_PROFILES, read_results
from sage_kit.studies.result import StudyResult, read_tables
from sage_kit.studies.verdicts import PERCENT_CHANGE, number_text

if TYPE_CHECKING:
    from pandas import DataFrame

ROOT = Path(__file__).parents[1]
PAGE, README, RESULTS = ROOT / "docs" / "choosing.md", ROOT / "README.md", ROOT / "results"
COMMAND = "python tools/write_choosing_page.py"

BLOCK = re.compile(r"(<!-- gains: written by `[^`]+` -->\n).*?(<!-- end of gains -->)", flags=re.DOTALL)
"""The part of `README.md` that holds the table."""

DEFAULTS = "12_default_settings"
AVERAGE = "average"
TASKS = {"sst2": "SST-2, accuracy", "stsb": "STS-B, Pearson", "qqp": "QQP, F1", "mnli": "MNLI, accuracy",
         "mrpc": "MRPC, F1", "qnli": "QNLI, accuracy", "cola": "CoLA, Matthews"}  # fmt: skip

HEAD = f"""<!-- Written by `{COMMAND}`; change that file, not this page. -->

# Which loss, which lift, when

What the results in this repository say about the choices of a run, and where nothing is measured. Two kinds of
evidence stand here, and they are not alike:

- A **finding** compares arms that were tuned alike, on held-out rows, over five seeds or more, with p corrected over
  its study. [What the studies found](../results/README.md) has all of them.
- A **pointer** is a step of the search that chose the default settings: on dev alone, one seed or two for each level.
  It says where to look first. A change of a few per cent in it is noise.

Everything was measured with all-MiniLM-L6-v2 as the teacher, three of its six blocks as the student, and few texts to
learn from. Another teacher, another depth or more data may turn an order around: `sage-kit search` asks on your data,
and `sage-kit study run NAME -p task=file ...` with intervals.
"""

LOSSES = """## Which loss

`losses = {kl = 1.0}` is the default. The table says what each is made of, which is no statement of what it is worth:

| loss | what it compares | it needs |
| --- | --- | --- |
| `kl` | the distributions of the outputs; numbers by their squared error | nothing: texts without labels will do |
| `logits_mse` | the outputs themselves, so in the place of `kl` | nothing |
| `dist` | the order of the classes in an example, and of the examples of a batch in a class | classes; not answers to questions |
| `hard_labels` | the student's outputs and the labels | labels, which a transfer file may lack |
| `hidden_cosine`, `hidden_mse`, `pkd` | hidden states of blocks, through a learned map where the widths differ | a further pass through the last block |
| `minilm_relations`, `tinybert_attention` | how the tokens of an example attend to each other | more than one token an example |
| `embedding_cosine`, `rkd`, `contrastive` | pooled vectors, one by one or within a batch | for [sentence encoders](embeddings.md), or beside `kl` |

A loss of inner states costs time at every step, since the student then computes its last block for every token: count
it, as [the architecture](architecture.md#costs) tells.
"""  # noqa: E501

LIFTS = """## Which lift

A lift makes token states of a synthetic vector and its anchor's text.

| lift | take it when |
| --- | --- |
| `replace` | by default: it exchanges tokens, so that every example is text that can be read, with the position of each token's new place |
| `replace_random` | you want no map at all, or a control: nothing is fitted |
| `shift`, `scale_shift` | you reproduce the paper, or work behind encoder blocks and want vectors that are no text |
| `mixup` | the sampler is `mixup`, which says how far between two examples a point lies |
| `pooled` | `granularity = "pooled"`: an example is one vector |
"""  # noqa: E501

OTHERS = """## Anchors, map, mix, schedule
"""

WHEN = """## When it is worth it at all

`sage-kit worth FILE` answers for a labelled file: it trains models of several sizes and says what each gains and
costs. Distilling pays where the teacher knows more than the texts that the student learns from, and is ahead of a
constant answer; where both learn from the same rows, the student soon beats its teacher, and being closer to it cannot
show. What the studies ask beyond that:
"""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "losses": ("17_losses",),
    "lifts": (),
    "others": (
        "16_controls", "10_is_it_the_region", "04_static_or_adaptive", "11_replace_or_add", "05_reducers",
        "01_reducer_dimension", "07_coherence_filter",
    ),
    "when": ("09_glue", "14_data_efficiency", "13_warm_up", "02_input_layer", "15_equal_cost_bypass", "08_beyond_glue"),
}  # fmt: skip
"""The studies that each section tells of."""

FACTORS = {
    "losses": ("temperature", "hidden", "relations"),
    "lifts": ("lift", "exchange", "share", "source", "guidance", "candidates"),
    "others": ("anchors", "mix", "map", "inverter", "schedule", "choice"),
}
"""The factors of the search that each section tells of."""


def page(results: Sequence[StudyResult], titles: dict[str, str]) -> str:
    """The text of the page; `titles` has the question of every notebook, by its name."""
    main = defaults_result(results)
    parts = [HEAD, "## The default, before anything else\n"]
    if main is None:
        parts.append(f"{not_run(DEFAULTS, titles)}\n")
    else:
        table = "\n".join(gains(main))
        parts += [f"{setting_of(main)} {time_of(main)}\n", f"{table}\n", f"{sentences(main)}\n"]
    for name, text in (("losses", LOSSES), ("lifts", LIFTS), ("others", OTHERS), ("when", WHEN)):
        parts.append(text)
        pointers = search_table(main, FACTORS.get(name, ()))
        if pointers:
            told = "Pointers of the search; each level against the one that was chosen before it"
            told += ", lifts against `shift`" if name == "lifts" else ""
            parts.append("\n".join([f"{told}. Below zero is closer to the teacher:", "", *pointers, ""]))
        parts += [f"{found(study, results, titles)}\n" for study in QUESTIONS[name]]
    return "\n".join(parts).rstrip() + "\n"


def defaults_result(results: Sequence[StudyResult]) -> StudyResult | None:
    """The result of the study of the defaults: of the largest profile, then over most tasks."""
    return next(iter(ranked(DEFAULTS, results)), None)


def ranked(study: str, results: Iterable[StudyResult]) -> list[StudyResult]:
    """The results of a study that count, the most telling first."""
    own = [one for one in results if one.study == study and one.profile in COUNTED_PROFILES]
    return sorted(own, key=lambda one: (COUNTED_PROFILES.index(one.profile), -len(one.tasks), -one.seeds, one.label))


def found(study: str, results: Sequence[StudyResult], titles: dict[str, str]) -> str:
    """What a study found, in the sentences of its own findings; that it was not run, where it has no result."""
    own = ranked(study, results)
    if not own:
        return not_run(study, titles)
    return "\n\n".join(f"**{titles[study]}** {setting_of(one)}\n\n{sentences(one)}" for one in own)


def not_run(study: str, titles: dict[str, str]) -> str:
    """That nothing is measured, and how to."""
    number = study.partition("_")[0]
    return f"**{titles[study]}** Nothing is measured here yet: `sage-kit study run {number} --profile small`."


def setting_of(result: StudyResult) -> str:
    """On what a result rests, with a link to its study."""
    tasks = ", ".join(TASKS.get(task, task).partition(",")[0] for task in result.tasks)
    return (
        f"[Study {result.study.partition('_')[0]}](../notebooks/{result.study}.ipynb), profile {result.profile}: "
        f"{tasks}; {result.seeds} seeds."
    )


def time_of(result: StudyResult) -> str:
    """How long runs with the chosen settings took beside plain ones; "" where the result does not tell."""
    compute = read_tables(result).get("compute")
    if compute is None:
        return ""
    ratios = [
        row_of(compute, task=task, arm="chosen")["seconds"] / row_of(compute, task=task, arm="plain")["seconds"]
        for task in result.tasks
    ]
    return (
        f"On the machine of the study a run took {min(ratios):.1f} to {max(ratios):.1f} times as long as a plain one."
    )


def sentences(result: StudyResult) -> str:
    """What is decided, and, folded, what is not; each in the finding's own words."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for finding in result.findings:
        told[finding.state != "undecided"].append(f"- {' '.join(finding.sentence.split())}")
    text = "\n".join(told[True]) or "None of its questions has an answer yet."
    if not told[False]:
        return text
    title = f"Undecided: {len(told[False])} of its {len(result.findings)} questions"
    return "\n\n".join([text, f"<details><summary>{title}</summary>", "\n".join(told[False]), "</details>"])


def gains(result: StudyResult) -> list[str]:
    """What the default settings gain over plain distillation, task by task, as a table."""
    tables = read_tables(result)
    score, agreement, divergence = (tables[f"over_plain{end}"] for end in ("", "_agreement", "_divergence"))
    titles = ["task", "plain", "SAGE", "difference (95 % interval)", "agreement with the teacher", "divergence from it"]
    lines = table_head(titles)
    for task in score["task"]:
        row, close, far = (row_of(table, task=task) for table in (score, agreement, divergence))
        cells = [
            TASKS.get(task, task),
            points(row["baseline_mean"]),
            points(row["mean"]),
            f"{points(row['difference'], True)} ({points(row['low'])} to {points(row['high'])})",
            points(close["difference"], True),
            f"{number_text(far['difference'], PERCENT_CHANGE, signed=True)} %",
        ]
        lines.append(table_row([f"**{cell}**" for cell in cells] if task == AVERAGE else cells))
    return lines


def search_table(result: StudyResult | None, factors: Sequence[str]) -> list[str]:
    """What the steps of the search changed on average over tasks; nothing without a search."""
    if result is None or not factors:
        return []
    steps = read_tables(result)["search"]
    lines = table_head(["factor and level", "change of divergence", "agreement", "seeds", "chosen"])
    own = steps[(steps["task"] == AVERAGE) & steps["factor"].isin(factors)]
    for _, row in own.iterrows():
        cells = [
            row["arm"] + (" (equal FLOPs)" if row["equal"] == "FLOPs" else ""),
            f"{points(row['change'], True)} %",
            points(row["agreement"], True),
            str(row["n_seeds"]),
            "yes" if row["taken"] else "",
        ]
        lines.append(table_row(cells))
    return lines if len(own) else []


def points(value: float, signed: bool = False) -> str:
    """A score or a difference of two in points, to one decimal."""
    return f"{round(100 * value, 1) + 0.0:{'+' if signed else ''}.1f}"  # 0.0 is added to lose the sign of a zero


def row_of(table: DataFrame, **values: Any) -> Any:
    """The one row of a table with these values."""
    for name, value in values.items():
        table = table[table[name] == value]
    (row,) = (one for _, one in table.iterrows())
    return row


def question_titles() -> dict[str, str]:
    """The question of each notebook, by the notebook's name: the heading's own words where it is one."""
    titles = {}
    for path in sorted(ROOT.glob("notebooks/[0-9]*.py")):
        match = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        title = match[1] if match else path.stem
        titles[path.stem] = title if title.endswith("?") else f"{title}."
    return titles


def texts(results: Sequence[StudyResult]) -> dict[Path, str]:
    """Both files as they should be."""
    readme = README.read_text(encoding="utf-8")
    main = defaults_result(results)
    if main is not None:
        table = "\n".join(gains(main))
        readme = BLOCK.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", readme)
    return {PAGE: page(results, question_titles()), README: readme}


def main() -> int:
    """Write or compare; the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/choosing.md and a table of README.md from results/.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    arguments = parser.parse_args()
    results, faults = read_results(RESULTS)
    for fault in faults:
        print(fault, file=sys.stderr)
    stale = {
        path: text for path, text in texts(results).items() if not path.is_file() or path.read_text("utf-8") != text
    }
    if not arguments.check:
        write_texts(stale)
    names = ", ".join(path.relative_to(ROOT).as_posix() for path in stale)
    if arguments.check and stale:
        print(f"not up to date: {names}: run {COMMAND}")
    else:
        print(f"Written: {names}" if stale else "up to date")
    return 1 if faults or (arguments.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
