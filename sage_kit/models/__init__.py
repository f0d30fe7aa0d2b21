"""Models: front end and trunk, teacher, student, and their checkpoints. The modules import torch; this one does not."""
