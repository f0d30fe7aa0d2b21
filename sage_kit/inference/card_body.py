"""The text of a model card: what a student is, how to load it, how good it is, what it cost, and its limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from sage_kit.config import toml_item
from sage_kit.data.scoring import AGREEMENT
from sage_kit.data.splits import EVALUATION
from sage_kit.inference.card_facts import NamedModel, RunFacts, without_folders
from sage_kit.inference.card_markup import between, bullets, code, duration, fenced, listed, number
from sage_kit.inference.card_scores import RunScore
from sage_kit.inference.card_snippets import own_snippet, plain_snippet
from sage_kit.reports.markdown import table
from sage_kit.studies.predictions import DEV

LISTED = 20
"""Most labels that are listed one by one."""

FEW_ROWS = 1000
"""Rows below which a card says that its scores rest on few."""

PAPER = "https://arxiv.org/abs/2508.14783"

WHAT: Mapping[str, str] = {
    "classes": "It puts a text into one of {n:,} classes",
    "numbers": "It gives a text a number",
    "label_sets": "It gives a text any number of {n:,} labels",
    "tags": "It gives each word of a text one of {n:,} tags",
    "spans": "It answers a question with a piece of a given text",
    "embeddings": "It makes a vector of a text, so that texts alike in meaning have vectors of like direction",
}
"""What a student does, by the kind of its labels."""

AGREES: Mapping[str, str] = {
    "classes": "the share of rows of which both predict the same class",
    "numbers": "the share of rows of which both give numbers that differ by 5 % of the range at most",
    "label_sets": "the share of rows to which both give the same labels",
    "tags": "the share of a row's words to which both give the same tag",
    "spans": "how far the answers of both are the same piece of the text, F1 of its characters",
    "embeddings": "the rank correlation of both models' cosines of a row's texts with others",
}
"""What agreement with the teacher is, by the kind of labels."""


def title(facts: RunFacts) -> str:
    """What the card is called, without markup."""
    task = facts.config.task
    if task == "file" and facts.config.train_file:
        task = str(without_folders(facts.config.train_file, is_path=True))
    return f"Student of {facts.teacher.shown} on {task}"


def body(facts: RunFacts) -> str:
    """The card's text below its metadata."""
    parts = {
        "": _introduction(facts),
        "Use": _use(facts),
        "Data": _data(facts),
        "Scores": _scores(facts),
        "Limits": bullets(_limits(facts)),
        "Costs": _costs(facts),
        "Settings": _settings(facts),
        "Made with": _environment(facts),
    }
    sections = [f"## {heading}\n\n{text}" if heading else text for heading, text in parts.items()]
    heading = " ".join(code(word) if not word.isalpha() else word for word in title(facts).split())
    return "\n\n".join([f"# {heading}", *sections]) + "\n"


def _introduction(facts: RunFacts) -> str:
    config, parameters = facts.config, facts.summary["parameters"]
    way = f"[SAGE]({PAPER})" if config.schedule != "none" else "plain distillation"
    what = WHAT.get(facts.label_kind, f"It is for a task of kind {code(facts.label_kind)}").format(n=len(facts.labels))
    size = f"{parameters['student']:,} parameters"
    if facts.blocks:
        of = f" of its teacher's {facts.teacher.blocks}" if facts.teacher.blocks and not config.student else ""
        size = f"{facts.blocks} encoder blocks{of} and {size}"
    if parameters.get("teacher"):
        who = "the teachers have" if facts.other_teachers else "the teacher has"
        size += f"; {who} {parameters['teacher']:,}"
    lines = [
        f"A small encoder that was distilled from {_models([facts.teacher, *facts.other_teachers])} by {way}, with "
        f"sage_kit. {what}. It has {size}.",
    ]
    if config.student_width:
        lines.append(f"Its blocks are {config.student_width} dimensions wide, narrower than the teacher's.")
    if facts.ready_student is not None:
        lines.append(f"It began as {_model(facts.ready_student)}.")
    elif facts.teacher.blocks:
        lines.append(f"Its blocks began as {_beginning(facts)}.")
    return " ".join(lines)


