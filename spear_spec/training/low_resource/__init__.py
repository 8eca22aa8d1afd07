"""Reading learnt from minutes of parallel speech, as SPEAR-TTS does (arXiv 2302.03540)."""
