"""What a page holds, unpacked as the browser does."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sage_kit.explorer.binary_blocks import MAGIC


@dataclass(frozen=True)
class Unpacked:
    """The header of a block, and its arrays and strings by name."""

    header: dict[str, Any]
    arrays: bytes

    @classmethod
    def of(cls, data: bytes) -> Unpacked:
        whole = zlib.decompress(data)
        assert whole[:4] == MAGIC
        length = int.from_bytes(whole[4:8], "little")
        return cls(json.loads(whole[8 : 8 + length]), whole[8 + length :])

    @classmethod
    def of_page(cls, path: Path) -> Unpacked:
        found = re.search(r'id="sage-explorer-data">([^<]*)<', path.read_text(encoding="utf-8"))
        assert found is not None
        return cls.of(base64.b64decode(found[1]))

    def get(self, name: str) -> Any:
        about = self.header["blocks"][name]
        raw = self.arrays[about["start"] : about["start"] + about["bytes"]]
        if about["type"] == "strings":
            ends = np.cumsum(self.get(about["lengths"]))
            return [raw[end - size : end].decode() for end, size in zip(ends, self.get(about["lengths"]), strict=True)]
        width = int(about["type"][1:]) // 8
        planes = np.frombuffer(raw, np.uint8).reshape(width, -1)
        return planes.T.copy().view(f"<u{width}").ravel()

    def coded(self, about: dict[str, str]) -> list[str]:
        names = self.get(about["names"])
        return [names[code] for code in self.get(about["codes"])]

    def synthetic_texts(self, run: int, round: int) -> list[list[tuple[str, int]]]:
        """Pieces and flags of each synthetic example that a round of a run has."""
        made = self.header["runs"][run]["synthetic"]
        one = next(item for item in made["rounds"] if item["round"] == round)
        words = self.get(made["vocabulary"])
        pieces = [
            (words[place], int(flag))
            for place, flag in zip(self.get(one["pieces"]), self.get(one["flags"]), strict=True)
        ]
        ends = np.cumsum(self.get(one["lengths"]))
        return [pieces[end - size : end] for end, size in zip(ends, self.get(one["lengths"]), strict=True)]
