"""What the benchmarks show of their measurements: tables in Markdown, the roofline as SVG, and their places in docs/."""

import dataclasses
import math
import statistics
import textwrap

OURS = "mlxbench"
COLORS = {"mlxbench": "#0b6e4f", "mlxbench int8": "#6bbf59", "llama.cpp": "#c1440e",
          "llama.cpp, no flash attention": "#e9a178", "mlx-lm": "#4062bb"}
LIMITS = {"f32": "F32", "bf16": "BF16", "int16": "int16", "int8": "int8"}


@dataclasses.dataclass
class Work:
    """Of one token: bytes of weights, of keys and values, and multiply-adds."""
    weights: float
    kv: float
    decode_macs: float
    prefill_macs: float


@dataclasses.dataclass
class Result:
    row: object      # title, n_prompt, n_generate
    measured: dict   # program -> measurements
    limits: dict     # read: GB/s; f32, bf16, int16, int8: billions of multiply-adds per second
    work: Work

    def median(self, program, metric):
        return statistics.median(one[metric] for one in self.measured[program])

    def best_peer(self, metric):
        """What ours is compared with: each metric with llama.cpp's better setting."""
        peers = [self.median(p, metric) for p in self.measured if not p.startswith(OURS)]
        return max(peers) if peers else None

    def traffic(self, program):
        """Bytes per second that a program's decode reads, at least, in GB."""
        return self.median(program, "generation_tps") * (self.work.weights + self.work.kv) / 1e9


def table(results):
    yield ("| model, prompt + new tokens | program | prompt tok/s | (min - max) | to the best peer | generation tok/s | "
           "(min - max) | to the best peer | of read bandwidth |")
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for result in results:
        for program, rows in result.measured.items():
            cells = [f"{result.row.title}, {result.row.n_prompt} + {result.row.n_generate}", program]
            for metric in ["prompt_tps", "generation_tps"]:
                values, peer = [row[metric] for row in rows], result.best_peer(metric)
                median = statistics.median(values)
                ratio = f"{median / peer:.2f}" if peer and program.startswith(OURS) else ""
                cells += [digits(median), f"{digits(min(values))} - {digits(max(values))}", ratio]
            cells.append(f"{result.traffic(program) / result.limits['read']:.2f}")
            yield f"| {' | '.join(cells)} |"


def digits(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def limits_table(results):
    yield "What a loop that does nothing else reached in the same turns, all threads together:"
    yield ""
    yield "| model | read GB/s | " + " | ".join(f"{LIMITS[k]} GMAC/s" for k in results[0].limits if k in LIMITS) + " |"
    yield "|---" + "|--:" * len(results[0].limits) + "|"
    for result in results:
        yield f"| {result.row.title} | " + " | ".join(f"{value:.1f}" for value in result.limits.values()) + " |"


def write(docs, name, text):
    """Replaces what stands between the two marks of that name in performance.md, in lines of at most 100 columns."""
    path, begin, end = docs / "performance.md", f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = path.read_text().split(begin)
    lines = [line if line.startswith("|") else textwrap.fill(line, 100, break_long_words=False) for line in text.split("\n")]
    path.write_text("\n".join([f"{before}{begin}", *lines, f"{end}{rest.split(end)[1]}"]))


# ---- the picture ----

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 980, 560, 70, 60, 60, 310
X_RANGE, Y_RANGE = (0.5, 20000), (1, 1000)


def x_of(value):
    low, high = map(math.log10, X_RANGE)
    return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def y_of(value):
    low, high = map(math.log10, Y_RANGE)
    return HEIGHT - BOTTOM - (math.log10(value) - low) / (high - low) * (HEIGHT - BOTTOM - TOP)


def text(x, y, words, size=12, anchor="start", color="#333"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def line(x1, y1, x2, y2, color="#999", dash="", width=1.0):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}" '
            f'stroke-dasharray="{dash}"/>')


