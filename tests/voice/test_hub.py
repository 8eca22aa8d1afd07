"""Voices fetched, brought, shown and removed: with a folder, and with a hub that is a folder behind huggingface_hub's
functions. No network.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from spear_spec.cli import main
from spear_spec.errors import BundleError, ConfigError, MissingExtraError
from spear_spec.pipeline import TTS
from spear_spec.voice import hub, search
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.card import model_card
from spear_spec.voice.hub import Place, look, pull, push, remove
from tests.stubs.schemas import check
from tests.voice.damage import edit, read_all

REPO = "someone/tiny"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pulled voices go."""
    monkeypatch.delenv(search.SEARCH_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "spear_spec" / "voices"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("a test reached out")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.fixture
def voice(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "source" / "tiny"))


class FakeHub:
    """Repositories as folders; what was asked for is cached as the real one does: snapshots/COMMIT/FILE."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked, self.private, self.error = root, [], {}, None
        self.message: str | None = None

    def download(self, repo_id: str, filename: str, *, revision: str | None = None) -> str:
        self.asked.append((filename, revision))
        if self.error is not None:
            raise self.error
        cached = self.root / "cache" / repo_id / "snapshots" / "abc123" / filename
        if os.environ.get("HF_HUB_OFFLINE") == "1" and not cached.exists():
            raise errors.LocalEntryNotFoundError("not cached")
        if not (self.root / repo_id).exists():
            raise http_error(errors.RepositoryNotFoundError)
        if not (self.root / repo_id / filename).exists():
            raise http_error(errors.RemoteEntryNotFoundError)
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / repo_id / filename, cached)
        return str(cached)

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert repo_type == "model" and exist_ok
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        self.private[repo_id] = private

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, repo_type: str, revision: str | None, commit_message: str
    ) -> None:
        self.message = commit_message
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)


def http_error(kind: Any) -> Exception:
    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/x"))
    made: Exception = kind("Not there.\nAnd more lines", response=response)
    return made


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    found = FakeHub(tmp_path / "hub")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def nothing_in(home: Path) -> bool:
    return not home.exists() or not list(home.iterdir())


def test_there_and_back(fake: FakeHub, original: Path, home: Path) -> None:
    push(open_voice(original), Place.of(REPO), message="First")
    assert (fake.private, fake.message) == ({REPO: True}, "First")
    stored = tree(fake.root / REPO)
    assert set(stored) == {*tree(original), "README.md"}
    (fake.root / REPO / "evil.py").write_text("import os")
    told: list[str] = []
    bundle = pull(Place.of(REPO), told=lambda source: told.append(f"{source.config.licence} {len(fake.asked)}"))
    assert told == ["CC0-1.0 1"]  # the licence, when config.json alone had been fetched
    assert bundle.path == home / "tiny" and tree(bundle.path) == tree(original)  # nothing that is not listed
    assert all(revision == "abc123" for _, revision in fake.asked[1:])  # one commit
    heard = [TTS.load(where, device="cpu").synthesize("Yes.", seed=2).samples for where in ("tiny", original)]
    assert (heard[0] == heard[1]).all()
    assert list(home.iterdir()) == [home / "tiny"]
    assert remove("tiny") == (home / "tiny", []) and nothing_in(home)


def test_a_folder_works_the_same_without_the_library(
    original: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    target = tmp_path / "out"
    push(open_voice(original), Place.of(str(target)))
    assert set(tree(target)) == {*tree(original), "README.md"}
    assert tree(pull(Place.of(str(target)), "other").path) == tree(original)
    read_all(home / "other")
    for call in (lambda: look(Place.of(REPO)), lambda: push(open_voice(original), Place.of(REPO))):
        with pytest.raises(MissingExtraError, match=r"pip install 'spear_spec\[hub\]'"):
            call()


def damage_config(voice: Path) -> None:
    (voice / "config.json").write_bytes(b"{")


def cut_shard(voice: Path) -> None:
    with (voice / "vocoder-1.safetensors").open("r+b") as file:
        file.truncate(100)


def change_shard(voice: Path) -> None:
    data = bytearray((voice / "t2s-1.safetensors").read_bytes())
    data[-1] ^= 1
    (voice / "t2s-1.safetensors").write_bytes(data)


def change_drafter(voice: Path) -> None:
    edit(voice, lambda config: config["drafters"]["eagle"].update({"dim": 64}))


def climb(voice: Path) -> None:
    edit(voice, lambda config: config["files"]["t2s"][0].update({"file": "../t2s-1.safetensors"}))


def pipe(voice: Path) -> None:
    (voice / "t2s-1.safetensors").unlink()
    os.mkfifo(voice / "t2s-1.safetensors")


def huge(voice: Path) -> None:
    with (voice / "t2s-1.safetensors").open("r+b") as file:
        file.truncate(2**33)  # sparse


def lose_shard(voice: Path) -> None:
    (voice / "centroids-1.safetensors").unlink()


HARM = [damage_config, cut_shard, change_shard, change_drafter, climb, pipe, huge, lose_shard]


@pytest.mark.parametrize("harm", HARM)
def test_a_hostile_voice_is_not_put_in_place(harm: Any, voice: Path, home: Path) -> None:
    harm(voice)
    with pytest.raises(BundleError) as caught:
        pull(Place.of(str(voice)))
    assert len(str(caught.value)) <= 300
    assert nothing_in(home)


@pytest.mark.parametrize("harm", [change_shard, lose_shard])
def test_what_was_there_stays(harm: Any, voice: Path, home: Path, original: Path, fake: FakeHub) -> None:
    pull(Place.of(str(original)))
    shutil.copytree(voice, fake.root / REPO)
    harm(fake.root / REPO)
    with pytest.raises(BundleError, match="installed already"):
        pull(Place.of(REPO))
    with pytest.raises(BundleError, match=r"checksum|it has no centroids"):
        pull(Place.of(REPO), force=True)
    assert tree(home / "tiny") == tree(original) and list(home.iterdir()) == [home / "tiny"]


def test_a_stop_in_the_middle_leaves_nothing(
    original: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "_swap", stopped)
    for call in (
        lambda: pull(Place.of(str(original))),
        lambda: push(open_voice(original), Place.of(str(tmp_path / "o"))),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert nothing_in(home) and not (tmp_path / "o").exists()


def test_force_puts_another_in_place_whole(voice: Path, home: Path, tmp_path: Path) -> None:
    pull(Place.of(str(voice)))
    (home / "tiny" / "mine.txt").write_text("old")
    edit(voice, lambda config: config.update(licence="MIT"))
    assert pull(Place.of(str(voice)), force=True).config.licence == "MIT"
    push(open_voice(voice), Place.of(str(tmp_path / "out")))
    with pytest.raises(BundleError, match="--force"):
        push(open_voice(voice), Place.of(str(tmp_path / "out")))
    push(open_voice(voice), Place.of(str(tmp_path / "out")), force=True)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is there already"):
        push(open_voice(voice), Place.of(str(tmp_path / "papers")), force=True)
    assert (tmp_path / "papers" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc/x", "", ".hidden", "-x", "a b", "x" * 97, "ü", "a\n"])
def test_names_that_are_paths_are_refused(name: str, original: Path, voice: Path, home: Path) -> None:
    with pytest.raises(ConfigError):
        pull(Place.of(str(original)), name)
    with pytest.raises(ConfigError):
        remove(name)
    if name:
        edit(voice, lambda config: config.update(name=name.strip() + "/.."))
        with pytest.raises(ConfigError):
            pull(Place.of(str(voice)))
    assert nothing_in(home)


@pytest.mark.parametrize("where", ["a", "a/b/c", "a/..", "a/b..c", "a b/c", "https://x.y/z", "", "-a/b", "a/b@c"])
def test_what_is_neither_a_folder_nor_of_the_hub(where: str) -> None:
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        Place.of(where)


def test_the_shipped_voice_stays(original: Path) -> None:
    with pytest.raises(BundleError, match="ships with the package"):
        remove(search.DEFAULT_VOICE)
    with pytest.raises(BundleError, match="ships with the package"):
        pull(Place.of(str(original)), search.DEFAULT_VOICE, force=True)
    assert open_voice().config.name == search.DEFAULT_VOICE


def test_remove_deletes_a_voice_and_nothing_else(original: Path, home: Path, tmp_path: Path) -> None:
    path = pull(Place.of(str(original)), "mine").path
    (path / "notes.txt").write_text("kept")
    assert remove("mine") == (path, ["notes.txt"]) and (path / "notes.txt").read_text() == "kept"
    with pytest.raises(BundleError, match="no voice 'mine' is installed"):
        remove("mine")
    (home / "papers").mkdir()
    (home / "papers" / "config.json").write_text('{"schema": "papers/1"}')
    with pytest.raises(BundleError, match="is not a voice"):
        remove("papers")
    elsewhere = Path(shutil.copytree(original, tmp_path / "elsewhere"))
    (home / "linked").symlink_to(elsewhere)
    with pytest.raises(BundleError, match="is a link"):
        remove("linked")
    assert (home / "papers" / "config.json").exists() and tree(elsewhere) == tree(original)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http_error(errors.RepositoryNotFoundError), "there is no someone/tiny on the hub, or it is private"),
        (http_error(errors.GatedRepoError), "accept its terms"),
        (http_error(errors.RevisionNotFoundError), "has no revision"),
        (http_error(errors.RemoteEntryNotFoundError), "it has no config.json"),
        (http_error(errors.HfHubHTTPError), "the hub refused someone/tiny: Not there"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached, and config.json"),
        (httpx.ConnectError("no route"), "cannot be reached for someone/tiny: no route"),
        (TimeoutError("timed out"), "cannot be reached"),
        (RuntimeError("client closed"), "cannot be reached"),
        (errors.HFValidationError("odd"), "cannot be reached for someone/tiny: odd"),
    ],
)
def test_one_clear_line_when_the_hub_does_not_give(
    error: Exception, said: str, fake: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.error = error
    assert main(["voices", "pull", REPO]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_offline_the_cache_serves(fake: FakeHub, original: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(open_voice(original), Place.of(REPO), public=True)
    assert fake.private == {REPO: False}
    pull(Place.of(REPO))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull(Place.of(REPO), "again").path == home / "again"
    with pytest.raises(BundleError, match="HF_HUB_OFFLINE is set"):
        pull(Place.of("someone/else"))


def test_the_real_library_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not the fake: what huggingface_hub itself raises without a cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BundleError, match="HF_HUB_OFFLINE is set, and config"):
        look(Place.of(REPO))


def test_the_model_card(original: Path) -> None:
    import yaml

    config = open_voice(original).config
    _, head, body = model_card(config, REPO).split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields == {
        "library_name": "spear_spec",
        "license": "cc0-1.0",
        "language": ["en"],
        "pipeline_tag": "text-to-speech",
        "tags": ["text-to-speech", "spear-tts", "speculative-decoding"],
    }
    assert "random weights, for tests" in body and "spear-spec voices pull someone/tiny" in body
    huggingface_hub.ModelCardData(**fields)


def test_a_card_says_what_a_strangers_text_says_and_nothing_more(voice: Path) -> None:
    import yaml

    evil = "My own: *licence* <script>x</script> | [a](b)"
    edit(voice, lambda config: config.update(licence=evil, name="# big", origin="---"))
    _, head, body = model_card(open_voice(voice).config).split("---\n", 2)
    fields = yaml.safe_load(head)
    assert (fields["license"], fields["license_name"]) == ("other", "my-own-licence-script-x-script-a-b")
    assert "<script>" not in body and r"\*licence\*" in body and r"\[a\](b)" in body and r"# \# big" in body


def test_the_command(
    fake: FakeHub, original: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str) -> tuple[dict[str, Any], str]:
        assert main(["voices", *args]) == 0
        out, err = capsys.readouterr()
        result = json.loads(out.splitlines()[-1])
        check(result, "voices/1")
        return result, err

    result, err = run("push", str(original), REPO, "--json")
    assert result["action"] == "push" and "licence: CC0-1.0" in err and "private" in err
    result, err = run("show", REPO, "--json")
    assert result["voices"][0]["licence"] == "CC0-1.0" and not home.exists()
    assert result["voices"][0]["bytes"] == sum(result["voices"][0]["parts"].values())
    assert "eagle" in result["voices"][0]["drafters"]
    result, err = run("pull", REPO, "--as", "mine", "--json")
    assert err.index("licence: CC0-1.0") < err.index("is in") and result["voices"][0]["name"] == "mine"
    names = [entry["name"] for entry in run("--json")[0]["voices"]]
    assert names == [entry["name"] for entry in run("list", "--json")[0]["voices"]] and "mine" in names
    assert main(["voices", "show", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "licence     CC0-1.0" in shown and "origin      random weights, for tests" in shown
    result, err = run("remove", "mine", "--json")
    assert result == {"schema": "voices/1", "voices": [], "action": "remove"} and nothing_in(home)
    for wrong in (["remove"], ["pull"], ["fetch"], ["remove", "kokoro-duo"], ["show", "nobody"]):
        assert main(["voices", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
