"""Which weights learn in which step (SPEAR-TTS, arXiv 2302.03540, sections 3.1 and 3.2).

*Reading* (text to semantic tokens): the text embedding and the lower encoder layers learn; the upper encoder layers and
the decoder stay as pretraining left them. The paper's section on pretraining lets the decoder's cross-attention learn
too, its section on training says that the entire decoder is frozen: `cross_attention` chooses.
*Back-translation* (semantic tokens to text): the decoder alone learns, its table of phonemes included.
"""

from __future__ import annotations

from torch import nn

from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.t2s.trainee import Trainee


def reading(model: TextToSemantic, lower: int, cross_attention: bool) -> set[str]:
    """Names of the parameters of the model that learn to read: text embedding, the first `lower` encoder layers and,
    with `cross_attention`, that part of each decoder layer.

    Raises:
        ConfigError: there are not so many encoder layers.
    """
    if not 0 <= lower <= len(model.encoder):
        raise ConfigError(f"lower must be 0 to {len(model.encoder)} (the encoder's layers), not {lower}")
    inside = ["text_emb.", *(f"encoder.{i}." for i in range(lower))]
    if cross_attention:
        inside += [f"decoder.{i}.cross_attn." for i in range(len(model.decoder))]
    return {name for name, _ in model.named_parameters() if name.startswith(tuple(inside))}


def writing(model: TextToSemantic) -> set[str]:
    """Names of the parameters of the model that learn to write text: all of the decoder, and its tied table."""
    inside = ("decoder.", "decoder_norm.", "semantic_emb.", "start")
    return {name for name, _ in model.named_parameters() if name.startswith(inside)}


def freeze(trainee: Trainee, learn: set[str], helpers: bool) -> None:
    """Let these parameters of the model learn and no others; helpers: whether the trainer's own (history vector,
    auxiliary head) do.
    """
    for name, parameter in trainee.model.named_parameters():
        parameter.requires_grad_(name in learn)
    for parameter in (trainee.history, *trainee.auxiliary.parameters()):
        parameter.requires_grad_(helpers)


def learning(module: nn.Module) -> set[str]:
    """Names of the parameters that learn."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}
