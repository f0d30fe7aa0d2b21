"""Uploading a student to a repository of the hub: what would go, and sending it as one commit."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sage_kit
from sage_kit.components.plugins import Plugins
from sage_kit.errors import HubError, ModelError, SageError, causes_of, one_line
from sage_kit.inference.card_facts import without_folders
from sage_kit.inference.card_snippets import PLACE
from sage_kit.inference.model_card import CARD, model_card, without_mark
from sage_kit.models.sentence_folders import MODULES
from sage_kit.rundir import RunDirectory
from sage_kit.storage.reading import json_loads

WEIGHTS = (".safetensors", ".onnx")
"""What weights may be stored as; pickles are not uploaded."""

ENDINGS = (*WEIGHTS, ".onnx_data", ".onnx.data", ".json", ".md", ".model", ".jinja", ".spm", ".vocab", ".bpe", ".codes")
TEXTS = ("vocab.txt", "merges.txt", "LICENSE", "LICENSE.txt", "NOTICE", "NOTICE.txt")
"""Files that belong to a model, by the ends of their names and by their names."""

OF_TRAINING = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|trainer_state|training_args|all_results|train_results|eval_results)\b.*"
)
FOLDERS_OF_TRAINING = re.compile(r"(checkpoint|checkpoints|rounds|runs|logs|figures|profile|wandb|tensorboard)(-.*)?")
"""What lies beside a model and is none of it."""

PATH_KEYS = ("_name_or_path", "name_or_path")
"""Where libraries write down the folder that a model was loaded from."""

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Upload:
    """What goes into a repository.

    Attributes
    ----------
    files : mapping of str to Path or bytes
        By name in the repository: a file, or what it holds where that differs from the one on disk.
    left_out : tuple of str
        Files of the folder that do not go.
    """

    files: Mapping[str, Path | bytes]
    left_out: tuple[str, ...]

    def size(self, name: str) -> int:
        """Size of a file [bytes]."""
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    @property
    def card(self) -> str:
        """The model card; "" for none."""
        content = self.files.get(CARD, b"")
        return (content if isinstance(content, bytes) else content.read_bytes()).decode(errors="replace")

    def to(self, repository: str) -> Upload:
        """The same for a repository, whose name takes the place of `PLACE` in the card."""
        card = {CARD: self.card.replace(PLACE, repository).encode()} if self.card else {}
        return replace(self, files={**self.files, **card})


def plan_upload(folder: str | os.PathLike[str], plugins: Plugins | None = None) -> Upload:
    """What of a folder goes to the hub.

    Of a run its student goes, with the card that lies there or else one made for it.

    Parameters
    ----------
    folder : path
        A finished run, or a checkpoint.
    plugins : Plugins or None
        As for `model_card`.

    Returns
    -------
    Upload

    Raises
    ------
    ModelError
        When the folder is neither a run nor a checkpoint, or weights in it are broken.
    RunDirectoryError
        For a run that is not finished.
    """
    path = Path(folder).expanduser()
    run = run_of(path)
    student = path if run is None else run.student
    if run is not None and run.summary() is None:
        model_card(run.path)  # says so
    _check_folder(path, student)
    files, left_out = dict[str, Path | bytes](), []
    for file in _files_below(student):
        name = file.relative_to(student).as_posix()
        if _belongs(file.relative_to(student)):
            files[name] = _as_uploaded(file)
        else:
            left_out.append(name)
    for name, content in files.items():
        if name.endswith(".safetensors") and isinstance(content, Path):
            _check_weights(content)
    if CARD not in files and run is not None:
        files[CARD] = model_card(run.path, plugins).encode()
    if CARD in files:
        files[CARD] = without_mark(Upload(files, ()).card).encode()
    return Upload(dict(sorted(files.items())), tuple(left_out))


def push(
    upload: Upload, repository: str, *, private: bool = False, revision: str = "", message: str = "",
    announce: Announce = lambda line: None,
) -> str:  # fmt: skip
    """Send what was planned to the hub, as one commit; the repository and the branch are made where they do not exist.

    Parameters
    ----------
    upload : Upload
    repository : str
        "name" for one of the user's own, or "owner/name".
    private : bool
        Make a private repository; one that exists and is public is refused.
    revision : str
        The branch; "" for the main one.
    message : str
        Of the commit.
    announce : callable
        Shows one line to the user.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    HubError
        When the hub cannot be reached, the user is not logged in or may not write there, or the hub refuses the files.
        The repository then is as it was, or new and empty.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    check_name(repository)
    api = HfApi(library_name="sage-kit", library_version=sage_kit.__version__)
    with _explained(repository, "log in"):
        if get_token() is None:
            raise HubError(
                "you are not logged in to the hub: log in with `hf auth login`, or set HF_TOKEN to a token that may "
                "write"
            )
        user = api.whoami()
        repository = _own_name(repository, user)
    upload = upload.to(repository)
    with _explained(repository, "make the repository"):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise HubError(
                f"repository {repository!r} exists and is public: name another, make it private in its settings, or "
                "leave out --private"
            )
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
    total = sum(map(upload.size, upload.files))
    if not sys.stderr.isatty():
        disable_progress_bars()
    announce(f"uploading {len(upload.files)} files, {total / 1e6:,.1f} MB, to {repository}")
    with _explained(repository, "upload"):
        done = api.create_commit(
            repository,
            [
                CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name, content in upload.files.items()
            ],
            commit_message=message or "Upload a student of sage_kit",
            revision=revision or None,
        )
    return str(done.commit_url)


