"""Graphs: events, snapshots and sensors to batches, their simple rules, scores and forecasts."""
