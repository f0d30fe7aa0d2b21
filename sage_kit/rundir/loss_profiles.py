"""Loss profiles on disk: the per-instance losses of each round, which the observer `loss_profile` writes.

Row i of a file is example i of the training split without its dev part. An example that a round did not train on keeps
its latest known loss; NaN stands for one not seen yet. A notebook reads them back with :func:`read_loss_profiles`::

    rounds, losses = read_loss_profiles("runs/sst2/20260101T000000Z-0a1b2c3d")
    hard = losses[-1].argsort()[-100:]
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sage_kit.errors import RunDirectoryError, one_line
from sage_kit.storage.files import disk_errors, write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE_NAME = "losses.parquet"
COLUMN = "loss"
ABOUT = "row i: latest known loss of training example i after this round; NaN: not seen yet"


def write_loss_profile(run_directory: str | os.PathLike[str], round: int, losses: NDArray[np.float32]) -> Path:
    """Write a round's losses to ``rounds/NNN/losses.parquet``, atomically; the same losses give the same bytes.

    Parameters
    ----------
    run_directory : path
    round : int
        The round whose training gave the losses, from 1.
    losses : array of shape (n,), float32
        Never changed; NaN stays NaN.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DiskFullError
        When the disk is full.
    """
    import pyarrow
    import pyarrow.parquet

    about = {"round": str(round), "about": ABOUT}
    schema = pyarrow.schema([pyarrow.field(COLUMN, pyarrow.float32(), nullable=False)], metadata=about)
    table = pyarrow.table([pyarrow.array(losses, pyarrow.float32())], schema=schema)
    sink = pyarrow.BufferOutputStream()
    # Signs and exponents of losses are much alike, mantissas are noise: the bytes of a number go apart, and only from
    # about this level on does zstd code them apart, too. About a seventh is saved, without a bit lost.
    pyarrow.parquet.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=15,
        use_byte_stream_split=True,
        use_dictionary=False,
        write_statistics=False,
    )
    path = Path(run_directory) / "rounds" / f"{round:03d}" / FILE_NAME
    with disk_errors(str(path)):
        write_bytes(path, sink.getvalue().to_pybytes())
    return path


def read_loss_profiles(run_directory: str | os.PathLike[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The losses of every round that has them.

    Parameters
    ----------
    run_directory : path

    Returns
    -------
    rounds : array of shape (r,), int64
        The rounds, in order.
    losses : array of shape (r, n), float32
        ``losses[j, i]`` is the loss of training example i after round ``rounds[j]``; NaN for one not seen yet.

    Raises
    ------
    RunDirectoryError
        When there are none, or a file is not readable or does not go with the others.
    """
    import numpy as np

    found = [path for path in Path(run_directory).glob(f"rounds/*/{FILE_NAME}") if path.parent.name.isdecimal()]
    paths = sorted(found, key=lambda path: int(path.parent.name))
    if not paths:
        raise RunDirectoryError(
            f"{run_directory} holds no loss profiles: name a run directory whose run had 'loss_profile' among its "
            "`observers`"
        )
    rows = [_read(path) for path in paths]
    for path, row in zip(paths, rows, strict=True):
        if len(row) != len(rows[0]):
            raise RunDirectoryError(
                f"{path} holds {len(row)} losses, {paths[0]} holds {len(rows[0])}: they are not of one run"
            )
    return np.array([int(path.parent.name) for path in paths], dtype=np.int64), np.stack(rows)


def _read(path: Path) -> NDArray[np.float32]:
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    try:
        # through bytes: given a path, pyarrow would take folders of the form name=value for columns
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(path.read_bytes()), columns=[COLUMN])
        values: NDArray[np.float32] = table.column(COLUMN).to_numpy()
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        message = f"{path} is not readable ({one_line(error)}): remove it, or run the round again"
        raise RunDirectoryError(message) from None
    return values.astype(np.float32, copy=False)