def _beginning(facts: RunFacts) -> str:
    init = facts.config.student_init
    if init == "scratch":
        return "random numbers, behind the teacher's input layers"
    chosen = {"uniform": "at uniform distance", "spread": "from the first to the last", "last": "its last ones"}
    how = chosen.get(init) if isinstance(init, str) else f"numbers {', '.join(map(str, init))}"
    return f"blocks of the teacher ({how})"


def _model(model: NamedModel) -> str:
    if model.on_hub:
        return f"[{code(model.shown)}](https://huggingface.co/{model.shown})"
    return f"{code(model.shown)} (a checkpoint on its maker's machine)" if model.is_local else code(model.shown)


def _models(models: list[NamedModel]) -> str:
    return " and ".join(map(_model, models))


# ---- use ------------------------------------------------------------------------------------------------------------


def _use(facts: RunFacts) -> str:
    needs = "sentence-transformers" if facts.architecture == "embedding" else "transformers"
    longest = facts.config.max_length
    if facts.architecture == "span":
        length = f"Contexts that are longer than {longest} tokens with the question are cut here; `load_student` reads "
        length += "them in windows."
    else:
        length = f"Of a text it reads the first {longest} tokens."
    parts = [
        f"It is meant for texts like those of its training data, below. With {needs} alone:",
        fenced(plain_snippet(facts), "python"),
        "With sage_kit, which reads files of any length as well (`sage-kit predict`):",
        fenced(own_snippet(facts), "python"),
        length,
    ]
    if facts.label_kind == "numbers":
        low, high = facts.summary["labels"]["range"]
        parts.append(f"Its numbers are meant to lie between {low:g} and {high:g}; nothing keeps them there.")
    elif facts.labels:
        parts.append(f"Labels: {listed(facts.labels, LISTED)}.")
    if facts.config.text_prefix:
        parts.append(f"In front of each text stands {code(facts.config.text_prefix)}, which the folder's default "
                     "prompt adds.")  # fmt: skip
    return "\n\n".join(parts)


# ---- data -----------------------------------------------------------------------------------------------------------


def _data(facts: RunFacts) -> str:
    parts = [_source(facts), table(["split", "rows", "what for"], _splits(facts))]
    classes = facts.summary["labels"].get("classes")
    if classes:
        names = list(next(iter(classes.values())))
        shown = list(classes.items())[:LISTED]
        rows = [[code(label), *(f"{counts[name]:,}" for name in names)] for label, counts in shown]
        if len(classes) > LISTED:
            rows.append([f"{len(classes) - LISTED:,} others", *("" for _ in names)])
        parts.append("Rows of each class:" if names else "Classes:")
        parts.append(table(["class", *names], rows))
    return "\n\n".join(parts)


def _source(facts: RunFacts) -> str:
    config, spec = facts.config, facts.spec
    if config.task == "file":
        names = {"trained on": config.train_file, "validated on": config.validation_file}
        text = "Files of its maker: " + ", ".join(
            f"{how} {code(without_folders(name, is_path=True))}" for how, name in names.items() if name
        )
    elif spec is None:
        text = f"Task {code(config.task)}, of a plugin"
    else:
        text = f"Task {code(config.task)} ({spec.summary})"
        if facts.data_set:
            source = spec.source_of(spec.train_split).hub
            inner = f", configuration {code(source.configuration)}" if source and source.configuration else ""
            text += f", data set [{code(facts.data_set)}](https://huggingface.co/datasets/{facts.data_set}){inner}"
            text += ", read from a local copy" if config.data_dir else ""
        if config.task_options:
            told = ", ".join(f"{name} {code(str(without_folders(v)))}" for name, v in config.task_options.items())
            text += f"; options: {told}"
    more = {"transfer texts": config.transfer_file, "evaluation texts": config.evaluation_file}
    text += "".join(f"; {what} from {code(without_folders(name, is_path=True))}" for what, name in more.items() if name)
    if config.warmup_epochs and config.warmup_corpus:
        text += f"; warmed up on {code(without_folders(config.warmup_corpus))}"
    return f"{text}."


