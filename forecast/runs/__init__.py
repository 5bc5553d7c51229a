"""Runs: trainings, backtests and tunings from a recipe to tracked, registered artefacts."""
