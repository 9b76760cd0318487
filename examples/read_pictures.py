"""Read pictures and print what is found: python examples/read_pictures.py party.jpg more.png"""

import sys

import mien
from mien.errors import ImageError


def main(paths: list[str]) -> None:
    reader = mien.Reader()  # loads the networks once
    for path in paths:
        try:
            reading = reader.read(path)
        except ImageError as error:  # one bad file need not stop the rest
            print(error)
            continue
        print(f"{path}: {reading.width} x {reading.height} px, {reading.status}")
        for face in reading:
            likely = sorted(face.probabilities.items(), key=lambda item: -item[1])[:2]
            print(
                "  " + ", then ".join(f"{name} {share:.0%}" for name, share in likely),
                [round(edge) for edge in face.box],
            )


if __name__ == "__main__":
    main(sys.argv[1:])
