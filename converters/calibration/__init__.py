"""Calibration: text through the dense model, statistics and gradients of what it computes."""
