"""Autoregressive and speculative decoding."""

from spear_spec.decoding.autoregressive import generate
from spear_spec.decoding.chance import Chance, GeneratorChance
from spear_spec.decoding.decode import check, decode, is_lossless
from spear_spec.decoding.drafters import DRAFTERS, LATER_DRAFTERS, make_drafter
from spear_spec.decoding.proposal import DecodeStats, Proposal, Verdict
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.session import Session
from spear_spec.decoding.speculative import speculate
from spear_spec.decoding.verifiers import LATER_VERIFIERS, VERIFIERS, make_verifier

__all__ = [
    "DRAFTERS", "LATER_DRAFTERS", "LATER_VERIFIERS", "VERIFIERS", "Chance", "DecodeStats", "GeneratorChance", "Proposal", "Session",
    "Verdict", "check", "decode", "generate", "is_lossless", "make_drafter", "make_verifier", "probabilities", "speculate",
]
