"""How a run was begun: environment.json, the settings that a resume must find unchanged, its plugins."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_kit.config import PATHS, RunConfig, field_extra, load_config
from sage_kit.errors import ConfigError, RunDirectoryError, TrustError
from sage_kit.storage.environment import environment
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.privacy import private, private_words, revealed
from sage_kit.storage.reading import ABSENT, Fields, Record, read_json

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
PACKAGES = ("sage-kit", "torch", "transformers", "datasets", "accelerate", "scikit-learn", "scipy", "numpy")
MOST_DIFFERENCES = 3
"""Most settings that a message names."""


class EnvironmentFields(Fields):
    """What of environment.json is read."""

    packages: dict[str, str] = ABSENT
    python: str | None = None
    platform: str | None = None
    processors: int | None = None
    device: str | None = None
    components: dict[str, str] = ABSENT
    options: dict[str, dict[str, Any]] = ABSENT
    plugin_files: list[str] = ABSENT
    plugin_sha256: dict[str, str] = ABSENT
    settings: dict[str, Any] = ABSENT
    command: list[str] = ABSENT


def run_record(
    config: RunConfig,
    components: Mapping[str, str],
    options: Mapping[str, Mapping[str, Any]],
    plugin_files: Sequence[str],
    device: str,
) -> dict[str, Any]:
    """What environment.json holds: versions, machine, settings, components, where they came from, and their options.

    Paths below the home folder begin with ``~``, and addresses hold no password.
    """
    files = [str(private(file)) for file in plugin_files]
    return {
        **environment(*PACKAGES),
        "device": device,
        "components": dict(zip(components, private_words([*components.values()]), strict=True)),
        "options": private({kind: dict(values) for kind, values in options.items()}),
        "plugin_files": files,
        "plugin_sha256": {name: file_sha256(Path(file)) for name, file in zip(files, plugin_files, strict=True)},
        "settings": recorded_settings(config),
        "command": private_words(sys.argv),
    }


def read_record(folder: Path) -> Record:
    """What environment.json holds; empty where there is none.

    Raises
    ------
    RunDirectoryError
        When it is not readable.
    """
    path = folder / ENVIRONMENT
    if not path.exists():
        return Record()
    return read_json(path, EnvironmentFields, RunDirectoryError, "restore the file, or start a new run")


# ---- settings --------------------------------------------------------------------------------------------------------


def settings_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits for the settings that shape the result (all but machine and output)."""
    return fingerprint(_shaping(config))[:8]


def private_config(config: RunConfig) -> RunConfig:
    """Settings as config.toml holds them: paths below the home folder from ``~`` on, and no password."""
    told = config.model_dump()
    hidden = private(told)
    return config if hidden == told else load_config(hidden)


def read_settings(folder: Path) -> RunConfig:
    """The settings of a run's directory, its paths as they are on this machine.

    Raises
    ------
    RunDirectoryError
        When config.toml cannot be read as settings of this version, or holds others than the run began with.
    """
    try:
        config = load_config(file=folder / CONFIG)
        told = config.model_dump()
        here = revealed(told)
        config = config if here == told else load_config(here)
    except ConfigError as error:
        raise RunDirectoryError(f"run directory {folder} has unusable settings: {error}") from None
    try:
        recorded = read_record(folder).get("settings", {})
    except RunDirectoryError:  # who needs the record tells
        recorded = {}
    check_settings(recorded, config, str(folder / CONFIG))
    return config


def _shaping(config: RunConfig) -> dict[str, Any]:
    names = {name for name in RunConfig.model_fields if field_extra(name)["group"] not in ("machine", "output")}
    # as in JSON: a table of options may hold a date
    return config.model_dump(mode="json", include=names)


def recorded_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that shape a result, as a record holds them: all but machine and output."""
    settings: dict[str, Any] = private(_shaping(config))
    return settings


def differing_settings(recorded: Mapping[str, Any], config: RunConfig) -> list[str]:
    """The settings that are not as they were recorded, as "name is NOW, was THEN"; unknown ones do not count."""
    now = recorded_settings(config)
    return [
        f"{name} is {_shown(now[name])} and was {_shown(then)}"
        for name, then in recorded.items()
        if name in now and now[name] != then
    ]


def check_settings(recorded: Mapping[str, Any], config: RunConfig, place: str) -> None:
    """Refuse settings that a run did not begin with. Where data lies may change: what it holds is looked at later.

    Raises
    ------
    RunDirectoryError
        With the settings that differ.
    """
    here = {name: value for name, value in recorded.items() if name not in PATHS}
    found = differing_settings(here, config)
    if found:
        more = f" (and {len(found) - MOST_DIFFERENCES} more)" if len(found) > MOST_DIFFERENCES else ""
        raise RunDirectoryError(
            f"{place} does not hold the settings that the run began with: {'; '.join(found[:MOST_DIFFERENCES])}{more}: "
            "set them back, or start a new run"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- plugins ---------------------------------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal; "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""


def trusted_plugins(
    what: str,
    recorded: Sequence[str],
    given: Sequence[str],
    *,
    trust: bool,
    checksums: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """The one-file plugins to load for what lies in a directory: none that the user has not named or trusted.

    Parameters
    ----------
    what : str
        What names them, for the message.
    recorded : sequence of str
        Paths that the directory names.
    given : sequence of str
        Files that the user names; one of the same path or name stands for a recorded one.
    trust : bool
        Whether the user trusts what the directory names.
    checksums : mapping of str to str
        SHA-256 by recorded path, as it was when the directory was written.
    announce : callable
        Told of a file that has changed since.

    Returns
    -------
    list of str
        Absolute paths, those given first.

    Raises
    ------
    TrustError
        For a file that is neither given nor trusted, with its path and checksum.
    """
    own = [str(Path(file).expanduser().resolve()) for file in given]
    names = {Path(file).name for file in own}
    rest = [path for path in dict.fromkeys(recorded) if Path(path).name not in names]
    found = {path: str(Path(revealed(path)).expanduser()) for path in rest}
    if rest and not trust:
        files = ", ".join(f"{found[path]} ({_sha(found[path])})" for path in rest[:MOST_DIFFERENCES])
        raise TrustError(
            f"{what} names Python files that would be executed: {files}: name each with --plugin FILE, or add "
            "--trust-plugins if you trust them"
        )
    for path in rest:
        then, now = (checksums or {}).get(path, ""), file_sha256(Path(found[path]))
        if then and now and then != now:
            sums = f"SHA-256 {now[:12]}..., was {then[:12]}..."
            announce(f"plugin {found[path]} has changed since the run began ({sums})")
    return list(dict.fromkeys([*own, *found.values()]))


def _sha(path: str) -> str:
    checksum = file_sha256(Path(path))
    return f"SHA-256 {checksum}" if checksum else "not there"
