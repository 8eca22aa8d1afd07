"""What comes before the stages: bring what `prepare` names of LibriTTS into the folder `prepare.data`.

python -m spear_spec.training.recipe.download CONFIG [--set prepare.data=LibriTTS ...]
"""

from __future__ import annotations

from collections.abc import Sequence

from spear_spec.errors import ConfigError
from spear_spec.training.data.download import download
from spear_spec.training.recipe.command import command
from spear_spec.training.recipe.plan import Plan


def run(plan: Plan) -> None:
    """Fetch the subsets that are not there.

    Raises:
        ConfigError: no folder is named, or a subset is unknown. DownloadError: one cannot be had.
    """
    cfg = plan.prepare
    if cfg.data is None:
        raise ConfigError("prepare.data names no folder to fetch LibriTTS into")
    parts = (*cfg.corpora, *cfg.dev, *cfg.test)
    about = plan.download
    [data] = cfg.folders(["."])
    fetched = download(
        data, parts, mirrors=about.mirrors, checksums=about.checksums, keep=about.keep, progress=plan.progress
    )
    for part in dict.fromkeys(parts):
        print(f"{data / part}: {'fetched' if part in fetched else 'there already'}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `python -m spear_spec.training.recipe.download`; returns the exit status."""
    return command("download", __doc__, lambda values: run(Plan.from_dict(values)), argv, ())


if __name__ == "__main__":
    raise SystemExit(main())
