"""Models: input layers and upper layers, teacher, student, and their checkpoints.

The modules import torch; this one does not.
"""
