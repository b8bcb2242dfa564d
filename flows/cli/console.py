"""What a command shows of Prefect's log; Prefect keeps the whole log of a run."""

import logging
from datetime import datetime
from pathlib import Path

import prefect
from prefect.logging.handlers import PrefectConsoleHandler

from flows.cli.printing import visible

#: Prefect's own code, and the modules in it that log how a run or the process ends.
PREFECT, ENDINGS = Path(prefect.__file__).parent, ("flow_engine", "task_engine", "services")


class ConsoleHandler(PrefectConsoleHandler):
    """Shows what our modules say, and of Prefect's messages its warnings and retries.

    How the run ends is for the command to say, in its last line. `flows.cli.running` chooses this
    handler through Prefect's settings.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        if not Path(record.pathname).is_relative_to(PREFECT):
            return super().filter(record)
        if record.module in ENDINGS:
            return "Retry" in record.msg
        return record.levelno >= logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message as it is, although Prefect's own handler replaces codes of emoji."""
        try:
            self.console.print(self.format(record), soft_wrap=True, emoji=False)
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the time and the message, without the traceback; warnings say that they are."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{time} {kind}" + "\n".join(map(visible, record.getMessage().split("\n")))
