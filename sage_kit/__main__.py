"""`python -m sage_kit` is `sage-kit`."""

from sage_kit.cli import main

main()
