"""Small data with structure, a tiny random teacher, and a run that takes about a second. Nothing is downloaded."""

from __future__ import annotations

import atexit
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.components import ModelSizes
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config

if TYPE_CHECKING:
    import torch

    from sage_kit.components import Floats, Integers, TeacherView, TextBatch, TokenBatch, TokenIds

DIM = 16  # width of the toy vectors and of the toy teacher
ROWS = 96
HELD_OUT = 16
TOKENS, FIRST_WORD = 40, 5  # tokens of the toy texts, and the first that is not special
FEW, MANY = ROWS, 2500  # rows with which a component is used: some faults show only where there are many
LOSS_SIZES = ModelSizes(
    teacher_blocks=4, student_blocks=2, teacher_dim=DIM, student_dim=DIM, teacher_heads=2, student_heads=2, n_outputs=3
)  # the models under which losses are checked

WORDS = {
    "good": "fine great lovely warm bright kind calm clever",
    "bad": "awful cold dull grim harsh sour stale weak",
    "other": "the a film story actor plot scene ends with and of it was is house river",
}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@functools.cache
def _vectors() -> Floats:
    """Rows near a curved surface of two dimensions, so that a map of two dimensions can hold most of what they say."""
    rng = np.random.default_rng(7)
    place = rng.uniform(-1, 1, (ROWS + HELD_OUT, 2))
    return _on_surface(place, rng.standard_normal((5, DIM)), rng)


def _on_surface(place: Any, directions: Any, rng: np.random.Generator) -> Floats:
    features = np.concatenate([place, 0.3 * place**2, 0.3 * place[:, :1] * place[:, 1:]], axis=1)
    vectors = features @ directions + 0.05 * rng.standard_normal((len(place), DIM))
    moved: Floats = (vectors - vectors.mean(0) + 0.05).astype(np.float32)
    return moved


def train(rows: int = ROWS) -> Floats:
    """Vectors of shape (rows, DIM), float32, rows at most `ROWS`; a new array at each call."""
    return _vectors()[:rows].copy()


def held_out() -> Floats:
    """Vectors of the same kind that `train` does not hold, shape (HELD_OUT, DIM)."""
    return _vectors()[ROWS:].copy()


@functools.cache
def _many(seed: int) -> Floats:
    rng = np.random.default_rng(7)
    rng.uniform(-1, 1, (ROWS + HELD_OUT, 2))
    directions = rng.standard_normal((5, DIM))  # those of `train`
    rng = np.random.default_rng(seed)
    return _on_surface(rng.uniform(-1, 1, (MANY, 2)), directions, rng)


def many(rows: int = MANY, seed: int = 0) -> Floats:
    """Vectors of the kind that `train` holds, shape (rows, DIM), rows at most `MANY`; other ones under another seed."""
    return _many(100 + seed)[:rows].copy()


def losses(rows: int = ROWS, seed: int = 3) -> Floats:
    """Per-instance losses, shape (rows,)."""
    return np.random.default_rng(seed).gamma(1.0, 0.5, rows).astype(np.float32)


def labels(rows: int = ROWS) -> Integers:
    """Gold classes, 0 and 1, shape (rows,), int64."""
    return np.arange(rows, dtype=np.int64) % 2


def logits(rows: int = ROWS, seed: int = 0) -> Floats:
    """Logits of two classes, shape (rows, 2)."""
    return np.random.default_rng(seed).standard_normal((rows, 2)).astype(np.float32)


def tokens(indices: Integers | Sequence[int], vectors: Floats | None = None) -> TokenBatch:
    """Token states of rows of `vectors`, those of `train` if left out: 3 to 9 tokens each, whose mean is the vector."""
    import torch

    from sage_kit.components import TokenBatch

    rows = np.asarray(indices)
    pooled = _vectors() if vectors is None else vectors
    lengths = 3 + rows % 7
    states = np.zeros((len(rows), int(lengths.max()), DIM), dtype=np.float32)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        own = np.random.default_rng(int(row)).standard_normal((length, DIM)).astype(np.float32)
        states[place, :length] = own - own.mean(0) + pooled[row]
    mask = np.arange(states.shape[1]) < lengths[:, None]
    return TokenBatch(torch.from_numpy(states), torch.from_numpy(mask))


def token_ids(rows: int) -> TokenIds:
    """Token ids of texts of 3 to 9 tokens, the first and the last of them special."""
    from sage_kit.components import TokenIds

    offsets = np.concatenate([[0], np.cumsum(3 + np.arange(rows) % 7)]).astype(np.int64)
    ids = (FIRST_WORD + np.arange(offsets[-1]) % (TOKENS - FIRST_WORD)).astype(np.int32)
    special = np.zeros(len(ids), bool)
    special[offsets[:-1]] = special[offsets[1:] - 1] = True
    ids[offsets[:-1]], ids[offsets[1:] - 1] = 2, 3
    return TokenIds(ids, np.zeros(len(ids), np.uint8), offsets, special, np.zeros(len(ids), bool))


