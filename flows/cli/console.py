"""Prefect's console log without tracebacks: a person at a terminal gets the sentence.

The traceback is in the log that Prefect keeps of the run.
"""

import copy
import logging

from prefect.logging.handlers import PrefectConsoleHandler


class ConsoleHandler(PrefectConsoleHandler):
    """Prefect's own, chosen through its logging configuration (see `flows.cli`)."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the message alone."""
        short = copy.copy(record)
        short.exc_info = short.exc_text = None
        return super().format(short)
