"""Using a finished student: what it predicts for texts, and for files of them."""
