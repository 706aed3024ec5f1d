"""The jobs that train."""

from collections.abc import Iterator, Sequence

from experiments.paper.job import Job
from experiments.paper.places import Places
from experiments.paper.training import Trained, Training


def fit_jobs(training: Training, places: Places, free: Sequence[str]) -> Iterator[Job]:
    """Give a job for each piece of a recipe's training, behind those that it needs.

    Args:
        training: What is trained.
        places: Where runs lie.
        free: Options of ``fit`` that decide no weight.
    """
    ends: dict[tuple[str, str], str] = {}
    for piece in training.pieces:
        needs = [ends[piece.after]] if piece.after else []
        name = name_of(piece)
        if piece.after and piece.after[0] != piece.run:
            source = places.runs / piece.after[0] / piece.after[1]
            begin = ["--init_from", str(source), "--from_stage", str(piece.first)]
        else:
            begin = _own_begin(piece, training, places)
        stop = ["--to_stage", piece.stages[-1]] if piece.stops else []
        place = ["--run", piece.run, "--runs_dir", str(places.runs)]
        for stage in piece.stages:
            ends[piece.run, stage] = name
        yield Job(
            name=name,
            command="fit",
            arguments=(*piece.arguments, *place, *begin, *stop),
            outputs=(places.runs / piece.run / piece.stages[-1] / "last.ckpt",),
            needs=tuple(needs),
            free=tuple(free),
        )


def _own_begin(piece: Trained, training: Training, places: Places) -> list[str]:
    """Return how the run of a piece began: the same in every piece of it."""
    first = next(each for each in training.pieces if each.run == piece.run)
    if not first.after:
        return []
    source = places.runs / first.after[0] / first.after[1]
    return ["--init_from", str(source), "--from_stage", str(first.first)]


def name_of(piece: Trained) -> str:
    """Return the name of the job that trains a piece of a run."""
    return f"fit-{piece.run}" + (f"-to-{piece.stages[-1]}" if piece.stops else "")


def job_of(run: str, stage: str, training: Training) -> str:
    """Return the name of the job that ends with a run's stage."""
    for piece in training.pieces:
        if piece.run == run and stage in piece.stages:
            return name_of(piece)
    raise KeyError(f"{run}/{stage}")
