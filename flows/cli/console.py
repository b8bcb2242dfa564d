"""Prefect's console log without tracebacks, which stay in the log that Prefect keeps of a run."""

import copy
import logging

from prefect.logging.handlers import PrefectConsoleHandler

from flows.cli.printing import visible


class ConsoleHandler(PrefectConsoleHandler):
    """Chosen by `flows.cli.running` through Prefect's settings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message as it is, although Prefect's own handler replaces codes of emoji."""
        try:
            self.console.print(self.format(record), soft_wrap=True, emoji=False)
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format the message without its traceback."""
        short = copy.copy(record)
        short.exc_info = short.exc_text = None
        return "\n".join(map(visible, super().format(short).split("\n")))
