"""Checks within seconds whether W&B's service can be used, before anything relies on it."""

from __future__ import annotations

import os
import threading
from typing import Any

SECONDS_TO_ANSWER = 8.0

_WORDS = {
    "SSLError": "no secure connection to it; does this machine know its certificate?",
    "ProxyError": "the proxy does not let it through",
    "ConnectTimeout": "no answer",
    "ReadTimeout": "no answer",
}


def service_url() -> str:
    """Where W&B's service is, as wandb's own settings say (WANDB_BASE_URL, wandb login --host)."""
    import wandb

    return str(wandb.setup(settings=wandb.Settings(silent=True)).settings.base_url)


def why_unreachable(url: str, seconds: float = SECONDS_TO_ANSWER) -> str | None:
    """Why the service cannot be used with this user's key, in a few words; None if it can.

    wandb's own start waits and tries again for a minute and a half, and a start that failed leaves its run "in use".
    """
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_ask(url, seconds)), daemon=True)  # a name may take for ever
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"no answer within {seconds:.0f} seconds"


def forget_failed_start() -> None:
    """Ends wandb's background process, which would keep a run whose start failed "in use"."""
    import wandb

    wandb.teardown()


def _ask(url: str, seconds: float) -> str | None:
    import requests

    key = os.environ.get("WANDB_API_KEY")  # without it requests takes what netrc has for this host, as wandb does
    query = {"query": "query Viewer { viewer { id } }"}
    try:
        answer = requests.post(f"{url}/graphql", json=query, auth=("api", key) if key else None, timeout=seconds)
    except requests.RequestException as error:
        return _in_words(error)
    if answer.status_code in (401, 403):
        return f"it does not accept the API key (status {answer.status_code})"
    if answer.status_code != 200:
        return f"it answers with status {answer.status_code}"
    try:
        content: Any = answer.json()
        return None if content["data"]["viewer"] else "it does not know the API key"
    except (ValueError, LookupError, TypeError):
        return "what answers there is not W&B"


def _in_words(error: Exception) -> str:
    """Returns the cause of an error, without the exceptions that wrap it."""
    name, text = type(error).__name__, str(error)
    if name in _WORDS:
        return _WORDS[name]
    if "resol" in text.lower() or "name or service" in text.lower():
        return "its name is not known here"
    return "connection refused" if "refused" in text else "the connection was cut"
