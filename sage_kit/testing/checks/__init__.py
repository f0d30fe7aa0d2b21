"""The checks, by kind of component; `sage_kit.testing.run_checks` knows their order."""
