"""Packed folders as others get them: what of a folder goes to the Hub, its model card, and the way.

The card says what the folder was made of, under which licence, in which number formats, what its
plans cost, and how to run it.
"""
