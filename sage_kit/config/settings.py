"""`RunConfig`, the list of settings; those of the data are its base class.

Flags, the commented TOML, the JSON Schema and the reference page are all made from its fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from sage_kit.config.data_settings import DataSettings
from sage_kit.config.joint_checks import check_together
from sage_kit.config.loss_weights import LossWeights
from sage_kit.config.values import (
    Bypass,
    ClassNames,
    HiddenLayers,
    Init,
    LrSchedule,
    Names,
    Seed,
    Table,
    Weights,
    usable,
)
from sage_kit.config.values import setting as _setting
from sage_kit.storage.frozen import FrozenList, FrozenTable

CACHE_DIR_VARIABLE = "SAGE_KIT_CACHE_DIR"

GROUPS = ("data", "models", "warm-up", "synthesis", "losses", "training", "machine", "output")


def field_extra(name: str) -> dict[str, str]:
    """What a setting is listed with: its "group", its "unit" and, if it depends on the machine, its "shown_default"."""
    extra = RunConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return {key: str(value) for key, value in extra.items()}


def _default_cache_dir() -> str:
    import platformdirs

    return os.environ.get(CACHE_DIR_VARIABLE) or platformdirs.user_cache_dir("sage_kit", appauthor=False)


class RunConfig(DataSettings):
    """Every setting of a run. Immutable, lists and tables of options too; `load_config` checks names and values."""

    # ---- models
    teacher: str = _setting(
        "bert-base-uncased",
        "Teacher: a hub name, of a commit, tag or branch with `NAME@REVISION`, a local checkpoint, or "
        "`package:MODULE/PATH` for one inside an installed package. A list names several, the others of which become "
        "`other_teachers`.",
        "models",
    )
    other_teachers: Names = _setting(
        FrozenList,
        "Further teachers, named like the first: the student learns from the weighted mean of their outputs. Input "
        "layers and inner states are the first one's.",
        "models",
    )
    teacher_weights: Weights = _setting(
        FrozenList, "Weights of that mean, the first teacher's first; empty weighs all alike.", "models"
    )
    tokenizer: str = _setting("", "Tokenizer, named like the teacher; empty takes the teacher's own.", "models")
    teacher_labels: ClassNames = _setting(
        FrozenList,
        "What the outputs of a teacher with a trained head mean: the task's class names in the order of these outputs; "
        "empty goes by the names in its config.json, or else by the task's order.",
        "models",
    )
    teacher_epochs: int = _setting(
        3, "Fine-tuning of a teacher that has no trained head for the task.", "models", "epochs", ge=1
    )
    teacher_learning_rate: float = _setting(5e-5, "Peak learning rate of that fine-tuning.", "models", "per step", gt=0)
    teacher_seed: Seed = _setting(
        0, "Seed of that fine-tuning; apart from `seed`, so that arms share a teacher.", "models"
    )
    bypass: Bypass = _setting(
        "embeddings",
        "Where the input layers end: `embeddings`, or k for the embeddings and the first k blocks.",
        "models",
    )
    granularity: Literal["token", "pooled"] = _setting(
        "token", "Train on token states, or on one pooled vector per example (length-1 sequences).", "models"
    )
    pooling: Literal["mean", "cls"] = _setting(
        "mean", "Pooled vector: mean of the real tokens, or the first.", "models"
    )
    student: str = _setting(
        "",
        "A ready checkpoint as the student, named like the teacher, with tokenizer, input layers and blocks of its "
        "own; empty makes one of the teacher's blocks, by the settings below.",
        "models",
    )
    student_layers: int = _setting(
        6, "Encoder blocks of the student behind the input layers.", "models", "blocks", ge=1
    )
    student_init: Init = _setting(
        "uniform",
        "Student's blocks: teacher blocks at uniform distance, from the first on (`uniform`: 0, 2, 4 of 6) or from the "
        "first to the last (`spread`: 0, 3, 5), its `last` ones, a list of their numbers "
        "(from 0, behind the input layers), or `scratch`.",
        "models",
    )
    student_width: int = _setting(
        0,
        "Width of the student's blocks, behind a trained projection; 0 takes the teacher's.",
        "models",
        "dimensions",
        ge=0,
    )
    student_heads: int = _setting(
        0, "Attention heads of the student's blocks; 0 takes heads as wide as the teacher's.", "models", "heads", ge=0
    )
    student_ffn: int = _setting(
        0,
        "Width of the feed-forward layer of the student's blocks; 0 takes the teacher's or, in a narrower student, the "
        "same share of it.",
        "models",
        "neurons",
        ge=0,
    )
    student_width_init: Literal["pca", "prune", "random"] = _setting(
        "pca",
        "How the teacher's blocks become narrower: by principal directions of its states (`pca`) or by its most "
        "important dimensions (`prune`), with its most important heads and neurons; `random` takes nothing of them.",
        "models",
    )

    # ---- warm-up
    warmup_corpus: str = _setting(
        "",
        "Text for the warm-up: a file as for `train_file` or a .txt file (also relative to `data_dir`), or a hub data "
        "set `NAME:CONFIGURATION`, of a revision with `NAME@REVISION:CONFIGURATION`.",
        "warm-up",
    )
    warmup_column: str = _setting("text", "Column of the corpus that holds the text.", "warm-up")
    warmup_epochs: int = _setting(
        0,
        "Passes over the corpus in which the student learns the teacher's final hidden states; 0 for none.",
        "warm-up",
        "epochs",
        ge=0,
    )
    warmup_rows: int = _setting(0, "Use only the first rows of the corpus; 0 uses all.", "warm-up", "rows", ge=0)
    warmup_learning_rate: float = _setting(1e-4, "Peak learning rate of the warm-up.", "warm-up", "per step", gt=0)

    # ---- synthesis
    schedule: Literal["adaptive", "static", "none"] = _setting(
        "adaptive",
        "Synthesise anew each round, once, or never (plain distillation); where the sampler looks at losses, from "
        "round two on.",
        "synthesis",
    )
    mix: Literal["add", "replace"] = _setting(
        "add", "Synthetic examples join the real ones, or take the place of a share of them.", "synthesis"
    )
    synthetic_ratio: float = _setting(
        1.0,
        "Synthetic examples per real one (add), or the share of the round that is synthetic (replace).",
        "synthesis",
        "share",
        gt=0,
    )
    losses_from: Literal["training", "pass"] = _setting(
        "training",
        "Per-instance losses from the training pass (an example that was replaced takes the mean loss of its "
        "synthetic ones), or from a pass of the student over the real data.",
        "synthesis",
    )
    reducer: str = _setting("umap", "Reducer: pooled vectors to coordinates.", "synthesis")
    map_layer: int = _setting(
        0,
        "Whose states the reducer maps: 0 for those at the bypass, as in the paper, or k for those that the teacher's "
        "k-th block behind it puts out. Inverters lead to vectors at the bypass all the same.",
        "synthesis",
        "blocks",
        ge=0,
    )
    n_components: int = _setting(2, "Dimensions of the map.", "synthesis", "dimensions", ge=1)
    reducer_options: Table = _setting(FrozenTable, "Options of the reducer.", "synthesis")
    reducer_seed: Seed = _setting(0, "Seed of the reducer; apart from `seed`, so that arms share its map.", "synthesis")
    refit: Literal["never", "every_round"] = _setting(
        "never", "Fit the reducer once, or again each round under another seed as in the paper.", "synthesis"
    )
    landmarks: int = _setting(
        0,
        "Fit the reducer on so many examples and place the others: by its transform or, where it has none, at the "
        "average of their neighbours. 0 fits it on all.",
        "synthesis",
        "examples",
        ge=0,
    )
    landmark_choice: Literal["random", "kmeans++"] = _setting(
        "random", "Landmarks are drawn uniformly, or spread out in the manner of k-means++.", "synthesis"
    )
    sampler: str = _setting("random", "Sampler: chooses anchors and new points near them.", "synthesis")
    sampler_options: Table = _setting(FrozenTable, "Options of the sampler.", "synthesis")
    inverter: str = _setting("anchored", "Inverter: coordinates back to vectors.", "synthesis")
    inverter_options: Table = _setting(FrozenTable, "Options of the inverter.", "synthesis")
    lift: str = _setting(
        "replace",
        "Lift: a synthetic vector and its anchor's token states to token states. Default with granularity='pooled': "
        "shift, since there are no tokens to exchange.",
        "synthesis",
    )
    lift_options: Table = _setting(FrozenTable, "Options of the lift.", "synthesis")
    filter: str = _setting("none", "Filter: keeps or drops synthetic examples.", "synthesis")
    filter_options: Table = _setting(FrozenTable, "Options of the filter.", "synthesis")

    # ---- losses
    losses: LossWeights = _setting(
        FrozenTable,
        "Weights by loss: {kl = 1.0, minilm_relations = 0.5}. A weight is a number, or {start = 1.0, end = 0.0} to go "
        "in a straight line over the run's steps. Empty takes what the settings below stand for: kl and hard_labels, "
        "hidden_cosine or hidden_mse, minilm_relations.",
        "losses",
    )
    loss_options: Table = _setting(FrozenTable, "Options by loss: {name = {option = value}}.", "losses")
    temperature: float = _setting(1.0, "Softens both distributions of the KL loss.", "losses", "", gt=0)
    hard_label_weight: float = _setting(
        0.0,
        "Weight of the cross-entropy to the gold label (the teacher's label for synthetic examples); the KL loss "
        "gets the rest.",
        "losses",
        "share",
        ge=0,
        le=1,
    )
    hidden_weight: float = _setting(0.0, "Weight of the hidden-state loss, added to the others.", "losses", "", ge=0)
    hidden_loss: Literal["cosine", "mse"] = _setting("cosine", "Kind of the hidden-state loss.", "losses")
    hidden_layers: HiddenLayers = _setting(
        "last",
        "Teacher layers that the student's blocks learn: the `last` one only, `mapped` for one per student block at "
        "uniform distance, or a list of teacher blocks (from 1, behind the input layers), one per student block.",
        "losses",
    )
    relation_weight: float = _setting(
        0.0,
        "Weight of the relations loss, added to the others: how the student's last block relates queries, keys and "
        "values to each other, compared with a block of the teacher (MiniLMv2). 0 is off and costs nothing.",
        "losses",
        "",
        ge=0,
    )
    relation_layer: int = _setting(
        0,
        "Teacher block behind the bypass, from 1, whose relations the student's last block learns; 0 is the last.",
        "losses",
        "blocks",
        ge=0,
    )
    relation_heads: int = _setting(
        0,
        "Heads into which queries, keys and values are split for it; a divisor of their width. 0 takes as many as the "
        "teacher's attention has.",
        "losses",
        "heads",
        ge=0,
    )

    # ---- training
    rounds: int = _setting(5, "Most rounds.", "training", "rounds", ge=1)
    max_steps: int = _setting(
        0,
        "End after exactly this many student steps, whatever `rounds` says; 0 for no limit.",
        "training",
        "steps",
        ge=0,
    )
    stop_rule: str = _setting("agreement", "Rule that may end the run after a round.", "training")
    stop_rule_options: Table = _setting(FrozenTable, "Options of the stop rule.", "training")
    stop_agreement: float = _setting(
        0.99, "Agreement with the teacher at which the rule `agreement` stops.", "training", "share", gt=0
    )
    stop_on: Literal["dev", "train"] = _setting(
        "dev", "Examples on which that agreement is measured: the dev split, or the training pass.", "training"
    )
    batch_size: int = _setting(32, "Most examples in a batch.", "training", "examples", ge=1)
    batch_tokens: int = _setting(4096, "Most tokens in a batch, padding included.", "training", "tokens", ge=16)
    learning_rate: float = _setting(1e-4, "Peak learning rate of the student.", "training", "per step", gt=0)
    optimizer: str = _setting("adamw", "Student's optimizer: a class of torch.optim in lower case.", "training")
    optimizer_options: Table = _setting(FrozenTable, "Further arguments of that class.", "training")
    lr_schedule: LrSchedule = _setting(
        "linear",
        "Learning rate falls linearly to zero over the rounds, or stays (`constant`); the others are transformers' "
        "get_scheduler, whose first rate is 0 where it rises.",
        "training",
    )
    lr_schedule_options: Table = _setting(FrozenTable, "Options of a schedule of transformers.", "training")
    lr_steps: int = _setting(
        0,
        "Student steps over which the learning rate rises and falls, whether the run takes them all or ends earlier; 0 "
        "takes `max_steps` or, without that, what the rounds would take.",
        "training",
        "steps",
        ge=0,
    )
    lr_warmup: float = _setting(
        0.06, "Part of training in which the learning rate rises.", "training", "share", ge=0, lt=1
    )
    gradient_accumulation: int = _setting(1, "Batches per step, as one large batch.", "training", "batches", ge=1)
    keep_best: Literal["none", "metric", "agreement"] = _setting(
        "none",
        "Export the round that did best on dev, by the primary metric or by agreement; none: the last.",
        "training",
    )
    weight_decay: float = _setting(
        0.01, "Weight decay of the optimizer, of matrices alone; decoupled in AdamW.", "training", "per step", ge=0
    )
    max_grad_norm: float = _setting(1.0, "Gradients are clipped to this norm; 0 for no clipping.", "training", "", ge=0)
    seed: Seed = _setting(0, "Seed of the student: order, dropout, sampling.", "training")

    # ---- machine
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps.", "machine")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _setting(
        "auto",
        "What models compute in; weights are always trained in fp32. auto takes bf16 on a GPU that has it and fp32 "
        "elsewhere; on a CPU with avx512_bf16 or amx_bf16, bf16 is faster.",
        "machine",
    )
    vector_dtype: Literal["float32", "float16"] = _setting(
        "float32",
        "How token states that blocks made are stored on disk; those of the embeddings alone are not stored.",
        "machine",
    )
    trace: bool = _setting(
        False,
        "Trace parts of the first round that synthesises with torch's profiler, and write a page that says where the "
        "round went.",
        "machine",
    )
    gradient_checkpointing: bool = _setting(
        False,
        "Compute the student's blocks twice a step instead of keeping what is within them.",
        "machine",
    )
    compile: bool = _setting(False, "Compile the student and the teacher with torch.compile.", "machine")
    compile_buckets: bool = _setting(
        False,
        "With `compile`, pad batches to a few sizes and compile for each of these, instead of once for all sizes.",
        "machine",
    )

    # ---- output
    runs_dir: str = _setting("runs", "Folder in which each run makes its own directory.", "output")
    run_dir: str = _setting("", "The run's directory itself; empty makes <runs_dir>/<task>/<utc>-<hash>.", "output")
    cache_dir: str = _setting(
        _default_cache_dir,
        f"Folder of the caches. Default: the environment variable {CACHE_DIR_VARIABLE}, or the user's cache folder.",
        "output",
        shown_default=f"${CACHE_DIR_VARIABLE}, or the user's cache folder",
    )
    observers: Names = _setting(lambda: FrozenList(["jsonl", "progress"]), "Observers of the run.", "output")
    observer_options: Table = _setting(FrozenTable, "Options by observer: {name = {option = value}}.", "output")
    evaluate_validation: Literal["every_round", "end", "never"] = _setting(
        "every_round",
        "When the student is scored on the validation splits, on which no decision rests; never leaves out the "
        "evaluation set as well, and saves the time where settings are only tried on dev.",
        "output",
    )
    keep_checkpoints: int = _setting(2, "Checkpoints kept, the newest; 0 keeps all.", "output", "checkpoints", ge=0)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take true as 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false do not belong here")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_used(cls, value: Any) -> Any:
        return usable(value)

    @model_validator(mode="before")
    @classmethod
    def _lift_of_pooled_vectors(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("granularity") == "pooled" and "lift" not in values:
            return {**values, "lift": "shift"}
        return values

    @model_validator(mode="before")
    @classmethod
    def _several_teachers(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(named := values.get("teacher"), list) or not named:
            return values
        if len(named) > 1 and values.get("other_teachers"):
            raise ValueError("teacher lists several, and other_teachers names more: say all of them in one of the two")
        more = {"other_teachers": named[1:]} if len(named) > 1 else {}
        return {**values, "teacher": named[0], **more}

    @model_validator(mode="after")
    def _together(self) -> RunConfig:
        check_together(self)
        return self

    def component_choice(self, kind: str) -> tuple[str, dict[str, Any]]:
        """Name and options of the component of `kind` that the settings choose."""
        return getattr(self, kind), getattr(self, f"{kind}_options")
