"""Predicts images with a trained network: python -m study.predict MODEL IMAGES… -o FILE.

MODEL is a file that a launch with --keep weights or study.export wrote, or the id of a cell whose weights are kept;
IMAGES are image files, folders of them, or npz files. Images of another size than the cell's are resized as the cell
resized its own (bilinear, antialiased). The table has a row for each image: its name, the predicted class, and the
probability of every class. Of networks that find several labels an image, "predicted" names those above .5.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from study.telling.command import DEFAULT_STORE, Parser, ready_streams

SPLITS = ("test", "val", "train")
# Pictures in memory at a time.
BATCH = 256


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0, or 2 with one line on standard error for a user's error."""
    ready_streams()
    options = parser().parse_args(arguments)
    try:
        _run(options)
    except BrokenPipeError:
        # The reader of a table has seen enough.
        sys.stdout = None
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.predict",
        description="Predict images with a trained network: a CSV of image, predicted class, probabilities.",
        allow_abbrev=False,
    )
    made.add_argument("model", metavar="MODEL", help="a kept or exported file, or a cell's id")
    made.add_argument("images", metavar="IMAGES", type=Path, nargs="+", help="image files, folders of them, npz files")
    made.add_argument("-o", "--out", type=Path, metavar="FILE", help="the table (default: standard output)")
    made.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="of npz files (default: test)")
    made.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    return made


def _run(options: argparse.Namespace) -> None:
    from analysis.tasks import CLASSIFICATION, TASKS, chosen
    from study.export.opened import ENDINGS, open_model
    from study.export.pictures import batches, left_out
    from study.export.trained import kept_file
    from study.store.ledger import whole_file

    path = Path(options.model)
    if path.suffix not in ENDINGS and not path.exists():
        path = kept_file(options.store.absolute(), options.model)
    model = open_model(path)
    classes, several = model.about["classes"], TASKS[model.about.get("task", CLASSIFICATION.name)].has_many
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "predicted", *classes])
    for names, images in batches(options.images, model.about["channels"], options.split, BATCH):
        for name, row in zip(names, model.predict(images), strict=True):
            said = [classes[k] for k in chosen(row, several)]
            writer.writerow([name, "; ".join(said), *(f"{value:.8g}" for value in row)])
    if options.out is None:
        sys.stdout.write(table.getvalue())
        sys.stdout.flush()
    else:
        with whole_file(options.out.absolute()) as file:
            file.write(table.getvalue().encode())
    if unread := left_out(options.images):
        print(f"note: {unread} files of other kinds in the folders were left out", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