def _splits(facts: RunFacts) -> Iterator[list[str]]:
    summary = facts.summary
    sequences = summary.get("sequences", {})
    teacher_apart = "teacher" in summary["examples"]
    what = {
        "train": "the student learned from them" if teacher_apart else "student and teacher learned from them",
        "teacher": "the teacher learned from them",
        DEV: "every decision during training rests on them",
        EVALUATION: "compared with the teacher at the end, used for nothing else",
    }
    if not summary["teacher"]["finetuned_here"]:
        what["train"], what["teacher"] = "the student learned from them", "rows of the teacher, which was ready-made"
    source = str(summary.get("validation_source") or "validation data")
    for name, rows in summary["examples"].items():
        count = f"{rows:,}"
        if name in sequences:
            count += f" ({sequences[name]:,} sequences)"
        told = what.get(name, f"{source}, for reporting only")
        if name not in what and not summary["validation"]:
            told = "not looked at"
        yield [code(name), count, told]


# ---- scores ---------------------------------------------------------------------------------------------------------


def _scores(facts: RunFacts) -> str:
    scores = facts.scores
    told = [one for one in scores if one.split != DEV] or scores
    parts = []
    if told and told[0].split == DEV:
        parts.append("The student was scored on dev alone, on which decisions during training rested.")
    if not told:
        return "The run has no score."
    parts.append(_table_of(told))
    dev = [one for one in scores if one.split == DEV]
    if dev and told[0].split != DEV:
        parts.append("On dev, on which decisions during training rested:")
        parts.append(_table_of(dev))
    report = facts.summary["teacher"].get("report", {})
    if report.get("constant_dev") is not None:
        parts.append(
            f"The best answer that is the same for all rows of dev ({code(str(report['constant_answer']))}) has "
            f"{report['metric']} {number(report['constant_dev'])}."
        )
    legend = {name: text for name, text in facts.metrics.items() if any(one.metric == name for one in scores)}
    if legend:
        parts.append(bullets(f"{code(name)}: {_metric(facts, name, text)}" for name, text in legend.items()))
    parts.append(
        "Intervals cover 95 % and are over rows: what other rows of the same kind would do to the scores of this one "
        "student. They do not tell how other seeds would have come out. Agreement of student and teacher is "
        f"{AGREES.get(facts.label_kind, 'as the kind of task counts it')}."
    )
    return "\n\n".join(parts)


def _metric(facts: RunFacts, name: str, summary: str) -> str:
    """What a metric measures, with the class that it is of."""
    if name == "f1" and len(facts.labels) > 1:
        return f"F1 of class {code(facts.labels[1])}"
    return " ".join(summary.split())


def _table_of(scores: list[RunScore]) -> str:
    rows = []
    for one in scores:
        name = "agreement with the teacher" if one.metric == AGREEMENT else code(one.metric)
        behind = between(one.behind_low, one.behind_high, signed=True)
        less = "-" if math.isnan(one.teacher) else f"{one.value - one.teacher:+.4f} {behind}".strip()
        own = f"{number(one.value)} {between(one.low, one.high)}".strip()
        rows.append([code(one.split), f"{one.rows:,}", name, own, number(one.teacher), less])
    return table(["split", "rows", "metric", "student", "teacher", "student less teacher"], rows)


# ---- limits ---------------------------------------------------------------------------------------------------------


