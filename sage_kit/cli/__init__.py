"""The command line. `app` puts the commands together and turns errors into lines; nothing else imports it."""

from __future__ import annotations

from sage_kit.cli.app import app, main

__all__ = ["app", "main"]
