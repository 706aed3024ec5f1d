"""Refuse to compare what was not measured alike, and say what it would cost."""

from collections.abc import Collection, Sequence

from experiments.compare.comparison import Difference
from experiments.results.result import PROTOCOL_FIELDS, Result, SequenceResult

NOT_STATED = "not stated"

ALL_INTRA = "all_intra"
"""Structure of a codec that codes each frame alone, as a result states it."""

ALL_UNSTATED = "unstated"
"""For ``--allow``: go on wherever a file does not say."""

_RERUN = "Measure one of them again with the other's {option}"

EXPLANATIONS: dict[str, str] = {
    "colour": "other planes are compared, so no number carries over; DCVC's test "
    "conditions speak of 22 % of the bits for a classical codec. "
    + _RERUN.format(option="--colour"),
    "max_frames": "the first frame costs many times the bits of the others: the fewer "
    "frames, the more its share, and error accumulation shows in long runs only (the "
    "size depends on the codec; not measured). " + _RERUN.format(option="--max_frames"),
    "intra_period": "every start without a reference costs a frame of many times the "
    "bits, at 32 three of them in 96 frames instead of one (the size depends on the "
    "codec; not measured). " + _RERUN.format(option="--intra_period"),
    "rate": "estimates leave out headers and the coder's rounding: about 1 % on a "
    "trained codec, more at 416x240 and few bits, where headers weigh. Measure the "
    "estimated one again without --estimate",
    "matrix": "more than 1 dB between ffmpeg's default and BT.709 full range, and a "
    "codec trained on one collapses on the other; papers report up to 32 % of the "
    "bits. Convert the sources again",
    "chroma_up": "what the codec sees as chroma differs (not measured). Measure one of "
    "them again with the other's filter",
    "chroma_down": "the decoded chroma planes differ: PSNR U and V, a quarter of PSNR "
    "YUV, and not PSNR Y (not measured). Measure one of them again with the other's "
    "filter",
    "crop": "other pixels are compared: 1080 lines cropped to 1024 lose 5 % of the "
    "picture (not measured). Measure the cropped one again, padded",
    "yuv_as": "the same decoded 4:2:0 video reads as 1.0 to 1.5 dB more PSNR RGB under "
    "full709 than under ffmpeg, which stretches every error by 255/219 (x264 at qp 30: "
    "35.2 and 34.2, 38.9 and 37.6, 44.7 and 43.2 dB on three clips), and a codec "
    "sees other colours. " + _RERUN.format(option="--yuv_as"),
    "definitions": "PSNR on unrounded instead of 8-bit output reads as 0.5 % (HEVC D) "
    "to 2.6 % (MCL-JCV) of the bits, up to 0.17 dB at QP 22; PSNR YUV weighted 4:1:1 "
    "instead of 6:1:1 as 0.14 to 0.69 dB; MS-SSIM implementations differ slightly. "
    "Compare a metric that both define alike (--metric), or measure again",
    "size": "the sources are not the same files (a crop, or another class with the "
    "same name): no number carries over. Measure again from one source",
    "source": "other planes are coded and compared, though they show the same: 4:2:0 "
    "planes that went to 8-bit RGB and back are within 46.5 dB of the stored ones, and "
    "a range that is stretched changes every error. Measure both from one file",
    "fps": "bits per pixel do not depend on it, but anchors' rate control and kbps do. "
    "Correct the rate that one source was read with",
    "frames": "see max_frames: " + _RERUN.format(option="--max_frames"),
}
"""For each field that can differ: how large that usually is, and what to run again.

Sizes are measured on VTM 17's published curves, or as their papers state them.
"""


class ProtocolMismatch(ValueError):
    """Files were not measured alike."""


