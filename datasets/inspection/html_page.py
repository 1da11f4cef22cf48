"""HTML pages that need no other file, from Jinja templates; the page of the inspection report."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from .report import Report

_TEMPLATES = Path(__file__).parent


def render_page(template: Path, **values: Any) -> str:
    """Fill a template that extends `page.html.j2`; all text in it is escaped.

    Args:
        template: The template's file; the filter `data_uri` turns PNG bytes into an address.
        values: What it shows, `title` among them.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template(template.name).render(values)


def render_report(
    report: Report, palette: tuple[tuple[int, int, int], ...], sheet: Image.Image
) -> str:
    """Render the page of an inspection report.

    Args:
        report: What was found.
        palette: K colours of the classes.
        sheet: The contact sheet.
    """
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    return render_page(
        _TEMPLATES / "report.html.j2",
        title=f"{report.name}: packed data",
        report=report,
        palette=palette,
        # Where every label is ignored all shares are 0, and no bar has a length.
        largest_share=max(max(s.shares.values()) for s in report.splits.values()) or 1.0,
        sheet=picture.getvalue(),
    )


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