def axes():
    for value in (1, 10, 100, 1000, 10000):
        yield line(x_of(value), y_of(Y_RANGE[0]), x_of(value), y_of(Y_RANGE[1]), "#eee")
        yield text(x_of(value), HEIGHT - BOTTOM + 18, value, anchor="middle")
        if value <= Y_RANGE[1]:
            yield line(x_of(X_RANGE[0]), y_of(value), x_of(X_RANGE[1]), y_of(value), "#eee")
            yield text(LEFT - 8, y_of(value) + 4, value, anchor="end")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield text(middle, HEIGHT - 16, "multiply-adds per byte of weights, keys and values", anchor="middle")
    yield (f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" font-size="12" text-anchor="middle" '
           'fill="#333">billions of multiply-adds per second</text>')


def roofs(limits):
    read = limits["read"]
    top = max(limits[kind] for kind in limits if kind in LIMITS)
    start = max(X_RANGE[0], Y_RANGE[0] / read)
    yield line(x_of(start), y_of(read * start), x_of(top / read), y_of(top), "#333", width=1.5)
    yield text(x_of(5) + 8, y_of(read * 5) + 10, f"memory, {read:.1f} GB/s")
    lines = {}  # value -> names: what the picture cannot tell apart shares a line
    for kind, name in LIMITS.items():
        if kind in limits:
            near = next((value for value in lines if abs(value / limits[kind] - 1) < 0.1), limits[kind])
            lines.setdefault(near, []).append(name)
    for value, names in lines.items():
        yield line(x_of(value / read), y_of(value), x_of(X_RANGE[1]), y_of(value), "#333", "5 3", 1.5)
        yield text(x_of(X_RANGE[1]) + 6, y_of(value) + 4, f"{', '.join(names)}: {value:.0f}")


def mark(shape, x, y, color):
    if shape == "decode":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}" fill-opacity="0.85"/>'
    return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{color}" fill-opacity="0.85"/>'


def points(result, number):
    """Each program's decode (a circle) and prefill (a square). Of a prefill all bytes count once: the prompt is one
    chunk, or a few whose weights are read anew, which is still little to what is computed."""
    row, work = result.row, result.work
    read = work.weights + work.kv
    shapes = {"decode": (work.decode_macs / read, work.decode_macs, "generation_tps"),
              "prefill": (min(work.prefill_macs * row.n_prompt / read, X_RANGE[1]), work.prefill_macs, "prompt_tps")}
    for shape, (intensity, macs, metric) in shapes.items():
        for program in result.measured:
            speed = max(result.median(program, metric) * macs / 1e9, Y_RANGE[0])
            yield mark(shape, x_of(intensity), y_of(speed), COLORS[program])
        ours = max(result.median(OURS, metric) * macs / 1e9, Y_RANGE[0])
        yield text(x_of(intensity) + 8, y_of(ours) - 6, number, 11)


def legend(results):
    y = 200
    for program in dict.fromkeys(p for result in results for p in result.measured):
        yield mark("decode", WIDTH - RIGHT + 70, y - 4, COLORS[program])
        yield text(WIDTH - RIGHT + 82, y, program)
        y += 18
    yield text(WIDTH - RIGHT + 64, y + 4, "circles: decode, squares: prefill", 11)
    for number, result in enumerate(results, 1):
        short = result.row.title.split(",")[0].split(" (")[0]
        yield text(WIDTH - RIGHT + 64, y + 10 + 16 * number, f"{number}: {short}, {result.row.n_prompt}", 11)


def roofline(results, heading):
    limits = {kind: statistics.median(r.limits[kind] for r in results) for kind in results[0].limits}
    parts = [text(LEFT, 28, "What the processor allows, and what is reached", 16), text(LEFT, 46, heading, 11), *axes(),
             *roofs(limits), *legend(results)]
    for number, result in enumerate(results, 1):
        parts += points(result, number)
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n')
