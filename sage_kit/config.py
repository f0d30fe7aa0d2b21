"""The settings of a run: one flat name each, the same in TOML, on the command line and in a notebook's parameters.

`RunConfig` is the only list of settings; the flags, the commented TOML, the JSON Schema and the reference page are all
made from its fields. Light: imports pydantic only.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from sage_kit.errors import ConfigError, did_you_mean
from sage_kit.storage.frozen import FrozenList, FrozenTable, freeze

DATA_DIR_VARIABLE = "SAGE_KIT_DATA_DIR"
CACHE_DIR_VARIABLE = "SAGE_KIT_CACHE_DIR"

LARGEST_SEED = 2**32 - 1  # scikit-learn and umap-learn take no larger one


def _setting(
    default: Any, help: str, group: str, unit: str = "", *, shown_default: str = "", **constraints: Any
) -> Any:
    """A field of `RunConfig`: default, help text, the group it is listed in, and its unit.

    `shown_default` describes a default that depends on the machine.
    """
    extra: dict[str, JsonValue] = {"group": group, "unit": unit, "shown_default": shown_default}
    if callable(default):
        return Field(default_factory=default, description=help, json_schema_extra=extra, **constraints)
    return Field(default=default, description=help, json_schema_extra=extra, **constraints)


def _default_cache_dir() -> str:
    import platformdirs

    return os.environ.get(CACHE_DIR_VARIABLE) or platformdirs.user_cache_dir("sage_kit", appauthor=False)


def _cut(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value.strip()):
        return int(value)
    return value


def _layer_list(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[\[ ]*[0-9]+( *, *[0-9]+)*[, \]]*", value):
        return [int(part) for part in re.findall(r"[0-9]+", value)]
    return value


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _class_names(value: Any) -> Any:
    """Names of classes as text with commas, as text that is a TOML list (for names with blanks), or as a list.

    A number or boolean in a list is the name that it spells.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = toml_loads(f"names = {value}")["names"]
        except ValueError:
            raise ValueError('a list is written like ["one", "two"]') from None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(item).lower() if isinstance(item, bool) else _number_as_text(item) for item in value]
    return _names(value)


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _character(value: Any) -> Any:
    """One character, of which the tab may be spelled out, or none."""
    if isinstance(value, str):
        value = {"tab": "\t", "\\t": "\t"}.get(value, value)
        if len(value) > 1 or value in ("\n", "\r"):
            raise ValueError("expected one character, 'tab', or nothing")
    return value


def _table(value: Any) -> Any:
    """Options as a table, or as text, ``a=1, b="x"``: a TOML table's inside, with bare words taken as strings."""
    if isinstance(value, str):
        return _table_from_text(value)
    return _plain(value, "") if isinstance(value, Mapping) else value


def _table_from_text(value: str) -> dict[str, Any]:
    text = value.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    lines = []
    for part in _split_at_commas(text):
        key, equals, word = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise ValueError("expected name=value pairs separated by commas")
        try:
            toml_loads(f"{key} = {word}")
        except ValueError:
            if re.search(r"[\"'\[\]{}#]", word):
                raise ValueError(f"{part.strip()!r} is not a name=value pair; put text in quotes") from None
            word = f"'{word}'"
        lines.append(f"{key} = {word}")
    return toml_loads("\n".join(lines))


def _split_at_commas(text: str) -> Iterator[str]:
    """The parts of `text` between commas that stand outside quotes and brackets; empty parts are left out."""
    part, depth, quote = "", 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            if part.strip():
                yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part


def _plain(value: Any, path: str) -> Any:
    """`value` in the types that TOML has; what it lacks is an error here rather than when the run is recorded."""
    if isinstance(value, bool | int | float | str | datetime.date | datetime.time):
        return value
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise ValueError(f"the name {wrong!r} is not text")
        return {str(key): _plain(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item, path) for item in value]
    raise ValueError(f"{path!r} is {value!r}, which is neither text, number, boolean, list nor table")


Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Bypass = Annotated[Literal["embeddings"] | Annotated[int, Field(ge=1)], BeforeValidator(_cut)]
# lists and tables are frozen, since components and observers get the settings
Frozen = AfterValidator(freeze)
Init = Annotated[
    Literal["uniform", "spread", "last", "scratch"] | list[Annotated[int, Field(ge=0)]],
    BeforeValidator(_layer_list),
    Frozen,
]
HiddenLayers = Annotated[
    Literal["last", "mapped"] | list[Annotated[int, Field(ge=1)]], BeforeValidator(_layer_list), Frozen
]
Names = Annotated[list[str], BeforeValidator(_names), Frozen]
ClassNames = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_class_names), Frozen]
Character = Annotated[str, BeforeValidator(_character)]
Table = Annotated[dict[str, Any], BeforeValidator(_table), Frozen]


