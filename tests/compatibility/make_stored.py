"""Make the stored examples of the version at hand: data, a killed training, a killed sweep.

    python tests/compatibility/make_stored.py VERSION

writes `stored/VERSION` beside this file. Everything is made below /srv/spikeseg, from a copy of the
last commit, since records name folders; what names the machine is replaced.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

_SRV = Path("/srv/spikeseg")
_PACK = ("shapes", "--size", "32", "32", "--rows", "6", "3", "2", "--seed", "3")
_EXPERIMENT = (
    "name=stored",
    "data.path=/srv/spikeseg/data",
    "data.transform.crop=[32, 32]",
    "model.backbone.embed_dims=[4, 4, 4, 4]",
    "model.backbone.depths=[1, 1]",
    "model.backbone.num_heads=1",
    "model.backbone.mlp_ratio=1",
    "model.decoder=fpn",
    "model.fpn.width=4",
    "model.query={width: 4, num_queries: 4, num_heads: 1, num_groups: 1, num_encoder_layers: 1, "
    "encoder_hidden: 4, num_decoder_layers: 1, decoder_hidden: 4, alpha: null}",
    "loss={mask_resolution: prediction, semantic_weight: 20.0, class_balance: 1.0}",
    "optimizer={lr: 3e-2, weight_decay: 0.005, warmup_steps: 2}",
    "trainer.workers=0",
    "trainer.micro_batch_size=2",
    "trainer.max_steps=44",
    "trainer.evaluate_every=40",
    "trainer.keep_checkpoints=1",
    "trainer.log_every=1",
    "trainer.energy_images=2",
    "trainer.ema_decay=0.8",
    "trainer.ledger=true",
    "tracking.experiment=stored",
    "tracking.images=1",
)
_SWEEP = """\
# Short trials of the published decoder; the training has the FPN head.
name: stored
base: recipe.yaml
overrides:
  - model.decoder=query
  - model.backbone.depths=[1, 0]
  - trainer.micro_batches=1
  - trainer.max_steps=4
  - trainer.evaluate_every=2
  - trainer.ema_decay=null
  - trainer.test=false
  - tracking.images=0
trials: 2
objectives:
  - {metric: val/mIoU, direction: maximize}
  - {metric: energy/mJ, direction: minimize}
sampler: {name: tpe, seed: 1}
space:
  model.neuron.levels: {choices: [1, 2, 4]}
  loss.mask_weight: {low: 5.0, high: 40.0, log: true}
first:
  - {model.neuron.levels: 4, loss.mask_weight: 20.0}