def check_name(repository: str) -> None:
    """Raise HubError for a name that no repository can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    if "://" in repository:
        raise HubError(f"{repository!r} is an address: name the repository alone, as owner/name")
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise HubError(
            f"a repository cannot be called {repository!r}: name it owner/name, of at most 96 letters, digits, '-', "
            "'_' and '.', without '--' and '..'"
        ) from None


# ---- what goes ------------------------------------------------------------------------------------------------------


def run_of(path: Path) -> RunDirectory | None:
    """The run that a folder is, or whose student it is."""
    if (path / "config.toml").is_file():
        return RunDirectory.open(path)
    above = path.absolute().parent
    if path.absolute().name == "student" and (above / "config.toml").is_file():
        return RunDirectory.open(above)
    return None


def _check_folder(path: Path, student: Path) -> None:
    what = "name a finished run, or a checkpoint"
    if not path.exists():
        raise ModelError(f"{path} does not exist: {what}")
    if not path.is_dir():
        raise ModelError(f"{path} is a file: {what}")
    if not any((student / name).is_file() for name in ("config.json", MODULES)):
        raise ModelError(f"{student} is no checkpoint, since it has no config.json: {what}")
    if not any(file.name.endswith(WEIGHTS) for file in _files_below(student) if _belongs(file.relative_to(student))):
        raise ModelError(f"{student} has no weights as safetensors or ONNX, and pickles are not uploaded: {what}")


def _files_below(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _belongs(name: Path) -> bool:
    """Whether a file belongs to a model, by its path in the folder."""
    *folders, file = name.parts
    if any(part.startswith(".") for part in name.parts) or any(map(FOLDERS_OF_TRAINING.fullmatch, folders)):
        return False
    return not OF_TRAINING.fullmatch(file) and (file in TEXTS or file.endswith(ENDINGS))


def _as_uploaded(file: Path) -> Path | bytes:
    """A file, or what it holds without the folder of this machine that the model was loaded from."""
    if file.suffix != ".json" or file.name == "tokenizer.json":
        return file
    try:
        told = json_loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as JSON ({one_line(error, 100)}): correct it") from None
    local = [
        key
        for key in PATH_KEYS
        if isinstance(told, dict) and isinstance(told.get(key), str) and without_folders(told[key]) != told[key]
    ]
    if not local:
        return file
    kept = {key: value for key, value in told.items() if key not in local}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _check_weights(file: Path) -> None:
    """Raise ModelError for weights that are cut off or no safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is broken ({one_line(error, 100)}): export the student again") from None


# ---- the hub's answers ----------------------------------------------------------------------------------------------


def _own_name(repository: str, user: Mapping[str, Any]) -> str:
    """The repository with its owner, who is the user or one of the user's organisations."""
    name = str(user.get("name", ""))
    owner, _, rest = repository.rpartition("/")
    if not owner:
        return f"{name}/{rest}"
    owners = [name, *(str(one.get("name")) for one in user.get("orgs") or ())]
    if owner.lower() not in map(str.lower, owners):
        others = f" (a member of {', '.join(owners[1:])})" if owners[1:] else ""
        raise HubError(
            f"repository {repository!r} is not yours: you are logged in as {name!r}{others}; name {name}/{rest}, or "
            "log in as somebody else with `hf auth login`"
        )
    return repository


@contextmanager
def _explained(repository: str, aim: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line that says what to do."""
    try:
        yield
    except SageError:
        raise
    except Exception as error:  # the client, its web library and its store for large files have classes of their own
        raise HubError(_explain(error, repository, aim)) from error


def _explain(error: BaseException, repository: str, aim: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    chain = causes_of(error)
    if any(isinstance(one, hub.OfflineModeIsEnabled) for one in chain):
        return "the hub is not asked, since HF_HUB_OFFLINE is set: unset it, or see what would go with --dry-run"
    # the web library's base class is that of the hub's own errors, whichever library it is
    of_web = hub.HfHubHTTPError.__bases__[0]
    if isinstance(error, ValueError) and f"metadata in {CARD}" in str(error):
        return f"the hub refuses the card: {one_line(error, 200)}: correct its first lines, or remove it"
    answered = next((one for one in chain if isinstance(one, hub.HfHubHTTPError)), None)
    if answered is not None:
        return _explain_answer(answered, repository)
    if any(isinstance(one, (of_web, ConnectionError, TimeoutError)) for one in chain):
        return (
            f"the hub cannot be reached at {constants.ENDPOINT} to {aim} ({type(error).__name__}): connect, or see "
            "what would go with --dry-run"
        )
    if isinstance(error, json.JSONDecodeError):
        return f"{constants.ENDPOINT} does not answer as the hub does: check HF_ENDPOINT"
    cause = next((one for one in reversed(chain) if str(one)), error)
    return f"could not {aim} ({type(cause).__name__}: {one_line(cause, 200)}): nothing was committed; try again"


def _explain_answer(error: Any, repository: str) -> str:
    """What an answer of the hub means that is an error."""
    from huggingface_hub import errors as hub

    status = error.response.status_code
    said = one_line(error.server_message, 160) if error.server_message else ""
    said = f" ({said})" if said else ""
    if isinstance(error, hub.RevisionNotFoundError):
        return f"repository {repository!r} has no such branch{said}: leave out --revision"
    if status == 401:
        return f"the hub does not know your token{said}: log in again with `hf auth login`, or correct HF_TOKEN"
    if status == 403:
        return (
            f"you may not write to repository {repository!r}{said}: name one of your own, or log in with a token that "
            "may write (`hf auth login`)"
        )
    if isinstance(error, hub.RepositoryNotFoundError) or status == 404:
        return (
            f"the hub has no repository {repository!r} that you may see{said}: check its name, and who you are there "
            "(`hf auth whoami`)"
        )
    if status == 429 or status >= 500:
        return f"the hub answers {status}{said}: try the same again later"
    return f"the hub refuses it with {status}{said}: nothing was committed"
