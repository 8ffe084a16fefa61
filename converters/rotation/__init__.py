"""Rotation (LaRoSA, arXiv 2507.01299): the residual stream in a basis of its principal components.

`bases` finds the orthogonal matrices, `rotated` folds them into the weights of a source.
"""
