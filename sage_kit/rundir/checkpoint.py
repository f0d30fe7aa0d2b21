"""All that a run needs to go on: what it is, and the folder that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.components.records import Costs, RoundResult
from sage_kit.errors import RunDirectoryError
from sage_kit.rundir.fields import CheckpointFields
from sage_kit.storage.files import write_json
from sage_kit.storage.manifest import write_manifest
from sage_kit.storage.reading import cause_of, read_json

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Tensors = dict[str, torch.Tensor]

MANIFEST = "checkpoint.json"
STATE = "state.json"
COMPONENTS = "components.safetensors"
TENSORS = ("student", "optimizer", "profile")


@dataclass
class Checkpoint:
    """All that a run needs to go on, beyond what can be computed again from its settings.

    Attributes
    ----------
    round : int
        The last finished round; 0 in or after the warm-up.
    content : str
        Fingerprint of the data and the teacher, so that a resume does not go on with others.
    total_steps : int
        Student steps so far.
    teacher_tokens : int
        Tokens that the teacher has labelled for this run so far.
    history : list of RoundResult
    costs : Costs
    student, optimizer, profile : dict of str to Tensor
        Weights, optimizer state and loss profile. During the warm-up the optimizer's is that of the warm-up.
    components : dict of str to array
        State of the components that have one, under ``<kind>.<name>`` (`sage_kit.components.Stateful`).
    scaler : mapping
        State of the gradient scaler (fp16); empty without one.
    warmup_steps : int
        Steps of the warm-up that are done.
    in_warmup : bool
        Whether more of them are to come.
    stopped : str
        Why the run ends here, where a plugin said so; "" otherwise.
    settings : mapping
        What the run was told (`sage_kit.rundir.run_record.recorded_settings`), so that no other run goes on from here;
        empty in checkpoints of earlier versions.
    """

    round: int
    content: str
    total_steps: int
    teacher_tokens: int
    history: list[RoundResult]
    costs: Costs
    student: Tensors = field(default_factory=dict)
    optimizer: Tensors = field(default_factory=dict)
    profile: Tensors = field(default_factory=dict)
    components: dict[str, NDArray[Any]] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)
    warmup_steps: int = 0
    in_warmup: bool = False
    stopped: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it into an empty folder, with a manifest by which damage is found."""
        from safetensors.numpy import save_file as save_arrays
        from safetensors.torch import save_file

        for name in TENSORS:
            save_file(getattr(self, name), folder / f"{name}.safetensors")
        save_arrays(self.components, folder / COMPONENTS)
        plain = (item.name for item in fields(self) if item.name not in (*TENSORS, "components"))
        state = {name: getattr(self, name) for name in plain}
        history = [result.to_json() for result in self.history]
        write_json(folder / STATE, {**state, "history": history, "costs": self.costs.to_json()})
        write_manifest(folder, MANIFEST, {"round": self.round})

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """The checkpoint that `write` wrote, undamaged.

        Raises
        ------
        RunDirectoryError
            When it was written by another version, whose checkpoints hold something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file as load_arrays
        from safetensors.torch import load_file

        state = _state(folder)
        known = {item.name for item in fields(cls)}
        try:
            tensors: dict[str, Any] = {name: load_file(folder / f"{name}.safetensors") for name in TENSORS}
            components = load_arrays(folder / COMPONENTS)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise RunDirectoryError(f"checkpoint {folder} is not readable ({cause_of(error)}): {_ADVICE}") from None
        plain: dict[str, Any] = {name: value for name, value in state.items() if name in known}
        plain |= {"history": read_history(folder), "costs": Costs.from_json(state["costs"])}
        return cls(**plain, **tensors, components=components)


def read_history(folder: Path) -> list[RoundResult]:
    """The rounds that a checkpoint has behind it."""
    return [RoundResult.from_json(item) for item in _state(folder)["history"]]


_ADVICE = "remove it, and an older one is gone on from"


def _state(folder: Path) -> Mapping[str, Any]:
    return read_json(folder / STATE, CheckpointFields, RunDirectoryError, _ADVICE)
