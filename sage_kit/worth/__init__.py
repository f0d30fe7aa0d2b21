"""Whether distilling pays on a labelled file: a teacher, students of several sizes, and what else would do."""
