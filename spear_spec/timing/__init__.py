"""When words are heard: times from the transformer's attention (`timeline.py`), and files of them (`subtitles.py`)."""
