"""Speculation without loss: tokens that are guessed, read in one pass, and kept where right."""
