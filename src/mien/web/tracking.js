// Numbers for the faces of a video: greedy matching of boxes by intersection over union, enough for a timeline.
// `mien read` in a terminal follows faces with motion as well.

const LEAST_OVERLAP = 0.3;
const LONGEST_LOSS = 1; // s after which a face that comes back is a new one

export class Tracker {
  #tracks = [];
  #last = 0;
  #frame = -Infinity; // s, the time of the frame before

  /** How many faces there have been. */
  get count() {
    return this.#last;
  }

  /** Number the boxes ({x, y, width, height} px) of the frame at `time` (s); the numbers come in the boxes' order. */
  follow(boxes, time) {
    this.#tracks = this.#tracks.filter((track) => this.#frame - track.time <= LONGEST_LOSS); // slow answers lose nobody
    this.#frame = time;
    const numbers = new Array(boxes.length).fill(0);
    for (const { track, place } of this.#pairs(boxes)) {
      if (track.time === time || numbers[place]) continue;
      numbers[place] = track.number;
      track.box = boxes[place];
      track.time = time;
    }
    return numbers.map((number, place) => number || this.#begin(boxes[place], time));
  }

  #pairs(boxes) {
    const pairs = this.#tracks.flatMap((track) =>
      boxes.map((box, place) => ({ track, place, overlap: overlap(track.box, box) })));
    return pairs.filter((pair) => pair.overlap >= LEAST_OVERLAP).sort((a, b) => b.overlap - a.overlap);
  }

  #begin(box, time) {
    this.#last += 1;
    this.#tracks.push({ number: this.#last, box, time });
    return this.#last;
  }
}

function overlap(a, b) {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  const shared = Math.max(0, width) * Math.max(0, height);
  return shared / (a.width * a.height + b.width * b.height - shared);
}