def shared_sequences(results: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    """Return the sequences that all results have, by set, in the first one's order.

    Raises:
        ValueError: A result lists a sequence twice, or they share none.
    """
    for result in results:
        keys = [sequence.key for sequence in result.sequences]
        twice = {"/".join(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(
                f"{result.name} lists {', '.join(sorted(twice))} more than once: "
                "remove one of them from the file"
            )
    keys_of_all = [{s.key for s in result.sequences} for result in results]
    shared = set.intersection(*keys_of_all)
    sets: dict[str, list[str]] = {}
    for sequence in results[0].sequences:
        if sequence.key in shared:
            sets.setdefault(sequence.set, []).append(sequence.name)
    if not sets:
        listed = "; ".join(
            f"{r.name}: {', '.join(f'{s.set}/{s.name}' for s in r.sequences) or 'none'}"
            for r in results
        )
        raise ValueError(f"the files have no sequence in common ({listed})")
    return {name: tuple(members) for name, members in sets.items()}


def find_differences(
    anchor: Result,
    other: Result,
    metrics: Sequence[str],
    sets: dict[str, tuple[str, ...]],
) -> list[Difference]:
    """List everything that two results must share and do not.

    What a file does not state counts as different, even where neither does. Two things
    do not: the limit on frames, as each sequence's are compared too, and how 4:2:0
    becomes RGB where it stays 4:2:0.

    A codec that codes each frame alone has the same numbers under every intra period,
    and sequences of one frame have the same under every limit on frames, too.
    """
    names = (anchor.name, other.name)
    found = []
    indifferent: tuple[str, ...] = ()
    if ALL_INTRA in (r.codec.get("structure") for r in (anchor, other)):
        indifferent = ("intra_period",)
    if _are_stills(anchor, sets) and _are_stills(other, sets):
        indifferent = ("intra_period", "max_frames")

    def note(field: str, a: object, b: object, where: str = "") -> None:
        if a != b or a is None or b is None:
            values = tuple(NOT_STATED if v is None else str(v) for v in (a, b))
            found.append(Difference(field, names, (values[0], values[1]), where))

    for name in PROTOCOL_FIELDS:
        a, b = (getattr(result.protocol, name) for result in (anchor, other))
        if name == "max_frames" and (a is None or b is None):
            continue
        if name == "yuv_as" and anchor.protocol.colour == "yuv420":
            continue
        if name in indifferent and None not in (a, b):
            continue
        note(name, a, b)
    for metric in metrics:
        a, b = (r.protocol.definitions.get(metric) for r in (anchor, other))
        note(f"definitions.{metric}", a, b)
    found_a, found_b = ({s.key: s for s in r.sequences} for r in (anchor, other))
    for place in ((name, member) for name in sets for member in sets[name]):
        one, two, where = found_a[place], found_b[place], "/".join(place)
        note("size", _size(one), _size(two), where)
        note("source", one.source, two.source, where)
        note("fps", one.fps or None, two.fps or None, where)
        note("frames", one.frames or None, two.frames or None, where)
    return found


def check_allowed(allow: Collection[str]) -> None:
    """Raise ``ValueError`` if something is no field that can be allowed to differ."""
    known = [*EXPLANATIONS, ALL_UNSTATED]
    for name in allow:
        if name.partition(".")[0] not in known:
            raise ValueError(
                f"--allow {name}: no such field; there are {', '.join(known)}"
            )


def check_differences(
    differences: Sequence[Difference], allow: Collection[str]
) -> None:
    """Raise an error that names every difference that nobody allowed, and what to do.

    Names of fields allow them, ``definitions`` those of all metrics, and ``unstated``
    whatever a file does not say.

    Raises:
        ProtocolMismatch: There is such a difference.
    """
    forbidden = [
        d
        for d in differences
        if not (
            d.field in allow
            or d.field.partition(".")[0] in allow
            or (ALL_UNSTATED in allow and NOT_STATED in d.values)
        )
    ]
    if forbidden:
        names = dict.fromkeys(
            ALL_UNSTATED if NOT_STATED in d.values else d.field.partition(".")[0]
            for d in forbidden
        )
        raise ProtocolMismatch(
            f"the files were not measured alike: {'; '.join(describe(forbidden))}. "
            "--explain says how large each difference usually is, --allow "
            f"{','.join(names)} compares them regardless"
        )


def describe(differences: Sequence[Difference]) -> list[str]:
    """Say differences in one clause each: field, both values, the files.

    The same difference to several files, or of several sequences, is one clause.
    """
    groups: dict[tuple[str, str, tuple[str, str]], list[Difference]] = {}
    for difference in differences:
        key = (difference.field, difference.files[0], difference.values)
        groups.setdefault(key, []).append(difference)
    clauses = []
    for (name, anchor, (a, b)), group in groups.items():
        places = list(dict.fromkeys(d.where for d in group if d.where))
        where = f" of {places[0]}" if places else ""
        if len(places) > 1:
            where += f" and {len(places) - 1} more"
        others = ", ".join(dict.fromkeys(d.files[1] for d in group))
        clauses.append(f"{name}{where} is {a} in {anchor} and {b} in {others}")
    return clauses


def explain_differences(differences: Sequence[Difference]) -> list[str]:
    """Return each difference, then for each field what it usually costs, as lines."""
    if not differences:
        return ["the files were measured alike"]
    fields_that_differ = dict.fromkeys(d.field.partition(".")[0] for d in differences)
    return [
        *(f"- {text}" for text in describe(differences)),
        *(f"{name}: {EXPLANATIONS[name]}." for name in fields_that_differ),
    ]


def _are_stills(result: Result, sets: dict[str, tuple[str, ...]]) -> bool:
    """Tell whether all of these sequences have one frame."""
    return all(s.frames == 1 for s in result.sequences if s.name in sets.get(s.set, ()))


def _size(sequence: SequenceResult) -> str | None:
    if not (sequence.width and sequence.height):
        return None
    return f"{sequence.width}x{sequence.height}"
