"""What a person sees of an exported file."""

from pathlib import Path
from typing import Any


def format_export(path: Path, metadata: dict[str, Any]) -> str:
    """A few lines: the file, what it takes, and how it differs from the trained network."""
    parity, size = metadata["parity"], metadata["size"]
    lines = [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, weights {metadata['weights']}, "
        + (f"images of {size[0]} x {size[1]}" if size else "images of any size")
        + ", any batch",
        f"compared on {parity['images']} images ({parity['images_from']}), computed by "
        f"{parity['computed_by']}:",
        f"  spikes changed  {parity['spikes_changed']:,} of {parity['spikes_compared']:,}",
        f"  labels equal    {100 * parity['labels_equal']:.3f} % of pixels; on "
        f"{parity['images_with_equal_labels']} of {parity['images']} images all",
    ]
    if "miou" in parity:
        miou = parity["miou"]
        lines.append(
            f"  mIoU            {miou['trained']:.2f} -> {miou['exported']:.2f} "
            f"({miou['change']:+.2f})"
        )
    return "\n".join(lines)
