"""Check that plugins can be listed without loading what they compute with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_kit.components import ComponentSpec
from sage_kit.components.loader import ENTRY_POINT_GROUP, Origin
from sage_kit.components.spec_checks import CONTRIBUTING_HOOKS
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject, required_modules

HEAVY = (
    "accelerate", "datasets", "matplotlib", "numba", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "tensorflow",
    "torch", "transformers", "umap",
)  # fmt: skip
"""What discovery must not load; the packages that the component requires come on top."""

TIMEOUT = 120.0  # longest time that a plugin's import may take [s]

# Answers with JSON: names of the components that the module contributes, none where it is absent, and what it loaded.
PROGRAM = """
import importlib, importlib.util, json, sys
target, hook, heavy = sys.argv[1], sys.argv[2], set(sys.argv[3].split(","))
before = set(sys.modules)
module, _, attribute = target.partition(":")
try:
    if target.endswith(".py"):
        spec = importlib.util.spec_from_file_location("plugin_under_check", target)
        plugin = importlib.util.module_from_spec(spec)
        sys.modules["plugin_under_check"] = plugin
        spec.loader.exec_module(plugin)
    else:
        plugin = importlib.import_module(module)
except ModuleNotFoundError as error:
    if error.name and (module + ".").startswith(error.name + "."):
        print("[[], []]")
        sys.exit()
    raise
for part in attribute.split(".") if attribute and not target.endswith(".py") else ():
    plugin = getattr(plugin, part)
specs = list(getattr(plugin, hook, tuple)() or ())
loaded = sorted(heavy & (set(sys.modules) - before))
print(json.dumps([[str(spec.name) for spec in specs], loaded]))
"""


@check()
def light_discovery(subject: Subject) -> None:
    """Importing the module that contributes the component, and calling its hook, loads no heavy package.

    To fix: import heavy packages inside the factory, or in a module of their own that only
    ``sage_kit.components.lazy("package.module:Class")`` imports.
    """
    hook = next(name for name, spec in CONTRIBUTING_HOOKS.items() if spec.kind == subject.spec.kind)
    heavy = ",".join(sorted({*HEAVY, *required_modules(subject.spec.requires)}))
    for target in _targets(subject):
        if target in sys.modules and not hasattr(sys.modules[target], hook):
            continue  # loaded here already, and seen to contribute nothing of the kind
        contributed, loaded = discovered(target, hook, heavy)
        if subject.spec.name in contributed:
            require(not loaded, f"importing {target} loads {', '.join(loaded)}")
            return
    raise NotApplicable("no module that can be imported by its name contributes it")


def discovered(target: str, hook: str, heavy: str) -> tuple[list[str], list[str]]:
    """Names of the components that a module contributes, and which packages of a list with commas it loads for that."""
    # what this process can import, the other one must be able to, too
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, target, hook, heavy],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": paths},
    )
    lines = process.stderr.strip().splitlines()
    require(process.returncode == 0, f"importing {target} ends with {lines[-1] if lines else 'no message'}")
    contributed, loaded = json.loads(process.stdout.strip().splitlines()[-1])
    return contributed, loaded


def _targets(subject: Subject) -> Iterator[str]:
    """Modules that may contribute the component, the likeliest first: "package.module", "module:object" or a file."""
    seen: set[str] = set()
    for target in _candidates(subject):
        if target not in seen:
            seen.add(target)
            yield target


def _candidates(subject: Subject) -> Iterator[str]:
    item = subject.plugins._components.get((subject.spec.kind, subject.spec.name))
    if item is not None:
        yield from _from_origin(item.origin)
    for module in _modules(subject.spec):
        parts = module.split(".")
        yield from (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))


def _from_origin(origin: Origin) -> Iterator[str]:
    if Path(origin.distribution).suffix == ".py" and Path(origin.distribution).is_file():
        yield origin.distribution
    elif origin.distribution == "sage-kit":
        yield f"sage_kit.builtin.{origin.plugin}"
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=origin.plugin):
        yield point.value


def _modules(spec: Any) -> Iterator[str]:
    """Modules that the spec's options and factory name, or the loader of a task."""
    if isinstance(spec, ComponentSpec):
        lazy = re.fullmatch(r"([\w.]+):\w+", getattr(spec.factory, "__qualname__", ""))
        names = [spec.options.__module__, lazy[1] if lazy else getattr(spec.factory, "__module__", "")]
    else:
        names = [getattr(spec.loader, "__module__", "")]
    yield from (name for name in names if name and not re.match(r"sage_kit\.|sage_kit$|__main__$", name))
