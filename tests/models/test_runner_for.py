"""When a draft's runner is made again, how long it lives, and that threads may share it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.kernels import native
from spear_spec.models.drafts import runner as runners
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.runner import DraftRunner, runner_for
from spear_spec.models.seen import Seen
from spear_spec.models.spear_tts import TextToSemantic

DIM = 16


def parts() -> tuple[DraftDecoder, TextToSemantic]:
    cfg = T2SConfig(
        num_text_token_ids=7,
        num_semantic_token_ids=30,
        dim=DIM,
        source_depth=1,
        target_depth=2,
        heads=2,
        dim_head=8,
    )
    draft = DraftDecoder(DraftConfig(dim=DIM, depth=2, heads=2, dim_head=8, target_layers=(1, 2)), cfg)
    return draft.eval(), TextToSemantic(cfg).eval()


def says(draft: DraftDecoder, model: TextToSemantic, runner: DraftRunner) -> Tensor:
    """Logits after three tokens."""
    with torch.inference_mode():
        state = draft.start(model.encode(torch.tensor([[3, 1, 4]])))
        features = torch.randn(1, 3, DIM, generator=torch.Generator().manual_seed(1))
        return runner.logits(runner.step(torch.tensor([[30, 2, 3]]), features, state)[:, -1])


def zero_(weight: Tensor) -> None:
    weight.zero_()


def test_nothing_keeps_a_voice_alive() -> None:
    """Neither the draft, nor the target, nor the runner and its copies of the weights."""
    gc.collect()
    before = len(runners._RUNNERS)
    for _ in range(3):
        draft, model = parts()
        runner = runner_for(draft, model)
        assert runner.native is not None, native.reason()
        says(draft, model, runner)
        gone = [weakref.ref(x) for x in (draft, model, runner, runner.native, runner.table)]
        assert len(runners._RUNNERS) == before + 1
        del draft, model, runner
        gc.collect()
        assert [ref() for ref in gone] == [None] * 5
    assert len(runners._RUNNERS) == before


def test_a_target_may_go_before_its_draft() -> None:
    draft, model = parts()
    runner_for(draft, model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def replaced_by_module(draft: DraftDecoder, model: TextToSemantic) -> None:
    draft.layers[0].ff.up = nn.Linear(DIM, draft.layers[0].ff.up.out_features)  # type: ignore[union-attr]


def replaced_by_parameter(draft: DraftDecoder, model: TextToSemantic) -> None:
    draft.enter.weight = nn.Parameter(torch.randn_like(draft.enter.weight))


CHANGES: dict[str, Callable[[DraftDecoder, TextToSemantic], object]] = {
    "gain": lambda draft, model: zero_(draft.layers[1].ff.norm.gamma),  # type: ignore[union-attr]
    "bias": lambda draft, model: draft.layers[0].ff.down.bias.add_(1),  # type: ignore[union-attr]
    "other bias": lambda draft, model: draft.layers[1].ff.up.bias.add_(1),  # type: ignore[union-attr]
    "embedding": lambda draft, model: model.semantic_emb.weight.mul_(2),
    "start": lambda draft, model: model.start.add_(1),
    "one entry": lambda draft, model: draft.layers[0].self_attn.to_out.weight[0, 0].add_(9),  # type: ignore[union-attr]
    "loaded": lambda draft, model: draft.load_state_dict({k: v + 0.1 for k, v in draft.state_dict().items()}),
    "module": replaced_by_module,
    "parameter": replaced_by_parameter,
}


@pytest.mark.parametrize("inference", [False, True], ids=["weights", "weights made in inference mode"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_makes_another_runner(change: str, inference: bool) -> None:
    """One that says what a new runner says; the old one goes on with what it had."""
    with torch.inference_mode(inference):
        draft, model = parts()
        assert draft.enter.weight.is_inference() == inference
        first = runner_for(draft, model)
        said = says(draft, model, first)
        assert runner_for(draft, model) is first
        with torch.no_grad():
            CHANGES[change](draft, model)
        second = runner_for(draft, model)
        assert second is not first
        assert torch.equal(says(draft, model, second), says(draft, model, DraftRunner(draft, model)))
        if change not in ("embedding", "loaded"):  # from these follows more than the runner: the text's keys
            assert torch.equal(says(draft, model, first), said)
        assert runner_for(draft, model) is second


def test_weights_of_both_kinds_speak_in_and_out_of_inference_mode() -> None:
    """A voice loaded inside inference mode, spoken outside, and the other way round."""
    said = []
    for making in (False, True):
        torch.manual_seed(3)
        with torch.inference_mode(making):
            draft, model = parts()
        for speaking in (False, True):
            with torch.inference_mode(speaking):
                said.append(says(draft, model, runner_for(draft, model)))
    assert all(torch.equal(x, said[0]) for x in said)


def test_an_address_that_is_used_again_is_not_the_same_weight() -> None:
    """A weight that is gone before its successor is made would leave it its place, and both have version 0."""
    size = 9_000_000  # so large that the allocator gives it back, and the next one gets its address
    for _ in range(3):
        weight = torch.zeros(size)
        seen = Seen.of(weight)
        assert seen.still(weight)
        del weight
        assert not seen.still(torch.ones(size))


def test_moved_weights_are_seen() -> None:
    draft, model = parts()
    assert runner_for(draft, model).table.dtype == torch.float32
    assert runner_for(draft.double(), model.double()).table.dtype == torch.float64
    assert runner_for(draft.float(), model.float()).table.dtype == torch.float32


@pytest.mark.parametrize("switch", ["1", "0"], ids=["native", "torch"])
def test_threads_share_a_draft_without_noticing(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six at once, each with its own utterance, some so long that the table of rotations grows under the others."""
    monkeypatch.setenv(native.SWITCH, switch)
    draft, model = parts()
    workers, turns = 6, 40
    memory = model.encode(torch.tensor([[3, 1, 4]]))
    together = Barrier(workers)

    def speak(worker: int, alone: bool) -> list[Tensor]:
        said = []
        if not alone:
            together.wait()
        with torch.inference_mode():
            runner = runner_for(draft, model)
            for turn in range(turns):
                generator = torch.Generator().manual_seed(100 * worker + turn)
                state = draft.start(memory, 4)
                state.cache.lengths = [(worker + turn) % 4 * 700]
                state.cache.reserve(state.cache.longest + 12)
                features = torch.randn(1, 3, DIM, generator=generator)
                hidden = runner.step(torch.tensor([[1, 2, 3]]), features, state)
                said.append(runner.logits(hidden[:, -1]))
                if switch == "1":
                    uniforms = [native.uniforms(worker, 0, 6)]
                    drawn, laws = runner.chain(hidden[:, -1:], [6], uniforms, SamplingConfig(), 30, state)
                    assert laws is not None
                    said += [laws, torch.tensor(drawn)]
        return said

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda worker: speak(worker, False), range(workers)))
    for worker, said in enumerate(found):
        for one, two in zip(said, speak(worker, True), strict=True):
            assert torch.equal(one, two)
