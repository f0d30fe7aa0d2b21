"""Tasks beyond GLUE as a one-file plugin: multi-hop questions and paraphrase adversaries.

It reads parquet files below `data_dir`, in the folders strategyqa, hotpotqa, squad_sample, pawsx/<language> and
glue/qqp, with the columns of the data sets' usual distribution:

    sage-kit plugins --plugin beyond_glue_tasks.py --kind task
    sage-kit run --plugin beyond_glue_tasks.py --task strategyqa --data-dir FOLDER ...
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from sage_kit import hookimpl
from sage_kit.components import TaskSpec
from sage_kit.errors import DataError

PAWSX = ("en", "de", "es", "fr", "ja", "ko", "zh")

HELD_OUT = 3
"""One group of PAWS-X pairs in this many is held out."""


def read(config, name, columns):
    """Columns of a parquet file below data_dir."""
    import pyarrow.parquet  # not at the top: whoever lists plugins would wait for it

    path = Path(config.data_dir).expanduser() / f"{name}.parquet"
    if not config.data_dir or not path.is_file():
        raise DataError(f"there is no file {path}: set data_dir to the folder that holds {name}.parquet")
    return pyarrow.parquet.read_table(path, columns=list(columns)).to_pydict()


def rows_of(table, rows):
    """Some rows of a table of columns."""
    return {name: [values[row] for row in rows] for name, values in table.items()}


# ---- PAWS-X: pairs that share nearly all their words and may differ in meaning


def held_out(first, second):
    """For each pair of sentences whether it is held out; pairs with a sentence in common go to the same side.

    There is no training file, so one is made: pairs are joined into groups that share sentences, and a hash of a
    group's first sentence in the alphabet decides on it.
    """
    parent = {}

    def group(sentence):
        while parent.setdefault(sentence, sentence) != sentence:
            parent[sentence] = parent[parent[sentence]]
            sentence = parent[sentence]
        return sentence

    for a, b in zip(first, second, strict=True):
        low, high = sorted((group(a), group(b)))
        parent[high] = low
    digests = (hashlib.blake2b(group(sentence).encode(), digest_size=8).digest() for sentence in first)
    return [int.from_bytes(digest, "big") % HELD_OUT == 0 for digest in digests]


PAIR = ("sentence1", "sentence2", "label")


UNTRANSLATED = "NS"
"""What stands in PAWS-X for a sentence that nobody translated."""


def load_pawsx_parted(config):
    """Training pairs in English; held-out ones in every language, where the same row is the same pair."""
    english = read(config, "pawsx/en/validation", PAIR)
    apart = held_out(english["sentence1"], english["sentence2"])
    splits = {"train": rows_of(english, [row for row, out in enumerate(apart) if not out])}
    for language in PAWSX:
        table = read(config, f"pawsx/{language}/validation", PAIR)
        if len(table["label"]) != len(apart):
            raise DataError(f"pawsx/{language}/validation has {len(table['label'])} rows and English {len(apart)}")
        sides = zip(table["sentence1"], table["sentence2"], strict=True)
        whole = [UNTRANSLATED not in pair for pair in sides]
        splits[language] = rows_of(table, [row for row, out in enumerate(apart) if out and whole[row]])
    return splits


def load_qqp_to_pawsx(config):
    """Training pairs of Quora questions; the adversaries in English, and Quora's own validation pairs."""
    columns = ("question1", "question2", "label")
    quora = {split: read(config, f"glue/qqp/{split}", columns) for split in ("train", "validation")}
    named = {
        split: {"sentence1": table["question1"], "sentence2": table["question2"], "label": table["label"]}
        for split, table in quora.items()
    }
    return {"train": named["train"], "pawsx": read(config, "pawsx/en/validation", PAIR), "qqp": named["validation"]}


# ---- HotpotQA: which paragraphs support an answer


PARAGRAPH = ("question", "paragraph", "label")