def text(indices: Integers | Sequence[int], real: TokenIds) -> TextBatch:
    """Some of these texts, padded."""
    import torch

    from sage_kit.components import TextBatch

    rows = np.asarray(indices)
    lengths = np.diff(real.offsets)[rows]
    steps = np.arange(lengths.max(initial=0))
    mask = steps < lengths[:, None]
    places = real.offsets[:-1][rows][:, None] + np.minimum(steps, lengths[:, None] - 1)
    columns = [np.where(mask, values[places], 0) for values in (real.ids, real.types)]
    ids, types = (torch.from_numpy(column.astype(np.int64)) for column in columns)
    special, second = (torch.from_numpy(values[places] & mask) for values in (real.special, real.second))
    return TextBatch(ids, types, torch.from_numpy(mask), special, second)


@functools.cache
def _embeddings() -> tuple[Floats, Floats]:
    """Vectors of tokens and of positions."""
    rng = np.random.default_rng(11)
    table, positions = rng.standard_normal((TOKENS, DIM)), 0.3 * rng.standard_normal((64, DIM))
    return table.astype(np.float32), positions.astype(np.float32)


def embed(batch: TextBatch) -> TokenBatch:
    """Token states of a text by its tokens and their positions."""
    import torch

    from sage_kit.components import TokenBatch

    places = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
    states = embed_alone(batch.ids, batch.types, places) * batch.mask.unsqueeze(-1)
    return TokenBatch(states, batch.mask, batch)


