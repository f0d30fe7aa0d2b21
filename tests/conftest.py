"""What all tests share: a closed environment, and tiny checkpoints made once per session.

The environment is set here, before any test imports the libraries that read it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

# The folder of real data is handed to the tests that ask for it and hidden from all others. It is kept under another
# name for the worker processes of a parallel run, which inherit this environment.
_KEPT_DATA_DIR = "SAGE_KIT_TESTS_DATA_DIR"
_DATA_DIR = os.environ.pop("SAGE_KIT_DATA_DIR", "") or os.environ.get(_KEPT_DATA_DIR, "")
os.environ[_KEPT_DATA_DIR] = _DATA_DIR
os.environ.pop("SAGE_KIT_PLUGINS", None)

_TEMPORARY = tempfile.mkdtemp(prefix="sage-kit-tests-")
os.environ["SAGE_KIT_CACHE_DIR"] = os.path.join(_TEMPORARY, "cache")
os.environ["HF_HOME"] = os.path.join(_TEMPORARY, "hf")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# tiny models gain nothing from threads, and on a busy machine threads that wait for each other cost tenfold
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_TEMPORARY, ignore_errors=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, laid out as the setting `data_dir` wants it."""
    if not _DATA_DIR:
        pytest.skip("needs real data: set SAGE_KIT_DATA_DIR to a folder of <group>/<task>/<split>.parquet")
    return Path(_DATA_DIR)


def _tiny(factory: pytest.TempPathFactory, family: str) -> Path:
    import tiny

    return tiny.make_checkpoint(factory.mktemp(f"tiny-{family}"), family)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head."""
    return _tiny(tmp_path_factory, "bert")


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny RoBERTa without a head."""
    return _tiny(tmp_path_factory, "roberta")


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT without a head."""
    return _tiny(tmp_path_factory, "distilbert")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Put a distribution with one entry point on the path: a module and the dist-info that an installer would write."""
    from pluginsources import HEAD, counter

    def install_one(
        source: str, *, plugin: str = "acme", distribution: str = "acme-sage", version: str = "1.2", attribute: str = ""
    ) -> str:
        folder = tmp_path / f"site{next(counter)}"
        module = f"sage_kit_test_plugin_{next(counter)}"
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(HEAD + textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sage_kit]\n{plugin} = {module}{attribute and ':'}{attribute}\n")
        monkeypatch.syspath_prepend(str(folder))
        return module

    return install_one


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a one-file plugin."""
    from pluginsources import HEAD

    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + textwrap.dedent(source))
        return path

    return write
