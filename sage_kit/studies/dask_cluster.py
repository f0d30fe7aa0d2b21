"""Executing cells on the workers of a dask.distributed cluster, and how its scheduler is reached. Light until then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sage_kit.config import toml_loads
from sage_kit.errors import SageError, StudyError, did_you_mean, one_line
from sage_kit.studies.runner import Cell, Outcome, now, read_record

MOST_ATTEMPTS = 3
"""How often a cell is given to a worker, when each of them dies of it."""
CONNECT_SECONDS = 10
"""Seconds that a scheduler may take to answer."""
GONE = "the scheduler went away"

SECURITY_FILES = ("tls_ca_file", "tls_client_cert", "tls_client_key")
"""What a security file names: the authority whose certificates count, and this client's own certificate and key."""


@dataclass(frozen=True)
class Scheduler:
    """A dask scheduler, and how to reach it.

    Attributes
    ----------
    address : str
        As ``tcp://127.0.0.1:8786``, or ``tls://HOST:8786`` for an encrypted connection.
    security : str
        TOML file with the names of `SECURITY_FILES`; relative paths start at its folder. "" for none.
    """

    address: str
    security: str = ""

    def check(self) -> dict[str, str]:
        """The files of the security file.

        Raises
        ------
        StudyError
            When it is not readable or complete, or does not go with the address.
        """
        encrypted = urlsplit(self.address).scheme == "tls"
        if not self.security:
            if encrypted:
                raise StudyError(
                    f"scheduler {self.address} is encrypted: name certificates with --scheduler-security FILE"
                )
            return {}
        if not encrypted:
            raise StudyError(
                f"--scheduler-security encrypts, and scheduler {self.address} does not: give its tls:// address"
            )
        return _read_security(Path(self.security))

    @property
    def warning(self) -> str:
        """One line where everybody on the network can use the scheduler, or read what it is told; "" otherwise."""
        parts = urlsplit(self.address)
        if parts.scheme == "tls" or parts.hostname in ("127.0.0.1", "localhost", "::1", None):
            return ""
        return (
            f"scheduler {self.address} is neither encrypted nor authenticated: whoever reaches its port can execute "
            "anything on the workers; start it with TLS and give --scheduler-security"
        )


def _read_security(path: Path) -> dict[str, str]:
    try:
        told: Mapping[str, Any] = toml_loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"security file {path} is not readable ({one_line(error)})") from None
    for name in told:
        if name not in SECURITY_FILES:
            raise StudyError(f"security file {path}: unknown name {name!r}.{did_you_mean(name, SECURITY_FILES)}")
    found = {}
    for name in SECURITY_FILES:
        file = path.parent / str(told.get(name, ""))
        if name not in told or not file.is_file():
            reason = f"there is no file {file}" if name in told else "it is missing"
            raise StudyError(f"security file {path}: {name}: {reason}; it names a PEM file")
        found[name] = str(file.resolve())
    return found


def on_cluster(cells: Sequence[Cell], run: Callable[[Cell], Outcome], scheduler: Scheduler) -> Iterator[Outcome]:
    """On the workers of a cluster; outcomes in the order in which they come. Not by joblib's back end, which waits
    forever for a task that dask gives up, as when each of its workers died.
    """
    from distributed import Client, Security, as_completed

    files = scheduler.check()
    began = now()
    try:
        security = Security(**files, require_encryption=True) if files else None
        client = Client(scheduler.address, timeout=CONNECT_SECONDS, set_as_default=False, security=security)
    except (OSError, ValueError) as error:
        reason = one_line(error) or type(error).__name__
        raise StudyError(f"no dask scheduler answers at {scheduler.address}: {reason}") from None
    with client:
        # not pure: the same cell under the same arguments is another task when it is asked for again
        futures = {client.submit(run, cell, pure=False, retries=MOST_ATTEMPTS - 1): cell for cell in cells}
        # its loop is told, or it looks for a client of the whole process
        for future in as_completed(list(futures), loop=client.loop):
            if future.status == "finished":
                yield future.result()
                continue
            failure = future.exception() if future.status == "error" else None
            if isinstance(failure, SageError):
                raise failure
            if failure is None:
                yield _left(futures[future], began)
            else:
                reason = f"its worker was lost ({type(failure).__name__}: {one_line(failure)})"
                yield Outcome(futures[future], "failed", error=reason)


def _left(cell: Cell, began: str) -> Outcome:
    """What became of a cell when the scheduler went away, which ends its workers: what the cell's own record says."""
    record = read_record(cell.directory)
    if str(record.get("started") or "") < began:  # of another time, or none
        return Outcome(cell, "not started", error=GONE)
    if record["state"] in ("done", "failed"):
        return Outcome(cell, record["state"], record.get("seconds") or 0.0, record.get("error") or "")
    return Outcome(cell, "interrupted", error=GONE)
