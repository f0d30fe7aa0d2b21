"""The controls that the default must beat, by name: each is an arm that leaves out, or stands for, one part of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_kit.config import PRESETS, RunConfig, field_extra
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.recipe import resolve
from sage_kit.storage.files import write_bytes
from sage_kit.studies.analyses.search import RANDOM
from sage_kit.studies.arms import Arm
from sage_kit.studies.study import Study

CORPUS = "corpus/train.parquet"  # below the folder of the data: generic text for a warm-up
CORPUS_ROWS = 4000  # rows of it that a warm-up takes
PLAIN = "plain"

GUIDED: Mapping[str, Any] = {
    "sampler": "high_loss",
    "sampler_options": {},
    "inverter": "anchored",
    "inverter_options": {},
    "lift": "replace",
    "lift_options": {"source": "neighbors", "temperature": 0.0},
}
"""The method with all its parts, for studies of one of them, whatever the default is: anchors by their loss, and of the
tokens of neighbours in the map those that move a text furthest toward its synthetic vector."""


_NOTHING: Mapping[str, Any] = {"sampler_options": {}, "lift_options": {}, "inverter_options": {}}

CONTROLS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(
            "random tokens",
            "no map, no loss: random tokens of random examples at random places of random anchors",
            **{**_NOTHING, "sampler": "random", "lift": "replace_random"},
        ),
        Arm(
            "text augmentation",
            "a static set of texts whose tokens gave way to near ones of the embedding table, as TinyBERT does with "
            "BERT and GloVe (Jiao et al. 2020, arXiv 1909.10351: 40 % of the words, 15 candidates)",
            **{
                **_NOTHING,
                "schedule": "static",
                "mix": "add",
                "synthetic_ratio": 4.0,
                "sampler": "random",
                "lift": "replace",
                "lift_options": {
                    "source": "nearest",
                    "temperature": RANDOM,
                    "share": 0.4,
                    "candidates": 15,
                    "consistent": False,
                },
            },
        ),
        Arm(
            "mixup",
            "token states of two examples mixed place by place (Zhang et al. 2018, arXiv 1710.09412)",
            **{**_NOTHING, "sampler": "mixup", "lift": "mixup"},
        ),
        Arm(
            "hidden states",
            "no synthesis; the student's last hidden states follow the teacher's as well",
            schedule="none",
            hidden_weight=1.0,
        ),
        Arm(
            "relations",
            "no synthesis; the student's last block relates tokens as the teacher's does as well (Wang et al. 2021, "
            "arXiv 2012.15828)",
            schedule="none",
            relation_weight=1.0,
        ),
    )
}
"""Arms by their names."""


def control(name: str) -> Arm:
    """The arm of a control."""
    if name not in CONTROLS:
        raise StudyError(f"there is no control {name!r}.{did_you_mean(name, CONTROLS, 'Controls')}")
    return CONTROLS[name]


def parts_left_out(study: Study) -> list[Arm]:
    """The default with one part left out at a time: the map, the guidance by the synthetic vector, the losses.

    Without the map, tokens come from any example and no exchange looks at the synthetic vector; without guidance their
    source stays. Without losses any example is an anchor. What the default does not have is told in a line, and has no
    arm.
    """
    config = study.config(study.tasks[0], **PRESETS["default"])
    options = resolve(config, study.plugins).options["lift"] if config.lift == "replace" else {}
    of_map = options.get("source", "auto") in ("auto", "neighbors")
    free = {**options, "temperature": RANDOM}
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "SAGE without the map": (
            "tokens of any example",
            {"lift": "replace", "lift_options": {**free, **({"source": "any"} if of_map else {})}},
        ),
        "SAGE without guidance": ("places and newcomers at random", {"lift": "replace", "lift_options": free}),
        "SAGE without losses": ("any example as anchor", {"sampler": "random", "sampler_options": {}}),
    }
    seen, arms = [_content(study, config)], []
    for name, (about, settings) in changes.items():
        content = _content(study, study.config(study.tasks[0], **{**PRESETS["default"], **settings}))
        if content in seen:
            print(f"{name}: the same as an arm that is there, so it has none of its own")
            continue
        seen.append(content)
        arms.append(Arm(name, about, **{**PRESETS["default"], **settings}))
    return arms


def _content(study: Study, config: RunConfig) -> dict[str, Any]:
    """What a run synthesises by: the components that it uses, their options, and the settings beside them."""
    settings = config.model_dump(mode="json")
    beside = {name: settings[name] for name in ("schedule", "mix", "synthetic_ratio", "losses_from")}
    recipe = resolve(config, study.plugins)
    return {**beside, **{kind: recipe[kind].name for kind in recipe}, "options": recipe.options}


def corpus_at_hand(config: RunConfig) -> str:
    """`CORPUS` where the folder of the data has it, else ""."""
    return CORPUS if config.data_dir and (Path(config.data_dir).expanduser() / CORPUS).is_file() else ""


def warmup_text(study: Study, named: str | None = None) -> str:
    """The text of a warm-up: the one that is named, else `CORPUS` below the folder of the data. At profile smoke,
    without either, the texts of the teacher stand in for it.
    """
    config = study.config(study.tasks[0])
    if named:
        return named
    if study.size.name == "smoke":
        path = study.store.root / "smoke-texts.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = (" ".join(text.split()) for text in study.store.data(config).teacher.texts)
        write_bytes(path, ("\n".join(texts) + "\n").encode("utf-8"))
        return str(path)
    if corpus := corpus_at_hand(config):
        return corpus
    raise StudyError(f"there is no text for the warm-up: name one with warmup_corpus, or put {CORPUS} into data_dir")


def more_rows(study: Study, factor: int) -> Arm:
    """Plain distillation with `factor` times the real transfer rows, as far as a task's pool goes, at equal steps."""
    by_task = {}
    for task in study.tasks:
        config = study.config(task)
        if not config.transfer_rows:
            raise StudyError(f"task {task!r} draws no transfer set: set transfer_rows to compare with more of them")
        by_task[task] = {"transfer_rows": min(factor * config.transfer_rows, config.transfer_pool or 2**31)}
        short = by_task[task]["transfer_rows"] / config.transfer_rows
        if short < factor:
            print(f"{task}: its pool holds {short:.2g} times the transfer rows only, not {factor}")
    return Arm(f"{PLAIN}, {factor} times the rows", f"{factor} times the real texts", schedule="none", by_task=by_task)


