"""From prepared data to a trained student: preparation, losses, steps, warm-up."""
