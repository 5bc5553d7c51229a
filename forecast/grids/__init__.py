"""Grids: gridded files to windows of frames, their simple rules, scores and forecasts."""
