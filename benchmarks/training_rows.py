"""How much better do files answer on the rows that they were trained on? FER-2013's Training beside PublicTest, both heads.

    python benchmarks/training_rows.py --root DIR [FILE.onnx ...]        (writes benchmarks/results/training_rows.json)

Without a file: the shipped one. PublicTest's rows whose exact pixels also stand in Training are left out.
"""

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import public_test

from mien.classifier import Classifier, bundled_model
from mien.lab.evaluation import leaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.onnx")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=public_test.RESULTS)
    options = parser.parse_args()
    splits = {split: public_test.load(options.root, split=split) for split in ("train", "valid")}
    hashes = {split: leaks.pixel_hashes(rows.data["fer2013"]) for split, rows in splits.items()}
    kept = {"train": None, "valid": ~leaks.leaking(hashes["train"], hashes["valid"])}
    found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "files": {}}
    for file in options.files or [bundled_model()]:
        model = Classifier(file, threads=os.cpu_count() or 1)
        judged = {
            split: public_test.judged(rows, model.card, public_test.answers(model, rows.faces), kept=kept[split])
            for split, rows in splits.items()
        }
        found["files"][file.stem] = {"sha256": model.sha256, "views": model.card.views, **judged}
        print(file.stem, json.dumps(judged))
    (options.results / "training_rows.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
