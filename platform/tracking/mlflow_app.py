"""MLflow's server as `spikeseg ui` starts it: MLflow's Assistant stays closed until asked for.

MLflow 3.17 opens that panel by itself on a browser's first visit to a loopback address, over a
third of the window, and has no setting against it. Its page says here that the visit was made
before. Found by `mlflow server --app-name spikeseg` (MLflow's plugins, group `mlflow.app`).
"""

from pathlib import Path

from mlflow.server import app as _pages
from mlflow.server.fastapi_app import app

__all__ = ["app"]

_OPENED = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"


def write_page() -> str:
    """MLflow's page, with the note that the Assistant was opened before."""
    page = (Path(_pages.static_folder or "") / "index.html").read_text()
    return page.replace(
        "<head>", f'<head><script>localStorage.setItem("{_OPENED}", "true")</script>', 1
    )


_pages.view_functions["serve"] = write_page