def load_hotpot_support(config):
    """Retrieved paragraphs to train on, half of them supporting; all distractors. No question stands in both.

    One retrieved paragraph in nine supports its answer. Trained on that share, a small teacher calls none supporting.
    """
    retrieved = read(config, "hotpotqa/support_pairs_retrieved_sample", PARAGRAPH)
    by_label = {label: [row for row, here in enumerate(retrieved["label"]) if here == label] for label in (0, 1)}
    rows = min(map(len, by_label.values()))
    drawn = [row for label in by_label for row in random.Random(0).sample(by_label[label], rows)]
    return {
        "train": rows_of(retrieved, sorted(drawn)),
        "distractor": read(config, "hotpotqa/support_pairs_distractor_sample", PARAGRAPH),
    }


# ---- HotpotQA: the answers


def load_hotpot_answers(config):
    """SQuAD's questions to train on; HotpotQA's, with their supporting paragraphs, and SQuAD's own to be scored on.

    The samples of HotpotQA are too small to train on. "yes" and "no" stand in front of the paragraphs, since an answer
    is a piece of the text.
    """
    columns = ("question", "context", "answers")
    squad = {split: read(config, f"squad_sample/{split}", columns) for split in ("train", "validation")}
    hotpot = {name: [] for name in columns}
    for name in ("distractor_sample", "distractor_train_sample2"):
        table = read(config, f"hotpotqa/{name}", ("question", "answer", "context", "supporting_facts"))
        for question, answer, context, facts in zip(*table.values(), strict=True):
            paragraphs = zip(context["title"], context["sentences"], strict=True)
            needed = [f"{title}: {''.join(text).strip()}" for title, text in paragraphs if title in facts["title"]]
            hotpot["question"].append(question)
            hotpot["context"].append("\n".join(["yes no", *needed]))
            hotpot["answers"].append([answer])
    found = [row for row, context in enumerate(hotpot["context"]) if hotpot["answers"][row][0] in context]
    return {"train": squad["train"], "hotpot": rows_of(hotpot, found), "squad": squad["validation"]}


@hookimpl
def sage_tasks():
    yield TaskSpec(
        name="strategyqa",
        summary="StrategyQA: yes or no, from the question alone; the hops are implicit",
        text_columns=("question",),
        labels=("no", "yes"),
        local="strategyqa",
    )
    yield TaskSpec(
        name="strategyqa_facts",
        summary="StrategyQA: yes or no, with the annotated facts as second text",
        text_columns=("question", "facts"),
        labels=("no", "yes"),
        local="strategyqa",
    )
    yield TaskSpec(
        name="hotpot_support",
        summary="HotpotQA: does the paragraph support the answer; trained on retrieved ones, scored on distractors",
        text_columns=("question", "paragraph"),
        labels=("other", "supporting"),
        metrics=("f1", "accuracy"),
        loader=load_hotpot_support,
        validation_splits=("distractor",),
    )
    yield TaskSpec(
        name="hotpot_answers",
        summary="SQuAD's questions for training, HotpotQA's with their supporting paragraphs to be answered",
        text_columns=("question", "context"),
        label_column="answers",
        task_kind="spans",
        metrics=("hotpot_f1", "exact_match"),
        loader=load_hotpot_answers,
        group_column="context",
        validation_splits=("hotpot", "squad"),
    )
    yield TaskSpec(
        name="pawsx_parted",
        summary="PAWS-X: paraphrase or word-order trap; trained on English pairs, scored on held-out ones by language",
        text_columns=("sentence1", "sentence2"),
        labels=("different", "paraphrase"),
        loader=load_pawsx_parted,
        validation_splits=PAWSX,
    )
    yield TaskSpec(
        name="qqp_to_pawsx",
        summary="Quora question pairs for training, PAWS-X's English pairs as adversaries",
        text_columns=("sentence1", "sentence2"),
        labels=("different", "paraphrase"),
        loader=load_qqp_to_pawsx,
        validation_splits=("pawsx", "qqp"),
        may_be_half_empty=True,
    )