def embed_alone(ids: torch.Tensor, types: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States of tokens at some places; their types do not count."""
    import torch

    table, positions = (torch.from_numpy(values) for values in _embeddings())
    return table[ids] + positions[places]


class ToyVocabulary:
    """Answers as `sage_kit.components.Vocabulary` says, from the toy's embeddings."""

    def nearest(self, ids: torch.Tensor, k: int) -> torch.Tensor:
        """The k nearest tokens of each."""
        import torch

        table = torch.nn.functional.normalize(torch.from_numpy(_embeddings()[0]), dim=1)
        scores = table @ table.T
        scores.fill_diagonal_(-2)
        scores[:, :FIRST_WORD] = -2
        return scores[ids].topk(min(k, TOKENS - FIRST_WORD - 1), dim=-1).indices

    def between(self, first: torch.Tensor, second: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The second token, or the one nearest to the first."""
        import torch

        return torch.where((shares > 0.5) & (first != second), second, self.nearest(first, 1).squeeze(-1))

    def likely(self, batch: TextBatch, places: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens that are near those at the places, all as likely."""
        import torch

        ids = self.nearest(batch.ids[places], k)
        return ids, torch.full(ids.shape, -float(np.log(k)))


@functools.cache
def _workspace() -> Path:
    """The folder of the teacher and the texts, made once per process and removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="sage-kit-check-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write_texts(folder / "train.jsonl", 48, seed=1)
    _write_texts(folder / "validation.jsonl", 16, seed=2)
    _write_teacher(folder / "teacher")
    return folder


def _write_texts(path: Path, rows: int, seed: int) -> None:
    rng = random.Random(seed)
    lines = []
    for row in range(rows):
        words = [rng.choice(WORDS["other"].split()) for _ in range(rng.randint(2, 7))]
        words += [rng.choice(WORDS["good" if row % 2 else "bad"].split()) for _ in range(2)]
        rng.shuffle(words)
        lines.append(json.dumps({"text": " ".join(words), "label": row % 2}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@functools.cache
def files_of(kind: str) -> dict[str, str]:
    """Settings that name files of toy texts with labels of a kind; those of the toy run itself are of two classes."""
    if kind == "classes":
        return {}
    from sage_kit.testing import label_examples

    words = [word for group in WORDS.values() for word in group.split()]
    folder = _workspace()
    if not (folder / "headless").exists():
        _write_teacher(folder / "headless", has_head=False)
    found = {"teacher": str(folder / "headless"), "teacher_epochs": "1"}
    for seed, (split, rows) in enumerate({"train": 48, "validation": 16}.items()):
        rng = np.random.default_rng(seed)
        draw = [[words[i] for i in rng.integers(0, len(words), rng.integers(3, 6))] for _ in range(2 * rows)]
        texts, pairs = draw[:rows], draw[rows:] if kind in ("spans", "embeddings") else None
        lines = []
        for row, label in enumerate(label_examples.raw(kind, texts, pairs, rng)):
            line = {"text": " ".join(texts[row]), "label": label}
            lines.append(json.dumps(line if pairs is None else {**line, "pair": " ".join(pairs[row])}))
        path = folder / f"{split}-{kind}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found[f"{split}_file"] = str(path)
    return {**found, "text_pair_column": "pair"} if pairs is not None else found


def _write_teacher(path: Path, pieces: Sequence[str] = (), has_head: bool = True) -> None:
    """A random BERT of two blocks with heads for two classes and for tokens, and a tokenizer of words or pieces."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast

    words = [*SPECIAL, *(pieces or (word for group in WORDS.values() for word in group.split()))]
    vocabulary = {word: index for index, word in enumerate(words)}
    special = [
        {"id": vocabulary[word], "content": word, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for word in SPECIAL
    ]  # fmt: skip
    start, end = ({"SpecialToken": {"id": word, "type_id": 0}} for word in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": part, "type_id": number}} for number, part in enumerate("AB"))
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, end],
            "pair": [start, first, end, second, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {
                word: {"id": word, "ids": [vocabulary[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")
            },
        },
        "decoder": None,
        "model": _pieces_model(vocabulary)
        if pieces
        else {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    path.mkdir()
    # the file that the `tokenizers` library reads
    (path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    PreTrainedTokenizerFast(
        tokenizer_file=str(path / "tokenizer.json"),
        model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    ).save_pretrained(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(vocabulary), hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=2 * DIM, max_position_embeddings=32, initializer_range=0.3,
            )
        )  # fmt: skip
        head = BertForMaskedLM(model.config).cls
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(path)
    tied = ("predictions.decoder.weight", "predictions.decoder.bias")
    extra = {f"cls.{name}": value for name, value in head.state_dict().items() if name not in tied}
    tensors = {**model.state_dict(), **extra}
    if not has_head:
        tensors = {name: value for name, value in tensors.items() if name.startswith("bert.")}
    # save_pretrained would draw a bar
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


def _pieces_model(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }  # fmt: skip


def config(**settings: Any) -> RunConfig:
    """Settings of the toy run: 48 texts, a teacher of two blocks, a student of one, two rounds."""
    folder = _workspace()
    return load_config(
        {
            "task": "file",
            "train_file": str(folder / "train.jsonl"),
            "validation_file": str(folder / "validation.jsonl"),
            "teacher": str(folder / "teacher"),
            "max_length": 16,
            "student_layers": 1,
            "learning_rate": 1e-3,
            "batch_size": 16,
            "reducer": "pca",
            "inverter": "knn",
            "rounds": 2,
            "stop_agreement": 1.01,
            "device": "cpu",
            "observers": [],
            "cache_dir": str(folder / "cache"),
            "runs_dir": str(folder / "runs"),
            **settings,
        }
    )


@functools.cache
def teacher_view() -> TeacherView:
    """What decoders may use of the toy teacher, with the toy texts; made once per process."""
    from sage_kit.components.records import Costs
    from sage_kit.recipe import resolve
    from sage_kit.reports.lifted_round import view_of
    from sage_kit.system.devices import make_accelerator
    from sage_kit.training.preparation import prepare

    settings = config()
    return view_of(settings, prepare(resolve(settings, Plugins(allow="")), make_accelerator(settings), Costs()))


@functools.cache
def finished_run() -> Path:
    """The directory of a real run of two rounds with all its checkpoints; made once per process, only to be read."""
    from sage_kit.distill import run

    settings = config(keep_checkpoints=0, runs_dir=str(_workspace() / "finished"))
    directory, _ = run(settings, Plugins(allow=""))
    return directory.path


def teacher_for(texts: Iterable[str], name: str) -> Path:
    """A tiny teacher that reads these texts letter by letter and has no head yet: a run fine-tunes it on its task."""
    folder = _workspace() / f"teacher-{name}"
    if not folder.exists():
        letters = sorted({letter for text in texts for letter in text.lower() if not letter.isspace()})
        _write_teacher(folder, [*letters, *(f"##{letter}" for letter in letters)], has_head=False)
    return folder


def run_loop(settings: RunConfig, plugins: Plugins) -> dict[str, Any]:
    """Run it; returns what summary.json holds."""
    from sage_kit.distill import run

    # a cache of its own: two components of one name in one process must not meet each other's map
    with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder:
        changed = {"cache_dir": f"{folder}/cache", "runs_dir": f"{folder}/runs"}
        _, summary = run(settings.model_copy(update=changed), plugins)
    return summary
