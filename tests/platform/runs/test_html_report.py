"""The offline page over runs: its numbers are MLflow's, and it needs nothing from elsewhere."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from trained_run import TrainedRun

from spikeseg.platform.runs import html_report as report
from spikeseg.platform.runs.html_report import write_report
from spikeseg.platform.tracking.run_reader import read_run
from spikeseg.platform.tracking.tracking_uri import tracking_uri


class Tables(HTMLParser):
    """Cells of every table, their titles, and every address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.exact: dict[str, float] = {}
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            title = dict(attrs).get("title")
            if title is not None:
                # A unit stands behind a metric's name.
                self.exact[self.rows[-1][0].partition(" (")[0]] = float(title)
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("report") / "report.html"
    return write_report([trained.run_id], storage=trained.storage, output=output).read_text()


def parsed(page: str) -> Tables:
    parser = Tables()
    parser.feed(page)
    return parser


def test_every_number_is_the_one_that_mlflow_holds(page: str, trained: TrainedRun) -> None:
    exact = parsed(page).exact
    metrics = trained.client.get_run(trained.run_id).data.metrics
    wanted = {name: value for name, value in metrics.items() if not name.startswith("system/")}
    assert wanted
    assert {name: exact[name] for name in wanted} == wanted


def test_the_page_begins_with_a_verdict_where_runs_have_folders(
    trained: TrainedRun, tmp_path: Path
) -> None:
    output = tmp_path / "report.html"
    words = [trained.folder.name]
    text = write_report(
        [trained.run_id], storage=trained.storage, output=output, words=words
    ).read_text()
    assert "cannot be told from one seed" in text
    assert text.index('class="verdict"') < text.index("<h2>Scores</h2>")


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    found = parsed(page)
    assert found.loaded
    assert all(address.startswith("data:image/png;base64,") for address in found.loaded)
    assert "script" not in found.tags
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_the_page_shows_curves_pictures_tables_and_provenance(
    page: str, trained: TrainedRun
) -> None:
    found = parsed(page)
    # Curves, contact sheet, confusion matrix, firing heat map, energy of layers.
    assert found.tags.count("img") == 5
    assert "spikeseg train shapes_tiny" in page
    tags = trained.client.get_run(trained.run_id).data.tags
    for name in ("config_digest", "data_digest", "code_digest", "seed"):
        assert [name, tags[name]] in found.rows
    assert ["class", "IoU", "Acc"] in found.rows
    assert re.search(r"&#34;torch&#34;: &#34;2\.", page)


def test_names_from_outside_cannot_become_markup(trained: TrainedRun, tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"><img src=http://127.0.0.1/x>'
    before = trained.client.get_run(trained.run_id).info.run_name
    trained.client.set_tag(trained.run_id, "mlflow.runName", evil)
    try:
        output = tmp_path / "report.html"
        text = write_report([trained.run_id], storage=trained.storage, output=output).read_text()
    finally:
        trained.client.set_tag(trained.run_id, "mlflow.runName", before or "")
    assert "script" not in parsed(text).tags
    assert all(address.startswith("data:") for address in parsed(text).loaded)


def test_pictures_that_somebody_else_put_there_are_no_obstacle(
    trained: TrainedRun, tmp_path: Path, page: str
) -> None:
    for name in ("00000120.png", "mine+step+.png", "zz+step+999.png"):
        (tmp_path / name).write_bytes(b"no picture of ours")
        trained.client.log_artifact(trained.run_id, str(tmp_path / name), "images")
    output = tmp_path / "report.html"
    text = write_report([trained.run_id], storage=trained.storage, output=output).read_text()
    assert parsed(text).loaded == parsed(page).loaded


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "0" * 31, "x' or 1=1"])
def test_an_id_that_is_none_is_refused_before_anything_is_written(
    trained: TrainedRun, tmp_path: Path, run_id: str
) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        write_report([run_id], storage=trained.storage, output=tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there_is_named(trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"run {'0' * 32}: not known at sqlite"):
        write_report(["0" * 32], storage=trained.storage, output=tmp_path / "report.html")


def test_a_storage_without_a_database_gets_none(trained: TrainedRun, tmp_path: Path) -> None:
    storage = tmp_path / "typo"
    with pytest.raises(ValueError, match="not known, there is no database at sqlite"):
        write_report([trained.run_id], storage=storage, output=tmp_path / "report.html")
    assert not storage.exists()


def test_a_dead_server_is_one_sentence(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter2@127.0.0.1:9")
    with pytest.raises(RuntimeError, match=r"MLflow at http://127\.0\.0\.1:9 is out of reach"):
        write_report([trained.run_id], storage=tmp_path, output=tmp_path / "report.html")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1.7976931348623157e308, 1e200])
def test_names_and_values_that_no_axis_shows_leave_the_rest_drawn(
    trained: TrainedRun, value: float
) -> None:
    run = read_run(tracking_uri(trained.storage), trained.run_id)
    (first, *_), *_ = run.series.values()
    series = {**run.series, "x/$y_{": [(1, -value), (2, value), first], "x/z": [(1, value)]}
    other = dataclasses.replace(run, name=r"$\frac$ x", series=series)
    page = report.render_report([run, other])
    assert r"$\frac$ x" in page
    assert f'<td>x/z</td><td></td><td class="number" title="{value!r}">' in page


def test_a_table_that_is_damaged_is_named_and_the_rest_is_there(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = read_run(tracking_uri(trained.storage), trained.run_id)
    broken = max(path for path in run.artifacts if path.startswith("tables/val_classes/"))
    read = type(run).read
    damaged = {broken: b"{'a'", "tables/test_classes.json": b"\xff"}
    monkeypatch.setattr(type(run), "read", lambda run, path: damaged.get(path) or read(run, path))
    page = report.render_report([run])
    for path in damaged:
        assert f"<code>{path}</code> is no table: " in page
        assert f"run {run.run_id} ({run.name}): {path}: no table" in caplog.text
    assert "<summary>tables/layers" in page and "<summary>Provenance" in page


def test_two_runs_of_one_name_keep_a_curve_each(trained: TrainedRun) -> None:
    run = read_run(tracking_uri(trained.storage), trained.run_id)
    other = dataclasses.replace(run, run_id="f" * 32)
    names = [item.name for item in report._with_unique_names([run, other])]
    assert names == [f"{run.name} ({run.run_id[:8]})", f"{run.name} (ffffffff)"]
    assert [item.name for item in report._with_unique_names([run])] == [run.name]


def test_a_table_that_is_none_of_ours_is_left_out(trained: TrainedRun) -> None:
    class Foreign:
        """A client of a run that holds a table of somebody else."""

        def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
            (Path(folder) / "table.json").write_text("[1, 2]")
            return str(Path(folder) / "table.json")

    run = read_run(tracking_uri(trained.storage), trained.run_id)
    foreign = dataclasses.replace(run, artifacts=["tables/val_classes/0.json"], _client=Foreign())
    assert list(report._read_tables(foreign)) == []
