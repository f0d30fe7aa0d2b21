"""The settings of the data: which task, from where, how it is read, and how it is parted."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sage_kit.config.values import Character, ClassNames, Names, Seed, Table
from sage_kit.config.values import setting as _setting
from sage_kit.storage.frozen import FrozenList, FrozenTable

DATA_DIR_VARIABLE = "SAGE_KIT_DATA_DIR"


class DataSettings(BaseModel):
    """The settings of the group "data"."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: str = _setting("sst2", "Task to distil on; `sage-kit plugins` lists them. `file` reads your own.", "data")
    task_options: Table = _setting(FrozenTable, "Options of the task, such as the language of `xnli`.", "data")
    data_dir: str = _setting(
        lambda: os.environ.get(DATA_DIR_VARIABLE, ""),
        "Folder of parquet files, <group>/<task>/<split>.parquet; empty reads the hub. "
        f"Default: the environment variable {DATA_DIR_VARIABLE}.",
        "data",
        shown_default=f"${DATA_DIR_VARIABLE}, or empty",
    )
    data_revision: str = _setting(
        "",
        "Commit, tag or branch of the hub data sets that a built-in task is read from; empty takes the newest.",
        "data",
    )
    train_file: str = _setting(
        "",
        "Training data of task `file`: a .csv, .tsv, .jsonl, .json or .parquet file, or of tagged words a .conll, "
        ".conllu, .iob or .bio file, also compressed (.gz, .bz2, .xz, .zst, .zip).",
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
    label_column: str = _setting(
        "label",
        "Column of the label (task `file`); may be empty for task_kind `embeddings`, and name several columns of 0 and "
        "1, with commas between, for `label_sets`.",
        "data",
    )
    label_separator: Character = _setting(
        "", "Character between the labels of a row where `task_kind` is `label_sets` and a row is one text.", "data"
    )
    text_prefix: str = _setting(
        "",
        "In front of each text of a task of kind `embeddings`, such as `query: ` for E5; empty takes the default "
        "prompt of the teacher's folder, where it has one.",
        "data",
    )
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
    task_kind: str = _setting(
        "classification", "Kind of task `file`: `sage-kit plugins --kind task_kind` lists them.", "data"
    )
    metrics: Names = _setting(FrozenList, "Metrics, the primary one first; empty takes the task's own.", "data")
    metric_options: Table = _setting(FrozenTable, "Options by metric: {name = {option = value}}.", "data")
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
        0.1,
        "Share of train that becomes the dev split, on which every decision during training rests.",
        "data",
        "share",
        gt=0,
        le=0.5,
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
    split_seed: Seed = _setting(
        0, "Seed of the row subsets and of the splits made from train; the same for every arm.", "data"
    )
    max_length: int = _setting(128, "Longest text; longer ones are cut.", "data", "tokens", ge=4)