class RunConfig(BaseModel):
    """Every setting of a run. Immutable, lists and tables of options too; `load_config` checks names and values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # ---- data
    task: str = _setting("sst2", "Task to distil on; `sage-kit plugins` lists them. `file` reads your own.", "data")
    data_dir: str = _setting(
        lambda: os.environ.get(DATA_DIR_VARIABLE, ""),
        "Folder of parquet files, <group>/<task>/<split>.parquet; empty reads the hub. "
        f"Default: the environment variable {DATA_DIR_VARIABLE}.",
        "data",
        shown_default=f"${DATA_DIR_VARIABLE}, or empty",
    )
    train_file: str = _setting(
        "",
        "Training data of task `file`: a .csv, .tsv, .jsonl, .json or .parquet file, also compressed (.gz, .bz2, .xz, "
        ".zst, .zip).",
        "data",
    )
    validation_file: str = _setting(
        "", "Validation data of task `file`; empty sets `validation_fraction` of the training file apart.", "data"
    )
    delimiter: Character = _setting(
        "",
        "Character between the fields of .csv and .tsv files, or `tab`; empty takes the comma, and the tab for .tsv.",
        "data",
    )
    quote: Character = _setting(
        '"',
        "Character around a field of a .csv or .tsv file that holds the delimiter; empty where quotes have no meaning.",
        "data",
    )
    text_column: str = _setting("text", "Column of the text (task `file`).", "data")
    text_pair_column: str = _setting("", "Column of the second text; empty for single texts (task `file`).", "data")
    label_column: str = _setting("label", "Column of the label (task `file`).", "data")
    label_names: ClassNames = _setting(
        FrozenList,
        "Class names in the order of their indices (task `file`), with commas or as a TOML list; empty takes them from "
        "the data, sorted. A name that is listed is a class even where it looks like a missing label, or like another.",
        "data",
    )
    missing_labels: Literal["refuse", "drop"] = _setting(
        "refuse",
        "Rows without a label (empty, NaN, a word such as `NA`, a code such as -1) are an error, or are left out.",
        "data",
    )
    may_be_half_empty: bool = _setting(False, "One text of a pair may be empty or missing.", "data")
    task_kind: Literal["classification", "regression"] = _setting(
        "classification", "Whether the label is a class or a number (task `file`).", "data"
    )
    validation_fraction: float = _setting(
        0.2,
        "Part of `train_file` set apart for reporting when there is no `validation_file`.",
        "data",
        "share",
        gt=0,
        lt=1,
    )
    train_rows: int = _setting(0, "Use this many training rows, drawn at random; 0 uses all.", "data", "rows", ge=0)
    validation_rows: int = _setting(
        0, "Use this many rows of each validation split, drawn at random; 0 uses all.", "data", "rows", ge=0
    )
    dev_fraction: float = _setting(
        0.1, "Part carved from train for every decision made during training.", "data", "share", gt=0, le=0.5
    )
    dev_rows: int = _setting(
        0, "Carve exactly this many rows for these decisions; 0 goes by `dev_fraction`.", "data", "rows", ge=0
    )
    evaluation_rows: int = _setting(
        0,
        "Carve this many rows from train, on which the student is compared with the teacher at the end; 0 for none.",
        "data",
        "rows",
        ge=0,
    )
    evaluation_file: str = _setting(
        "",
        "Texts for that comparison instead, a file as for `train_file` with the task's text columns; labels may be "
        "missing.",
        "data",
    )
    transfer_rows: int = _setting(
        0,
        "The student learns from this many rows, drawn from `transfer_pool` or `transfer_file`; 0 takes all of these "
        "or, where none is set, all of train.",
        "data",
        "rows",
        ge=0,
    )
    transfer_pool: int = _setting(
        0,
        "Rows of train that the teacher never sees, from which `transfer_rows` are drawn; 0 keeps as many as "
        "`transfer_rows` or, where `teacher_rows` is set, all others.",
        "data",
        "rows",
        ge=0,
    )
    transfer_seed: Seed = _setting(0, "Seed of the draw of `transfer_rows`.", "data")
    transfer_file: str = _setting(
        "",
        "Texts that the student learns from, a file as for `train_file` with the task's text columns; labels may be "
        "missing. The teacher gets the rows of train.",
        "data",
    )
    teacher_rows: int = _setting(
        0,
        "Fine-tune the teacher on this many rows of train; 0 takes all that are left for it.",
        "data",
        "rows",
        ge=0,
    )
    split_seed: Seed = _setting(0, "Seed of the row subsets and the carved parts; the same for every arm.", "data")
    max_length: int = _setting(128, "Longest text; longer ones are cut.", "data", "tokens", ge=4)

    # ---- models
    teacher: str = _setting(
        "bert-base-uncased",
        "Teacher: a hub name, a local checkpoint, or `package:MODULE/PATH` for one inside an installed package.",
        "models",
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

    # ---- warm-up
    warmup_corpus: str = _setting(
        "",
        "Text for the warm-up: a file as for `train_file` or a .txt file (also relative to `data_dir`), or a hub data "
        "set `NAME:CONFIGURATION`.",
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
        "dev", "Examples on which that agreement is measured: the carved part, or the training pass.", "training"
    )
    batch_size: int = _setting(32, "Most examples in a batch.", "training", "examples", ge=1)
    batch_tokens: int = _setting(4096, "Most tokens in a batch, padding included.", "training", "tokens", ge=16)
    learning_rate: float = _setting(1e-4, "Peak learning rate of the student.", "training", "per step", gt=0)
    lr_schedule: Literal["linear", "constant"] = _setting(
        "linear", "Learning rate falls linearly to zero over the rounds, or stays.", "training"
    )
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
    weight_decay: float = _setting(0.01, "AdamW's decoupled weight decay.", "training", "per step", ge=0)
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
    vector_dtype: Literal["float32", "float16"] = _setting("float32", "How token states are stored on disk.", "machine")
    trace: bool = _setting(
        False,
        "Trace parts of the first round that synthesises with torch's profiler, and write a page that says where the "
        "round went.",
        "machine",
    )
    compile: bool = _setting(False, "Compile the student and the teacher with torch.compile.", "machine")

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

    @model_validator(mode="before")
    @classmethod
    def _lift_of_pooled_vectors(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("granularity") == "pooled" and "lift" not in values:
            return {**values, "lift": "shift"}
        return values

    @model_validator(mode="after")
    def _together(self) -> RunConfig:
        if self.mix == "replace" and self.synthetic_ratio > 1:
            raise ValueError(
                f"synthetic_ratio is {self.synthetic_ratio:g}, but with mix='replace' it is a share and at most 1"
            )
        if self.delimiter and self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.quote!r}: set one of them to another character")
        if self.evaluation_rows and self.evaluation_file:
            raise ValueError(
                f"evaluation_rows is {self.evaluation_rows:,}, but evaluation_file gives that set: set one only"
            )
        if self.transfer_pool and self.transfer_file:
            raise ValueError(
                f"transfer_pool is {self.transfer_pool:,}, but transfer_rows are drawn from transfer_file: set "
                "transfer_pool to 0, or empty transfer_file"
            )
        if self.transfer_pool and self.transfer_rows > self.transfer_pool:
            raise ValueError(
                f"transfer_rows is {self.transfer_rows:,}, but transfer_pool, from which they are drawn, is "
                f"{self.transfer_pool:,}: lower transfer_rows or raise transfer_pool"
            )
        if self.warmup_epochs and not self.warmup_corpus:
            raise ValueError(
                "warmup_epochs is set, but warmup_corpus names no text; name one or set warmup_epochs to 0"
            )
        for name in ("student_init", "hidden_layers"):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != self.student_layers:
                raise ValueError(f"{name} lists {len(value)} blocks, but student_layers is {self.student_layers}")
        if self.granularity == "pooled" and self.hidden_layers != "last":
            raise ValueError("hidden_layers other than 'last' needs granularity='token'")
        if self.granularity == "pooled" and self.relation_weight:
            raise ValueError(
                f"relation_weight is {self.relation_weight:g}, but one pooled vector relates to itself alone: set it "
                "to 0, or granularity to 'token'"
            )
        return self

    def component_choice(self, kind: str) -> tuple[str, dict[str, Any]]:
        """Name and options of the component of `kind` that the settings choose."""
        return getattr(self, kind), getattr(self, f"{kind}_options")


GROUPS = ("data", "models", "warm-up", "synthesis", "losses", "training", "machine", "output")

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "teacher": "bert-base-uncased",
        "bypass": "embeddings",
        # of length-1 sequences a teacher makes nothing (0.55 instead of 0.83 accuracy on the packaged reviews), so the
        # published scores cannot come from them
        "granularity": "token",
        "student_layers": 6,
        "warmup_corpus": "wikimedia/wikipedia:20231101.en",
        "warmup_epochs": 1,
        "warmup_rows": 100_000,
        "schedule": "adaptive",
        "mix": "replace",
        "synthetic_ratio": 1.0,
        "losses_from": "pass",
        "reducer": "umap",
        "n_components": 2,
        "refit": "every_round",
        "sampler": "high_loss",
        # the hard examples alone are anchors, and a synthetic vector moves all tokens alike
        "sampler_options": {"fraction": 0.3},
        "inverter": "native",
        "lift": "shift",
        "filter": "none",
        "rounds": 10,
        "stop_rule": "agreement",
        "stop_agreement": 0.99,
        "stop_on": "train",
    },
}
"""Named sets of settings: `default`, the best measured, and `paper`, as close to the paper as its text allows."""


PATHS = ("data_dir", "train_file", "validation_file", "evaluation_file", "transfer_file", "cache_dir")
"""Settings that are paths."""

PATHS_OR_NAMES = ("teacher", "tokenizer", "warmup_corpus")
"""Settings that are paths where there is something under them, and names of the hub's or a package's otherwise."""


PLACES = frozenset({"run_dir", "runs_dir", "cache_dir", "data_dir"})
"""Settings that say where things lie, and shape nothing."""


def default_settings() -> dict[str, Any]:
    """What settings are unless given, `PLACES` left out; ready for JSON."""
    return {name: value for name, value in RunConfig().model_dump(mode="json").items() if name not in PLACES}


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same settings with relative paths resolved from the current folder, so that they mean the same anywhere."""
    changes = {}
    for name in (*PATHS, *PATHS_OR_NAMES):
        value = getattr(config, name)
        path = Path(value).expanduser()
        if value and (name in PATHS or path.exists()):
            changes[name] = str(path.absolute())
    return config.model_copy(update=changes)


