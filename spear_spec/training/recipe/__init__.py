"""Stages of a recipe, each run once."""
