"""Serve the API by uvicorn."""

import uvicorn

from goqueue import settings
from goqueue.settings import ApiSettings


def serve() -> None:
    """Run until SIGTERM or SIGINT; requests in flight are finished.

    Raises:
        SettingsError: a setting is wrong.
    """
    api = settings.load(ApiSettings)
    uvicorn.run(
        "goqueue_api.app:from_environment",
        factory=True,
        host=api.host,
        port=api.port,
        workers=api.processes if api.processes > 1 else None,
        loop="uvloop",
        http="httptools",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=int(api.request_timeout) + 1,
        timeout_keep_alive=65,
        h11_max_incomplete_event_size=64 * 1024,
    )
