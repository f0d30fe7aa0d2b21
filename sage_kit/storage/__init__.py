"""Files on disk that are whole or not there, and keys by which computed things are found again."""