def paper_settings(study: Study, *, inverter: str | None = None, warmup_corpus: str | None = None) -> dict[str, Any]:
    """Settings of an arm that makes the choices of the preset `paper`, but for the models, which are the study's.

    Its warm-up takes the corpus that is named, else `CORPUS` below the folder of the data, else at "full" the preset's
    own; without any of them there is none, which a line says. `inverter` None takes "native" where the reducer is
    linear, else "knn": UMAP's own takes a tenth of a second per vector.
    """
    # what the preset leaves open is as a run has it by default; the reducer is the study's, losses are the same
    own = ("reducer", "reducer_options", "reducer_seed")
    names = [name for name in RunConfig.model_fields if field_extra(name)["group"] == "synthesis" and name not in own]
    preset, as_usual = PRESETS["paper"], RunConfig().model_dump()
    settings = {name: preset.get(name, as_usual[name]) for name in names}
    config = study.config(study.tasks[0])
    settings["inverter"] = inverter or ("native" if config.reducer == "pca" else "knn")
    is_full = study.size.name == "full"
    usual = "" if study.size.name == "smoke" else corpus_at_hand(config)
    corpus = warmup_corpus or (preset["warmup_corpus"] if is_full else usual)
    if corpus:
        rows = preset["warmup_rows"] if is_full else CORPUS_ROWS
        settings |= {"warmup_corpus": corpus, "warmup_epochs": preset["warmup_epochs"], "warmup_rows": rows}
    else:
        print("SAGE paper: no warm-up, since no text for it is at hand")
    changed = {name: value for name, value in settings.items() if value != as_usual[name]}
    print("SAGE paper:", ", ".join(f"{name}={value}" for name, value in changed.items()))
    return settings
