"""MLflow's server as `spikeseg ui` starts it: on model training, with the Assistant closed.

On a browser's first visit to a loopback address MLflow 3.17 opens its Assistant over a third of the
window, and shows traces and prompts until *Model training* is chosen, also after a click on a run
of a page that was opened in that mode. No setting of the server changes either; both are kept in
the browser, where this page puts them once. Found by `mlflow server --app-name spikeseg`
(MLflow's plugins, group `mlflow.app`).
"""

from pathlib import Path

from mlflow.server import app as _pages
from mlflow.server.fastapi_app import app

__all__ = ["app"]

_KEPT = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.workflowType_v1": '"machine_learning"',
}


def write_page() -> str:
    """MLflow's page; what a browser has chosen before stays as it is."""
    page = (Path(_pages.static_folder or "") / "index.html").read_text()
    kept = "".join(
        f"if (localStorage.getItem('{key}') === null) localStorage.setItem('{key}', '{value}');"
        for key, value in _KEPT.items()
    )
    return page.replace("<head>", f"<head><script>{kept}</script>", 1)


_pages.view_functions["serve"] = write_page
