"""Prefect's console log without tracebacks, which stay in the log that Prefect keeps of a run."""

import copy
import logging

from prefect.logging.handlers import PrefectConsoleHandler


class ConsoleHandler(PrefectConsoleHandler):
    """Chosen by `flows.cli.running` through Prefect's settings."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the message without its traceback."""
        short = copy.copy(record)
        short.exc_info = short.exc_text = None
        return super().format(short)
