"""The steps of a run as tables and pictures, and whether the losses of anchors fall more than those of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.special import softmax

from sage_kit.builtin.samplers.high_loss import hardest
from sage_kit.components import TaskSpec
from sage_kit.errors import StudyError
from sage_kit.reports.figures import ANCHOR, REAL, SYNTHETIC
from sage_kit.reports.lifted_round import LiftedRound
from sage_kit.rundir.loss_profiles import read_loss_profiles
from sage_kit.studies.analyses.run_data import label_text
from sage_kit.studies.plots import frame, new_figure, plane
from sage_kit.studies.runs import ArmRun
from sage_kit.studies.study import Study
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.training.prepared import Prepared

Array = NDArray[Any]

SHOWN_DIMENSIONS = 48  # first dimensions of a token state that are drawn
GROUPS = ("anchors", "other hard", "easy")

COLORS = "RdBu_r"
LOSS_COLORS = "YlOrRd"


def texts_table(prepared: Prepared, rows: Sequence[int]) -> DataFrame:
    """Some training examples: text (of a pair, both), label, and what the teacher says."""
    split, spec = prepared.data.train, prepared.data.spec
    logits = prepared.train.outputs.logits
    found = []
    for row in rows:
        text = split.texts[row] if split.pairs is None else f"{split.texts[row]} | {split.pairs[row]}"
        found.append((text, label_text(split.labels[row], spec), prediction_text(logits[row], spec),
                      int(prepared.train.store.lengths[row])))  # fmt: skip
    return DataFrame(found, columns=["text", "label", "teacher", "tokens"])


def prediction_text(logits: Array, spec: TaskSpec) -> str:
    """A prediction in words, with its probability; a number for regression."""
    if spec.is_regression:
        return f"{float(logits[0]):.2f}"
    best = int(logits.argmax())
    return f"{spec.labels[best]} ({softmax(logits)[best]:.2f})"


def predictions_table(run: ArmRun, texts: Sequence[str], spec: TaskSpec, rows: Sequence[int]) -> DataFrame:
    """Labels, and predictions of teacher and student, for some examples of the dev split."""
    known = run.predictions["dev"]
    return DataFrame(
        {
            "text": [texts[row] for row in rows],
            "label": [label_text(known["labels"][row], spec) for row in rows],
            "teacher": [prediction_text(known["teacher"][row], spec) for row in rows],
            "student": [prediction_text(known["student"][row], spec) for row in rows],
        }
    )


def bypass_table(prepared: Prepared, row: int) -> DataFrame:
    """The way of one training example through the teacher, and through the student that bypasses the input layers.

    The last row holds the largest difference between the logits of the whole teacher and of its upper layers on the
    stored token states.
    """
    store = prepared.train.store
    index = np.array([row], dtype=np.int64)
    ids, types, mask = (tensor.to(prepared.device) for tensor in prepared.train.tokens.pad(index))
    batch = store.batch(index, prepared.device)
    upper = prepared.teacher_upper
    model = prepared.teacher.model
    takes_types = "token_type_ids" in prepared.teacher.tokenizer.model_input_names
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask.long(), **({"token_type_ids": types} if takes_types else {}))
        bypassed = upper(batch.states, batch.mask).logits
    gap = float((whole.logits.float() - bypassed.float()).abs().max())

    def parameters(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    front, own = parameters(prepared.input_layers), parameters(prepared.student) - parameters(prepared.input_layers)
    shapes = [tuple(ids.shape[1:]), tuple(batch.states.shape[1:]), tuple(store.pooled.shape[1:])]
    rows = [
        ("token ids", shapes[0], 0, "from the tokenizer"),
        ("input layers: token states", shapes[1], front, "computed once and stored; shared by teacher and student"),
        ("pooled vector", shapes[2], 0, "mean of the token states; what the map is made of"),
        ("teacher's upper layers: logits", tuple(bypassed.shape[1:]), parameters(upper), "frozen"),
        ("student's upper layers: logits", tuple(bypassed.shape[1:]), own, "trained, from the same token states"),
        ("whole teacher against its upper layers", (), 0, f"largest difference of the logits: {gap:.1e}"),
    ]
    told = [(step, str(shape) if shape else "", count, note) for step, shape, count, note in rows]
    return DataFrame(told, columns=["step", "shape", "parameters", "note"])


def token_names(found: LiftedRound, example: int) -> list[str]:
    """Tokens of an anchor."""
    tokens, anchor = found.prepared.train.tokens, found.anchors[example]
    ids = tokens.ids[tokens.offsets[anchor] : tokens.offsets[anchor + 1]].tolist()
    return [str(token) for token in found.prepared.teacher.tokenizer.convert_ids_to_tokens(ids)]


def draw_states(found: LiftedRound, example: int) -> Figure:
    """The lift of one example: its anchor's token states, the synthetic ones, and what was added; means below."""
    names = token_names(found, example)
    real, lifted = (one.states[example, one.mask[example]].float().cpu().numpy() for one in (found.real, found.lifted))
    count = min(len(real), len(lifted))
    panels = {"anchor": real, "synthetic": lifted, "synthetic less anchor": lifted[:count] - real[:count]}
    figure = new_figure((11.0, 1.6 + 0.24 * (len(real) + 2)))
    axes = figure.subplots(1, 3, sharey=True)
    reach = float(np.quantile(np.abs(real), 0.98))
    for place, (title, values) in zip(axes, panels.items(), strict=True):
        shown = np.concatenate([values, np.full((1, values.shape[1]), np.nan), values.mean(axis=0, keepdims=True)])
        limit = reach if title != "synthetic less anchor" else float(np.abs(values).max()) or 1.0
        image = place.imshow(shown[:, :SHOWN_DIMENSIONS], cmap=COLORS, vmin=-limit, vmax=limit, aspect="auto")
        figure.colorbar(image, ax=place, shrink=0.8)
        place.set_title(title, fontsize=10)
        place.set_xlabel(f"first {min(SHOWN_DIMENSIONS, values.shape[1])} of {values.shape[1]} dimensions", fontsize=9)
    axes[0].set_yticks([*range(len(real)), len(real) + 1], labels=[*names, "mean"], fontsize=8)
    return figure


