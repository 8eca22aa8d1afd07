"""Where the low-resource recipe keeps what, in its folder OUT beside what `recipe.layout.Layout` names:

pretrain/                      the denoising model: checkpoint.pt, train.log, best.pt, export/
PART/                          one parallel part ("NAME-15min", "all")
  parallel/                    its clips and tokens (see data/prepared.py)
  scratch/, finetune/, back/, forward/, final/
  ctc/, ctc.safetensors        the CTC that is trained on it
  heard.jsonl, pseudo/         what the back-translator wrote, and the pairs that the filter left
  evaluation.json              what is heard of each arm
  done.STAGE.json              with which settings and inputs a stage was done
table.md                       all parts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spear_spec.training.checkpoint import Work
from spear_spec.training.data.prepared import Prepared
from spear_spec.training.low_resource.learner import BEST
from spear_spec.training.recipe.layout import Layout

ARMS = {"scratch": "from scratch", "finetune": "with pretraining", "final": "with back-translation"}


@dataclass(frozen=True)
class Places:
    """Paths of one parallel part."""

    out: Path
    part: str

    @property
    def shared(self) -> Layout:
        return Layout(self.out)

    @property
    def folder(self) -> Path:
        return self.out / self.part

    @property
    def parallel(self) -> Prepared:
        return Prepared(self.folder / "parallel")

    @property
    def pseudo(self) -> Prepared:
        return Prepared(self.folder / "pseudo")

    @property
    def ctc(self) -> Path:
        return self.folder / "ctc.safetensors"

    @property
    def heard(self) -> Path:
        return self.folder / "heard.jsonl"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def resynthesis(self) -> Path:
        """What is heard of the held-out clips' own tokens."""
        return self.out / "resynthesis.json"

    @property
    def table(self) -> Path:
        return self.out / "table.md"

    def work(self, name: str) -> Work:
        """Folder of a training; "pretrain" is shared by all parts."""
        return Work((self.out if name == "pretrain" else self.folder) / name)

    def best(self, name: str) -> Path:
        """The weights that a training kept."""
        return self.work(name).folder / BEST

    def done(self, stage: str, shared: bool) -> Path:
        return (self.out if shared else self.folder) / f"done.{stage}.json"

    def owner(self, stage: str, shared: bool) -> Path:
        """Whose the unfinished work is, see `keys.claim`."""
        return (self.out if shared else self.folder) / "work" / f"{stage}.json"
