"""What `mien data check` finds in the real FER-2013 and FER+: python benchmarks/data_check.py --root DIR

Writes benchmarks/results/data_check.json. DIR holds the folders fer2013/ and ferplus/.
"""

import argparse
import datetime
import json
from pathlib import Path

from mien.lab.datasets.check import check
from mien.lab.datasets.check_report import summary
from mien.lab.evaluation.leaks import pixel_hashes

RESULT = Path(__file__).parent / "results" / "data_check.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    root = parser.parse_args().root.resolve()
    found = {}
    for name in ("fer2013", "ferplus"):
        report = check(name, root / name)
        lines = [line.replace(str(root), "DIR") for line in summary(report).splitlines()[1:]]  # no path of this machine
        hashes = pixel_hashes(report.splits["train"])
        lines.append(f"train: {len(hashes) - len(set(hashes)):,} rows repeat another row of train exactly")
        found[name] = {"fails": report.fails, "lines": lines}
        print("\n".join([name, *found[name]["lines"]]))
    RESULT.write_text(json.dumps({"date": datetime.date.today().isoformat(), "datasets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