def draw_loss_map(coordinates: Array, losses: Array, title: str) -> Figure:
    """The map (n, n_components) of the training examples, coloured by their loss (n,); the hardest are drawn last."""
    order = np.argsort(np.nan_to_num(losses, nan=-1.0))
    figure = new_figure((7.4, 5.6))
    axes = figure.subplots()
    _draw_losses(figure, axes, plane(coordinates)[order], losses[order], _size(len(order)))
    _finish(axes, title)
    return figure


def draw_neighborhood(coordinates: Array, losses: Array, synthetic: SyntheticSet, anchor: int, title: str) -> Figure:
    """One anchor in the map: its surroundings, the neighbours that it was drawn with, and the points made from it."""
    if synthetic.coordinates is None:
        raise StudyError("these synthetic examples were made without a map, so there is no place to draw")
    real, made = plane(coordinates), plane(synthetic.coordinates)
    own = np.flatnonzero(synthetic.anchors == anchor)
    near = np.zeros(0, np.int64) if synthetic.neighbors is None else np.unique(synthetic.neighbors[own])
    centre = real[anchor]
    places = np.concatenate([real[near], made[own], centre[None]])
    reach = 1.35 * float(np.abs(places - centre).max()) or 1.0
    figure = new_figure((7.4, 5.6))
    axes = figure.subplots()
    _draw_losses(figure, axes, real, losses, 26)
    for place in real[near]:
        axes.plot(*zip(centre, place, strict=True), color=REAL, linewidth=0.8, zorder=0)
    axes.scatter(made[own, 0], made[own, 1], s=42, marker="x", color=SYNTHETIC, label=f"new points ({len(own)})")
    axes.scatter(centre[:1], centre[1:], s=150, facecolors="none", edgecolors=ANCHOR, linewidths=2, label="anchor")
    axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
    _finish(axes, title)
    axes.legend(frameon=True, framealpha=0.9, fontsize=9, loc="best")
    return figure


def draw_moves(relative: Array, cosines: Array) -> Figure:
    """How far synthetic vectors lie from their anchors: `neighborhoods.relative_moves` (m,) and cosines (m,)."""
    figure = new_figure((9.0, 3.2))
    left, right = figure.subplots(1, 2)
    left.hist(relative[np.isfinite(relative)], bins=40, color=SYNTHETIC)
    left.axvline(1, color=ANCHOR, linestyle="--", label="a neighbour's mean distance")
    left.set(title="distance from the anchor", xlabel="mean distances to the 15 nearest others", ylabel="vectors")
    left.margins(y=0.25)
    left.legend(frameon=False, fontsize=8, loc="upper center")
    right.hist(cosines, bins=40, color=SYNTHETIC)
    right.set(title="direction", xlabel="cosine with the anchor")
    for axes in (left, right):
        frame(axes, grid=False)
    return figure


