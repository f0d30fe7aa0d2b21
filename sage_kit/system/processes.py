"""What the processes of one run share: values that the main process computes and the others receive."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


def from_main(value: T, accelerator: Accelerator) -> T:
    """The main process's value, in every process.

    Parameters
    ----------
    value : object
        Plain data, such as text, numbers, numpy arrays and dataclasses of these; of the other processes it is ignored.
    accelerator : Accelerator
    """
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values, from_process=0)
    return values[0]
