"""Where a recipe keeps what, in its folder OUT:

prepared/, dev/, test/                   what is trained on, held out, and of unseen readers (see data/prepared.py)
centroids.safetensors, ctc/, ctc.safetensors, agreement.json
t2s/, vocoder/, draft/, drafters/NAME/   checkpoint.pt, train.log, export/ (see checkpoint.Work)
draft_samples/, draft_held_out/          what the target spoke for its drafts
vocoder_clips/                           audio and features for the vocoder
sampling.json, drafters.md, voice/NAME/, evaluation.json, benchmark.json, benchmark.md, pushed.json
done.N.STAGE.json                        with which settings and inputs a stage was done
work/NAME.json                           whose the unfinished work is
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spear_spec.training.checkpoint import Work, export_files
from spear_spec.training.data.prepared import Prepared


@dataclass(frozen=True)
class Layout:
    """Paths of a recipe's folder."""

    out: Path

    @property
    def prepared(self) -> Prepared:
        return Prepared(self.out / "prepared")

    @property
    def dev(self) -> Prepared:
        return Prepared(self.out / "dev")

    @property
    def test(self) -> Prepared:
        """Readers that nothing is trained on; there where `prepare.test` names some."""
        return Prepared(self.out / "test")

    @property
    def cuts(self) -> Path:
        """Audio of a lhotse manifest's cuts."""
        return self.out / "cuts"

    @property
    def audio(self) -> Path:
        """Audio that came in a parcel (recipes/gpu.py)."""
        return self.out / "audio"

    @property
    def centroids(self) -> Path:
        return self.out / "centroids.safetensors"

    @property
    def check(self) -> Prepared:
        """Tokens that were made again to compare them."""
        return Prepared(self.out / "check")

    @property
    def agreement(self) -> Path:
        return self.out / "agreement.json"

    @property
    def ctc(self) -> Path:
        return self.out / "ctc.safetensors"

    @property
    def ctc_work(self) -> Work:
        return Work(self.out / "ctc")

    @property
    def t2s(self) -> Work:
        return Work(self.out / "t2s")

    @property
    def target(self) -> tuple[Path, Path]:
        """What the t2s stage leaves for the others."""
        return export_files(self.t2s.export, "t2s")

    @property
    def vocoder(self) -> Work:
        return Work(self.out / "vocoder")

    @property
    def vocoder_export(self) -> tuple[Path, Path]:
        return export_files(self.vocoder.export, "vocoder")

    @property
    def prompt_export(self) -> tuple[Path, Path]:
        return export_files(self.vocoder.export, "prompt")

    @property
    def clips(self) -> Path:
        """Audio and features for the vocoder."""
        return self.out / "vocoder_clips"

    @property
    def sampling(self) -> Path:
        return self.out / "sampling.json"

    @property
    def trials(self) -> Path:
        """What the sampling stage speaks to choose."""
        return self.out / "sampling"

    @property
    def draft(self) -> Work:
        return Work(self.out / "draft")

    @property
    def draft_export(self) -> tuple[Path, Path]:
        return export_files(self.draft.export, "draft")

    @property
    def samples(self) -> Prepared:
        return Prepared(self.out / "draft_samples")

    @property
    def held_out(self) -> Prepared:
        return Prepared(self.out / "draft_held_out")

    @property
    def drafters(self) -> Path:
        return self.out / "drafters"

    def drafter(self, name: str) -> Work:
        return Work(self.drafters / name)

    def drafter_export(self, name: str) -> tuple[Path, Path]:
        return export_files(self.drafter(name).export, name)

    @property
    def readings(self) -> Path:
        """Of the search for the layers that layer_skip leaves out."""
        return self.drafter("layer_skip").folder / "readings.json"

    @property
    def drafters_table(self) -> Path:
        return self.out / "drafters.md"

    def voice(self, name: str) -> Path:
        return self.out / "voice" / name

    @property
    def evaluation(self) -> Path:
        return self.out / "evaluation.json"

    @property
    def evaluated(self) -> Prepared:
        """What the target speaks to be judged by the CTC."""
        return Prepared(self.out / "evaluation")

    @property
    def benchmark(self) -> Path:
        return self.out / "benchmark.json"

    @property
    def benchmark_table(self) -> Path:
        return self.out / "benchmark.md"

    @property
    def pushed(self) -> Path:
        """Where the voice was brought."""
        return self.out / "pushed.json"

    def shards(self, stage: str) -> Path:
        """What the stage has finished so far, in shards."""
        return self.out / "work" / stage

    def done(self, number: int, stage: str) -> Path:
        return self.out / f"done.{number}.{stage}.json"

    def owner(self, work: str) -> Path:
        """Whose the unfinished work of this name is, see `keys.claim`."""
        return self.out / "work" / f"{work}.json"
