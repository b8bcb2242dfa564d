"""The edge: Prefect flows over `embedding` and `search`, and the command line `covers`.

Importing this package imports no Prefect, so that `covers similar` answers at once.
"""

import logging
import os

# Read by Prefect when it is first imported. A temporary server can need more than Prefect's own
# 20 seconds to start on a busy machine, and a catalogue's runs are nobody else's business.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

# What these tell belongs to a run's log; outside of a run, to nobody's.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "embedding,flows,search")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
for _name in ("embedding", "flows", "search"):
    logging.getLogger(_name).setLevel(logging.INFO)

#: Failures whose message is a sentence for the user. Others are faults of ours, with a traceback.
KNOWN_FAILURES = (ValueError, LookupError, OSError, RuntimeError)


def sentence_of(error: BaseException) -> str:
    """Return what a known failure says; the system's own errors are worded here."""
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} cannot be used ({error.strerror}): correct the path, or name "
            "another workspace with --home or COVERS_HOME if it is in the workspace."
        )
    return str(error)


# Servers on this machine are reached without the proxy of the environment.
_exceptions = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [_exceptions, "localhost,127.0.0.1,::1"]))