def _limits(facts: RunFacts) -> Iterator[str]:
    config, summary = facts.config, facts.summary
    yield (
        f"One student, made with one seed (`seed = {config.seed}`): another seed would give another, and the intervals "
        "above do not cover that."
    )
    scored = [one for one in facts.scores if one.split != DEV]
    if not summary["validation"]:
        yield "It was never scored on validation data."
    few = sorted({(one.split, one.rows) for one in scored if one.rows < FEW_ROWS})
    if few:
        yield f"Its scores rest on few rows: {', '.join(f'{rows:,} of {code(split)}' for split, rows in few)}."
    if scored and all(one.metric == AGREEMENT for one in scored):
        yield "Its scores are agreement with the teacher alone, since the rows have no labels: no word of being right."
    if any(math.isnan(one.low) for one in scored):
        yield "Of some metrics no interval is known, since they do not say what a row contributes."
    if facts.labels:
        always = "knows no others" if facts.label_kind == "label_sets" else "answers with one of them whatever it reads"
        yield f"It was taught the {len(facts.labels):,} labels above, and {always}."
    if summary.get("unanswered"):
        yield (
            "Some questions of its training data have no answer; the code above that needs transformers alone answers "
            "every question."
        )
    if facts.architecture != "span":
        yield f"What stands behind the first {config.max_length} tokens of a text changes nothing."
    if facts.language:
        yield f"It learned from texts in one language (`{facts.language}`); others were not trained on."
    report = summary["teacher"].get("report", {})
    if report.get("better_teacher_labels"):
        yield "The run warned that its teacher's outputs seem to stand in another order than the labels."
    elif report.get("warnings"):
        yield "The run warned that on dev its teacher is little or no better than an answer that looks at no text."
    if not summary.get("checkpoint_equals_student", True):
        yield (
            "It was trained on one pooled vector a text and reads token states here, so that it scores otherwise than "
            "the tables say."
        )
    if summary.get("disabled_observers"):
        yield "Some observers of the run failed, so that what they write may not be complete."
    yield "It learned from its teacher's outputs and shares what is wrong with them; nobody has looked for unfair bias."


# ---- costs and settings ---------------------------------------------------------------------------------------------


def _costs(facts: RunFacts) -> str:
    costs, summary = facts.costs, facts.summary
    rows = []
    for activity, seconds in costs.get("seconds", {}).items():
        tokens, flops = (costs.get(what, {}).get(activity) or 0 for what in ("tokens", "flops"))
        rows.append(
            [activity, duration(seconds), f"{tokens:,.0f}" if tokens else "-", f"{flops:.3g}" if flops else "-"]
        )
    rounds = len(summary["rounds"])
    text = (
        f"{summary['student_steps']:,} student steps in {rounds} round{'s' if rounds != 1 else ''}, "
        f"{duration(summary['seconds'])} on {code(str(summary.get('device', '')))} in "
        f"{code(str(summary.get('precision', '')))}"
    )
    apart = "; the teacher's fine-tuning, which serves all runs, is not in it"
    exported = summary.get("exported_round", rounds)
    chosen = f" The student is that of round {exported}, the best on dev." if exported != rounds else ""
    lines = [f"{text}{apart if summary['teacher']['finetuned_here'] else ''}.{chosen}"]
    if rows:
        lines.append(table(["activity", "time", "tokens", "FLOPs"], rows))
    return "\n\n".join(lines)


def _settings(facts: RunFacts) -> str:
    import tomlkit

    document = tomlkit.document()
    for name, value in facts.changed_settings().items():
        document.add(name, toml_item(value))
    components = [[kind, code(_component(told))] for kind, told in facts.environment.get("components", {}).items()]
    parts = ["Those that differ from the defaults; of files and folders the last part of their names:"]
    parts.append(fenced(tomlkit.dumps(document) or "# none", "toml"))
    if components:
        parts.append(table(["part", "component"], components))
    return "\n\n".join(parts)


def _component(told: str) -> str:
    """A component and what it comes from, of a file its name alone."""
    name, _, origin = told.removesuffix(")").partition(" (")
    return f"{name} ({without_folders(origin)})" if origin else name


def _environment(facts: RunFacts) -> str:
    told = facts.environment
    packages = {"python": told.get("python", ""), **told.get("packages", {})}
    shown = ", ".join(f"{name} {version}" for name, version in packages.items() if version not in ("", "not installed"))
    return f"{shown}. The run ended because: {code(str(facts.summary['stopped']), 200)}."
