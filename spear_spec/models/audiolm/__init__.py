"""The transformers of audiolm-pytorch that write sound: coarse tokens behind semantic ones, fine ones behind coarse."""
