"""Bulk synthesis: many lines into a folder, by several processes or a Ray cluster, resumable, each line exactly once.

lines.py what is asked for; settings.py with what; shards.py how it is cut; choir.py many lines through one engine;
worker.py one shard; folder.py what stands on disk, whole or not at all; run.py who does what, and what happens when a
worker dies; processes.py and on_ray.py where the workers are.
"""