def toml_loads(text: str) -> dict[str, Any]:
    """Parse TOML; raises ValueError with the place of a syntax error."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef, import-not-found, unused-ignore]

    return tomllib.loads(text)


def load_config(
    overrides: Mapping[str, Any] | None = None, *, preset: str = "", file: str | os.PathLike[str] = ""
) -> RunConfig:
    """Settings from a preset, then a TOML file, then overrides; later ones win.

    Parameters
    ----------
    overrides : mapping
        Settings by name, as values or as the text of a command-line flag.
    preset : str
        "default" or "paper"; empty takes the file's ``preset`` key, or "default".
    file : path
        A TOML file of settings; empty for none.

    Returns
    -------
    RunConfig

    Raises
    ------
    ConfigError
        For an unknown name, a bad value, an unknown preset, or a file that is missing or malformed.
    """
    from_file = _read(Path(file)) if file else {}
    file_preset = from_file.pop("preset", "")
    name = preset or file_preset or "default"
    if not isinstance(name, str) or name not in PRESETS:
        place = "" if preset else f" in {file}"
        raise ConfigError(f"Unknown preset {name!r}{place}.{did_you_mean(str(name), PRESETS)}")
    overrides = overrides or {}
    given = {**from_file, **overrides}
    chosen = dict(PRESETS[name])
    for key in PRESETS[name]:
        # a preset's options belong to the component that it chose, and leave with it
        component = key.removesuffix("_options")
        if key != component and given.get(component, chosen.get(component)) != chosen.get(component):
            del chosen[key]
    places = {key: f" in {file}" for key in from_file if key not in overrides}
    try:
        return RunConfig.model_validate({**chosen, **given})
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig, "setting", places)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return toml_loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"configuration file {path} is not valid TOML: {error}") from None


def explain(error: ValidationError, model: type[BaseModel], noun: str, places: Mapping[str, str] | None = None) -> str:
    """A validation error of a settings or options class as one line.

    Parameters
    ----------
    error : ValidationError
    model : type
        The class that was validated.
    noun : str
        What a field of it is called: "setting", "option".
    places : mapping of str to str
        Where a field's value comes from, for those where it is worth telling, e.g. ``" in run.toml"``.
    """
    by_field: dict[str, list[ErrorDetails]] = {}
    for item in error.errors():
        by_field.setdefault(str(item["loc"][0]) if item["loc"] else "", []).append(item)
    return "; ".join(_explain_field(name, items, model, noun, places or {}) for name, items in by_field.items())


def _explain_field(
    name: str, items: list[ErrorDetails], model: type[BaseModel], noun: str, places: Mapping[str, str]
) -> str:
    """All errors of one field as one sentence; `name` is "" for an error of several fields together."""
    messages = [item["msg"].removeprefix("Value error, ") for item in items]
    if not name:
        mentioned = {places[word] for word in re.findall(r"\w+", " ".join(messages)) if word in places}
        return "; ".join(messages) + "".join(f" ({place.strip()})" for place in sorted(mentioned))
    place = places.get(name, "")
    is_top = len(items[0]["loc"]) == 1  # rather than a field of an item of a list
    if items[0]["type"] == "extra_forbidden" and is_top:
        elsewhere = "`sage-kit config` lists all settings." if noun == "setting" else ""
        return f"Unknown {noun} {name!r}{place}.{did_you_mean(name, model.model_fields, elsewhere=elsewhere)}"
    if items[0]["type"] == "missing" and is_top:
        return f"{noun} {name!r}{place} is required"
    # A union reports each of its branches, under the branch's label; the branches that got deepest into the value are
    # those that the user meant.
    skipped = 2 if name in model.model_fields and _is_union(model.model_fields[name].annotation) else 1
    depth = max(len(item["loc"][skipped:]) for item in items)
    closest = [item for item in items if len(item["loc"][skipped:]) == depth]
    if closest[0]["type"] in ("extra_forbidden", "missing"):
        *steps, field = closest[0]["loc"]
        where = "".join(f", item {step + 1}" for step in steps if isinstance(step, int))
        what = f"unknown {noun} {field!r}" if closest[0]["type"] == "extra_forbidden" else f"{field!r} is required"
        return f"{noun} {name!r}{place}{where}: {what}"
    value = _shorten(repr(closest[0]["input"]))
    inner = "".join(
        f", item {step + 1}," if isinstance(step, int) else f", {step!r}," for step in closest[0]["loc"][skipped:]
    )
    return f"{noun} {name!r}{place}{inner} is {value}: {_join(closest)}"


def _join(items: list[ErrorDetails]) -> str:
    """Messages of the branches of a union: "input should be A or B"."""
    prefix = "Input should be "
    parts = []
    for item in items:
        # what Python calls a tuple is a list in TOML and on the command line
        message = item["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "a list")
        if len(items) > 1 and message.startswith(prefix):
            message = message.removeprefix(prefix).partition(", unable to parse")[0]
        elif message.startswith(prefix):
            message = "i" + message[1:]
        parts.append(message)
    joined = " or ".join(dict.fromkeys(parts))
    return f"input should be {joined}" if len(items) > 1 and items[0]["msg"].startswith(prefix) else joined


def _is_union(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_union(get_args(annotation)[0])
    branches = [branch for branch in get_args(annotation) if branch is not type(None)]
    return get_origin(annotation) in (Union, UnionType) and len(branches) > 1


def _shorten(text: str, longest: int = 80) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def to_toml(config: RunConfig, *, comments: bool = True) -> str:
    """The complete settings as TOML, each with its help text as a comment; loads back to an equal `RunConfig`."""
    import tomlkit

    document = tomlkit.document()
    for group in GROUPS:
        if comments:
            document.add(tomlkit.comment(f"---- {group}"))
        for name, field in RunConfig.model_fields.items():
            extra = field_extra(name)
            if extra["group"] != group:
                continue
            if comments:
                unit = f" [{extra['unit']}]" if extra["unit"] else ""
                document.add(tomlkit.comment(f"{field.description}{unit}"))
            value = getattr(config, name)
            if isinstance(value, dict):
                table = tomlkit.inline_table()
                table.update(value)
                document.add(name, table)
            else:
                document.add(name, value)
        if comments:
            document.add(tomlkit.nl())
    return tomlkit.dumps(document)


def field_extra(name: str) -> dict[str, str]:
    """What a setting is listed with: its "group", its "unit" and, if it depends on the machine, its "shown_default"."""
    extra = RunConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return {key: str(value) for key, value in extra.items()}
