"""A run, and the code, for people: tables, pictures, decoded examples, reference pages."""
