"""What `spikeseg data pack folder` asks for and shows: its options, the classes, the question."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import click

from .options import TypedPath

if TYPE_CHECKING:
    from ..datasets.layouts.image_folder.prepare import Prepared
    from ..datasets.spec import RawDataset

NAME = "folder"


class FolderSettings(TypedDict):
    """What the options below pass on."""

    label_format: Literal["masks", "coco", "labelme", "cvat", "voc", "arrow"] | None
    images: str | None
    masks: str | None
    split: str | None
    group_by: Literal["folder"] | None
    classes: Path | None
    channels: int | None
    yes: bool


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a user's own images."""
    for option in reversed(
        (
            click.option(
                "--format",
                "label_format",
                type=click.Choice(["masks", "coco", "labelme", "cvat", "voc", "arrow"]),
                help="folder: where labels are; masks if not given.",
            ),
            click.option("--images", metavar="GLOB", help="folder: which files are images."),
            click.option("--masks", metavar="GLOB", help="folder: which files are masks."),
            click.option(
                "--split", metavar="SHARES", help="folder: draw train,val[,test], as 0.8,0.1,0.1."
            ),
            click.option(
                "--group-by",
                type=click.Choice(["folder"]),
                help="folder: --split keeps the images of a folder together.",
            ),
            click.option(
                "--classes",
                type=TypedPath(dir_okay=False),
                help="folder: a class file outside of the source.",
            ),
            click.option(
                "--channels",
                type=click.IntRange(1, 16),
                help="folder: channels of an image; found out if not given (grey becomes RGB).",
            ),
            click.option("--yes", is_flag=True, help="folder: confirm the proposed classes."),
        )
    ):
        command = option(command)
    return command


def prepare_dataset(
    name: str, source: Path | None, settings: FolderSettings, seed: int | None, most: float
) -> "RawDataset | None":
    """Look at a user's own images whole, show what was found, and have the classes confirmed.

    Args:
        name: The data set's name; any but `folder` takes none of these options.
        source: Folder or archive of the files.
        settings: The options.
        seed: Decides a drawn split.
        most: Largest share of bad pairs, in [0, 1].

    Returns:
        What is packed; None for a data set of the catalog.
    """
    if name != NAME:
        for key, value in settings.items():
            if value:
                option = "format" if key == "label_format" else key.replace("_", "-")
                raise click.UsageError(f"--{option} is an option of folder, not of {name}")
        return None
    from ..datasets.layouts.image_folder.prepare import FolderOptions, prepare_folder
    from ..datasets.layouts.image_folder.proposal import format_shares

    if source is None:
        raise click.UsageError("folder needs --source, the folder of your images and masks")
    options = FolderOptions(
        format=settings["label_format"] or "masks",
        images=settings["images"],
        masks=settings["masks"],
        split=settings["split"],
        seed=seed or 0,
        group_by=settings["group_by"],
        classes=settings["classes"],
        channels=settings["channels"],
    )
    prepared = prepare_folder(source, options)
    for note in prepared.notes:
        print(f"note: {note}")
    print(format_shares(prepared.shares))
    if prepared.proposed and len(prepared.problems) > most * prepared.total:
        # What the problems say to write into the class file needs one.
        _write_draft(prepared)
    prepared.require_few_problems(most)
    if prepared.proposed:
        _confirm(prepared, yes=settings["yes"])
    return prepared.dataset


def _write_draft(prepared: "Prepared") -> None:
    """Write the proposed classes beside their place, where no draft is yet."""
    from ..datasets.layouts.image_folder.prepare import draft_of
    from ..datasets.packed.files import write_file

    draft = draft_of(prepared.class_file)
    try:
        if not draft.exists():
            write_file(draft, prepared.class_text())
        print(f"proposed classes: {draft}")
    except OSError as error:
        print(f"note: {draft} cannot be written ({error.strerror})")


def _confirm(prepared: "Prepared", *, yes: bool) -> None:
    """Write the proposed classes once they are confirmed, else as a draft beside their place."""
    from ..datasets.layouts.image_folder.prepare import draft_of
    from ..datasets.packed.files import write_file

    path, draft = prepared.class_file, draft_of(prepared.class_file)
    try:
        if not yes:
            if not draft.exists():
                write_file(draft, prepared.class_text())
            print(f"proposed classes: {draft}")
            if not sys.stdin.isatty() or not click.confirm("Pack with these classes?"):
                raise click.UsageError(
                    f"the classes are proposed and not confirmed: edit {draft} if they are to have "
                    "other names, and give the command again with --yes"
                )
        write_file(path, prepared.class_text())
        draft.unlink(missing_ok=True)
        print(f"classes: {path}")
    except OSError as error:
        # A source that cannot be written to is no obstacle: the packed data holds its classes.
        print(f"note: {path} cannot be written ({error.strerror}); the packed data has the classes")
        if not yes:
            raise click.UsageError("the classes are proposed: confirm them with --yes") from error
