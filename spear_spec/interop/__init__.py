"""Other packages' checkpoints, read and written."""

from spear_spec.interop.audiolm import load_audiolm_coarse, load_audiolm_fine
from spear_spec.interop.soundstream import load_soundstream
from spear_spec.interop.spear_tts import config_from_state_dict, load_spear_tts, to_spear_tts_state_dict
from spear_spec.interop.whisperspeech import load_whisperspeech

__all__ = [
    "config_from_state_dict",
    "load_audiolm_coarse",
    "load_audiolm_fine",
    "load_soundstream",
    "load_spear_tts",
    "load_whisperspeech",
    "to_spear_tts_state_dict",
]
