"""Reading settings from presets, TOML files and overrides, and writing them as TOML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sage_kit.config.presets import PRESETS
from sage_kit.config.settings import GROUPS, RunConfig, field_extra
from sage_kit.config.validation import explain
from sage_kit.config.values import toml_item
from sage_kit.errors import ConfigError, did_you_mean
from sage_kit.storage.reading import toml_loads


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
            document.add(name, toml_item(getattr(config, name)))
        if comments:
            document.add(tomlkit.nl())
    return tomlkit.dumps(document)
