"""The inspection report as one HTML page that needs no other file."""

import base64
import html
import io

from PIL import Image

from .report import Report

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1340px;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { padding: .15rem .8rem .15rem 0; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead { border-bottom: 1px solid #999; }
code { font-size: .85em; color: #555; }
.warning { background: #fff4d6; border-left: 4px solid #e0a800; padding: .3rem .8rem;
           margin: .3rem 0; }
.swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid #888;
          vertical-align: -.1em; margin-right: .5em; }
.bar { display: inline-block; height: .7em; background: #7aa6d8; }
img { max-width: 100%; }
"""


def report_page(
    report: Report, palette: tuple[tuple[int, int, int], ...], sheet: Image.Image
) -> str:
    """The page.

    Args:
        report: What was found.
        palette: K colours of the classes.
        sheet: The contact sheet.
    """
    title = html.escape(f"{report.name}: packed data")
    warnings = "".join(f'<p class="warning">{html.escape(w)}</p>' for w in report.warnings)
    options = "".join(
        f"<p>{html.escape(key)}: {html.escape(str(value))}</p>"
        for key, value in report.options.items()
    )
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    source = base64.b64encode(picture.getvalue()).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>
<body><h1>{title}</h1>
<p>{html.escape(report.path)}<br><code>digest {report.digest}</code></p>{options}
{warnings}
<h2>Splits</h2>{_split_table(report)}
<h2>Classes</h2><p>Share of the labelled pixels, in percent.</p>{_class_table(report, palette)}
<h2>Rows</h2><img alt="images beside their labels" src="data:image/png;base64,{source}">
</body></html>
"""


def _split_table(report: Report) -> str:
    rows = []
    for split, part in report.splits.items():
        sizes = ", ".join(f"{size} ({count})" for size, count in list(part.sizes.items())[:4])
        segments = f"{part.segments} ({part.crowds})" if part.segments else "-"
        cells = [
            split,
            str(part.rows),
            f"{100 * part.labelled:.1f} %",
            segments,
            " x ".join(map(str, part.smallest)),
            " x ".join(map(str, part.largest)),
            sizes,
        ]
        digest = f"<td><code>{part.digest[:16]}</code></td>"
        rows.append(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + digest + "</tr>"
        )
    heads = ("split", "rows", "labelled", "segments (crowds)", "smallest", "largest", "sizes")
    head = "".join(f"<th>{name}</th>" for name in (*heads, "digest"))
    return f"<table><thead><tr>{head}</tr></thead>{''.join(rows)}</table>"


def _class_table(report: Report, palette: tuple[tuple[int, int, int], ...]) -> str:
    # Where every label is ignored all shares are 0, and no bar has a length.
    most = max(max(part.shares.values()) for part in report.splits.values()) or 1.0
    rows = []
    for index, name in enumerate(report.classes):
        swatch = "#{:02x}{:02x}{:02x}".format(*palette[index])
        cells = [f'<td><span class="swatch" style="background:{swatch}"></span>']
        cells[0] += f"{html.escape(name)}</td>"
        for part in report.splits.values():
            share = part.shares[name]
            bar = f'<span class="bar" style="width:{8 * share / most:.2f}em"></span>'
            cells.append(f"<td>{100 * share:.3f}</td><td style='text-align:left'>{bar}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html.escape(split)}</th><th></th>" for split in report.splits)
    return f"<table><thead><tr><th>class</th>{head}</tr></thead>{''.join(rows)}</table>"
