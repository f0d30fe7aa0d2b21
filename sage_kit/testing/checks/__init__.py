"""The checks, by kind of component; `sage_kit.testing.runner` knows their order."""