def draw_labels(before: Array, after: Array, spec: TaskSpec) -> Figure:
    """What the teacher's logits (m, n_outputs) say of the anchors and of the synthetic examples made from them."""
    values, name = [before[:, 0], after[:, 0]], "value"
    if not spec.is_regression:
        values = [softmax(each, axis=1)[:, -1] for each in (before, after)]
        name = f"probability of {spec.labels[-1]!r}"
    figure = new_figure((5.4, 5.0))
    axes = figure.subplots()
    axes.scatter(values[0], values[1], s=_size(len(before)), color=SYNTHETIC, alpha=0.6, linewidths=0)
    axes.axline((0, 0), slope=1, color=REAL, linewidth=1, zorder=0)
    _finish(axes, "the teacher's labels")
    axes.set(xlabel=f"anchor: {name}", ylabel=f"synthetic example: {name}")
    if not spec.is_regression:
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return figure


def _size(count: int) -> float:
    """Area of a dot for so many of them."""
    return float(np.clip(12_000 / max(1, count), 5, 40))


def _finish(axes: Any, title: str) -> None:
    axes.set(title=title, xlabel="coordinate 1", ylabel="coordinate 2")
    frame(axes, grid=False)


def _draw_losses(figure: Figure, axes: Any, places: Array, losses: Array, size: float) -> None:
    """Dots in the order given, coloured by their loss."""
    top = float(np.nanquantile(losses, 0.98)) or 1.0
    dots = axes.scatter(places[:, 0], places[:, 1], c=losses, s=size, cmap=LOSS_COLORS, vmin=0, vmax=top,
                        linewidths=0.3, edgecolors=REAL)  # fmt: skip
    figure.colorbar(dots, ax=axes, label="loss of the student", extend="max")


def half_of_the_hard(fraction: float = 0.3) -> dict[str, Any]:
    """Settings under which round two has one synthetic example for each of a random half of the hard examples.

    A share `fraction` of the examples counts as hard. Which of them become anchors is left to chance alone, so that the
    others are what they would have been: extreme losses fall toward the mean whatever is done, and those of both halves
    alike.
    """
    return {
        "schedule": "static",  # one set, for a round that the steps do not quite end with
        "synthetic_ratio": fraction / 2,
        "sampler": "high_loss",
        "sampler_options": {"fraction": fraction, "temperature": 1e6},
        # measured after each round with dropout off, on all examples alike
        "losses_from": "pass",
    }


def steps_of_two_rounds(study: Study, task: str, settings: dict[str, Any]) -> int:
    """Student steps of a round of real examples and one more that has the synthetic ones of these settings as well."""
    share = (1 + settings["synthetic_ratio"]) / (1 + study.config(task).synthetic_ratio)
    return study.steps(task, rounds=1 + share)


def loss_falls(run: ArmRun, plain: ArmRun) -> DataFrame:
    """How far losses fall after round one, for anchors and others, with synthesis and without.

    One row for each of `GROUPS`: columns task, seed, group, examples, before (mean loss after round one), after and
    after_plain (at the end, with and without synthesis), fall, fall_plain, and beyond_plain, their difference. `run`
    has settings of `half_of_the_hard`, its synthetic examples and loss profiles; `plain` the same seed and steps
    without synthesis, so that both are the same up to the end of round one (else StudyError).
    """
    (_, with_it), (_, without) = (read_loss_profiles(each.directory.path) for each in (run, plain))
    before = with_it[0].astype(np.float64)
    if not np.allclose(before, without[0], rtol=1e-3, atol=1e-5):
        raise StudyError(
            f"runs {run.directory.path} and {plain.directory.path} differ in round one already: give them the "
            "same seed and steps"
        )
    fraction = float(run.config.sampler_options.get("fraction", 0.3))
    synthetic = SyntheticSet.load(run.directory.synthetic(2))
    anchors = np.unique(synthetic.anchors[synthetic.kept])
    hard = np.union1d(hardest(with_it[0], fraction, np.random.default_rng(0)), anchors)
    members = {
        "anchors": anchors,
        "other hard": np.setdiff1d(hard, anchors),
        "easy": np.setdiff1d(np.arange(len(before)), hard),
    }
    rows = []
    for group, chosen in members.items():
        start, end, end_plain = (
            float(losses[chosen].mean()) if len(chosen) else math.nan for losses in (before, with_it[-1], without[-1])
        )
        rows.append(
            {"task": run.task, "seed": run.seed, "group": group, "examples": len(chosen), "before": start, "after": end,
             "after_plain": end_plain, "fall": start - end, "fall_plain": start - end_plain,
             "beyond_plain": end_plain - end}
        )  # fmt: skip
    return DataFrame(rows)
