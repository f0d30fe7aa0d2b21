"""Runs to look at: one page, or a widget, with maps, texts, curves and costs. Its front end is in `frontend/`."""