"""


def main(version: str) -> None:
    """Make everything below /srv/spikeseg, then keep what is read back."""
    shutil.rmtree(_SRV, ignore_errors=True)
    _copy_code()
    _run("data", "pack", *_PACK, "--output", "data")
    (_SRV / "recipe.yaml").write_text(_run("config", "show", "shapes_tiny", *_EXPERIMENT))
    (_SRV / "sweep.yaml").write_text(_SWEEP)
    tracker = f"sqlite:///{_SRV}/mlflow.db"
    _run("train", "recipe.yaml", "--storage", "undisturbed", MLFLOW_TRACKING_URI=tracker)
    _kill(
        ("train", "recipe.yaml", "--storage", "storage"),
        lambda: any(_SRV.glob("storage/stored-*/checkpoints.begun")),
    )
    searched = ("sweep", "sweep.yaml", "--here", "--storage", "storage")
    _run(*searched)
    (sweep,) = _SRV.glob("storage/sweep-stored-*")
    resumed = (*searched, "--resume", sweep.name, "--trials", "3")
    _kill(resumed, lambda: _is_under_way(sweep, 2))
    _run(*searched, "sweep.name=in_a_journal", "--trials", "1", SPIKESEG_STUDY="storage/study.log")
    expected = _expected()
    _trim()
    (_SRV / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    target = Path(__file__).parent / "stored" / version
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("data", "recipe.yaml", "sweep.yaml", "storage", "predicted.png", "expected.json"):
        shutil.move(_SRV / name, target / name)
    shutil.rmtree(_SRV)


def _copy_code() -> None:
    """The last commit without its history, so that no record names a commit or a checkout."""
    code = _SRV / "code" / "spikeseg"
    code.mkdir(parents=True)
    root = Path(__file__).resolve().parents[2]
    packed = subprocess.run(["git", "-C", root, "archive", "HEAD"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", code], input=packed.stdout, check=True)


def _start(arguments: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_SRV / "code"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(_SRV),
        "OMP_NUM_THREADS": "1",
        # Nobody listens there: the record waits in the journals.
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "spikeseg.jobs.cli", *arguments],
        cwd=_SRV,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def _run(*arguments: str, **variables: str) -> str:
    process = _start(arguments, **variables)
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}\n{out}")
    return out


def _kill(arguments: Sequence[str], reached: Callable[[], bool]) -> None:
    """Start a command and kill it at once where it has come so far."""
    process = _start(arguments)
    while not reached():
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(arguments)}: ended before it was killed")
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _is_under_way(sweep: Path, number: int) -> bool:
    """Whether a trial has a checkpoint and the study knows its first evaluation."""
    if not any(sweep.glob(f"trials/{number}/checkpoints/step-*")):
        return False
    query = (
        "select count(*) from trial_user_attributes join trials using (trial_id) "
        "where number = ? and key = 'at:2'"
    )
    with sqlite3.connect(f"file:{sweep / 'study.db'}?mode=ro", uri=True) as study:
        return study.execute(query, (number,)).fetchone()[0] == 1


def _expected() -> dict[str, object]:
    """What the version itself says of its examples, and what they hold without any of its code."""
    (run,) = _SRV.glob("storage/stored-*")
    (undisturbed,) = _SRV.glob("undisturbed/stored-*")
    images = []
    for number, row in enumerate(_rows("val")):
        path = _SRV / f"val-{number}.png"
        path.write_bytes(row["image"])
        images.append(str(path))
    _run("predict", str(run), *images, "--output", "predicted")
    labels = sorted(p for p in _SRV.glob("predicted/*.png") if "overlay" not in p.name)
    # One picture, the rows below each other: digits of files say nothing where a label moves.
    stacked = np.concatenate([np.asarray(Image.open(path)) for path in labels])
    Image.fromarray(stacked).save(_SRV / "predicted.png", optimize=True)
    return {
        "pixels": {
            split: [_digest(row["image"]) + _digest(row["label"]) for row in _rows(split)]
            for split in ("train", "val", "test")
        },
        "evaluation": json.loads(_run("evaluate", str(run), "--split", "val", "--json")),
        "energy": json.loads(_run("energy", str(run), "--json")),
        "rows": [json.loads(line) for line in _only(undisturbed, "ledger/*.jsonl").splitlines()],
        "result": json.loads(_only(undisturbed, "result.json")),
        "metrics": _metrics(undisturbed / "journal"),
    }


def _rows(split: str) -> list[dict[str, bytes]]:
    """Columns of a split as any reader of Parquet sees them."""
    shards = sorted(_SRV.glob(f"data/{split}-*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def _digest(png: bytes) -> str:
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def _only(folder: Path, pattern: str) -> str:
    (found,) = folder.glob(pattern)
    return found.read_text()


def _metrics(journal: Path) -> dict[str, dict[str, float]]:
    """Step -> metric -> value."""
    steps: dict[str, dict[str, float]] = {}
    for line in (journal / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "metrics":
            steps.setdefault(str(record["step"]), {}).update(record["values"])
    return steps


def _trim() -> None:
    """Take out what names the machine, and what nobody reads back and is large."""
    for path in [*_SRV.glob("storage/**/attempts/*"), *_SRV.glob("storage/*/driver.lock")]:
        path.write_text(path.read_text().replace(socket.gethostname(), "localhost"))
    for path in _SRV.glob("storage/**/provenance.json"):
        made_of = json.loads(path.read_text())
        made_of["hardware"] |= {"processor": "unknown", "system": "Linux"}
        path.write_text(json.dumps(made_of, indent=1))
    for folder in _SRV.glob("storage/sweep-*/figures"):
        shutil.rmtree(folder)
    for ended in ("stored-*/trials/0", "stored-*/trials/1", "in_a_journal-*/trials/0"):
        (checkpoints,) = _SRV.glob(f"storage/sweep-{ended}/checkpoints")
        shutil.rmtree(checkpoints)
    for folder in _SRV.glob("storage/sweep-in_a_journal-*/**/journal/files"):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])
