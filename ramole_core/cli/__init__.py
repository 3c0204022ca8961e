"""The command line, `python -m ramole_core`: its commands, and the examination by `doctor`."""

from ramole_core.cli.command_line import app as app, main as main
