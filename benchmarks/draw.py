"""Draws the committed results into the README and docs/images/benchmarks.png: `make bench`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claims import DEVICES, Claim, claims, read, read_growth

from t2l.files import write_text
from t2l.report.style import COLOURS, panels, ratio_axis, styled

ROOT = Path(__file__).parents[1]
README, IMAGES = ROOT / "README.md", ROOT / "docs" / "images"
LABELS = {
    "adapters": "distinct adapters in the batch",
    "rows": "rows, an adapter each",
    "prompt": "tokens of each prompt",
    "base": "base model",
}
BEGIN, END = "<!-- make bench -->", "<!-- /make bench -->"


def table(every: dict[str, Sequence[Claim]]) -> str:
    """Markdown."""
    lines = ["| machine | work | ours | peer | times as fast (range over rounds) |", "|---|---|---|---|---|"]
    for device, own in every.items():
        for claim in own:
            ours, peer = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in claim.measured)
            ratio = f"**{claim.ratio:.2f}** ({claim.low:.2f} to {claim.high:.2f})"
            lines.append(f"| {device} | {claim.work} | {ours} {claim.unit} | {claim.peer}: {peer} | {ratio} |")
    return "\n".join(lines)


def draw(every: dict[str, Sequence[Claim]]) -> None:
    """One dot a claim, on a logarithmic axis; the line is its range over rounds."""
    rows = [(device, claim) for device, own in every.items() for claim in own]
    with styled():
        figure, [axes] = panels(1, width=9, height=0.9 + 0.26 * len(rows))
        for place, (device, claim) in enumerate(reversed(rows)):
            colour = COLOURS[DEVICES.index(device)]
            axes.plot([claim.low, claim.high], [place, place], color=colour, linewidth=2, alpha=0.5)
            axes.plot([claim.ratio], [place], "o", color=colour)
        labels = [f"{claim.work} / {claim.peer} ({device})" for device, claim in reversed(rows)]
        axes.set_yticks(range(len(rows)), labels, fontsize=7)
        ratio_axis(axes, "times as fast as the peer, in the same run")
        axes.axvline(1, color="black", linewidth=0.8)
        figure.savefig(IMAGES / "benchmarks.png", dpi=150)


def draw_growth(device: str, result: dict[str, Any]) -> None:
    """Tokens/s along each curve of decoding; milliseconds to generate, with the floor as a dashed line."""
    curves = {name: points for name, points in result["decode"].items() if len(points) > 1}
    with styled():
        figure, axes = panels(len(curves) + 1, width=3 * (len(curves) + 1), height=2.8)
        for place, (name, points) in zip(axes, curves.items(), strict=False):
            for side, colour in zip(("base", "adapted"), COLOURS, strict=False):
                x, y = zip(*((str(p["x"]), p["tokens_per_s"][side]) for p in points), strict=True)
                place.plot(x, y, "o-", color=colour, label=side)
            place.set_ylim(0, 1.08 * max(rate for p in points for rate in p["tokens_per_s"].values()))
            place.set_title(LABELS[name], fontsize=9)
        axes[0].set_ylabel("tokens/s, decoding")
        axes[0].legend()
        for variant, colour in zip("SML", COLOURS, strict=False):
            points = [p for p in result["generate"] if p["variant"] == variant]
            x = [p["adapters"] for p in points]
            axes[-1].plot(x, [p["ms"]["ours"] for p in points], "o-", color=colour, label=variant)
            axes[-1].plot(x, [p["floor_ms"] for p in points], "--", color=colour)
        axes[-1].set_yscale("log")
        ratio_axis(axes[-1], "adapters")
        axes[-1].set_title("ms to generate (dashed: floor)", fontsize=9)
        axes[-1].legend()
        figure.savefig(IMAGES / f"growth_{device}.png", dpi=150)


def found() -> dict[str, Sequence[Claim]]:
    """What the committed results say, by device."""
    every = {device: [claim for result in read(device).values() for claim in claims(result)] for device in DEVICES}
    return {device: own for device, own in every.items() if own}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text, every = README.read_text(encoding="utf-8"), found()
    if BEGIN not in text or END not in text:
        sys.exit(f"{README} lacks the lines {BEGIN} and {END}, between which the table goes")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    draw(every)
    for device in DEVICES:
        if (growth := read_growth(device)) is not None:
            draw_growth(device, growth)
    write_text(README, f"{before}{BEGIN}\n{table(every)}\n{END}{after}")
    print(f"drew {sum(map(len, every.values()))} ratios into {README.name} and {IMAGES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
