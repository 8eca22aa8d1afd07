"""Autoregressive and speculative decoding."""

from spear_spec.decoding.chance import Chance, Uniforms
from spear_spec.decoding.decode import Parts, check, complete, decode, is_lossless, make, register
from spear_spec.decoding.drafters import DRAFTERS, STOPS, make_drafter, needs
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.kinds import DrafterKind, Trained, TreeKind, VerifierKind
from spear_spec.decoding.loop import generate, speculate
from spear_spec.decoding.proposal import DecodeStats, Proposal, Verdict
from spear_spec.decoding.request import Request
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier
from spear_spec.decoding.verifiers.base import Verifier

__all__ = [
    "DRAFTERS",
    "STOPS",
    "VERIFIERS",
    "Chance",
    "DecodeStats",
    "Drafter",
    "DrafterKind",
    "Parts",
    "Proposal",
    "Request",
    "Session",
    "Trained",
    "TreeKind",
    "Uniforms",
    "Verdict",
    "Verifier",
    "VerifierKind",
    "check",
    "complete",
    "decode",
    "generate",
    "is_lossless",
    "make",
    "make_drafter",
    "make_verifier",
    "needs",
    "probabilities",
    "register",
    "speculate",
]
