"""Damage that no checksum of the file shows ends in one error, or in other whole units.

Packets are changed, not files: it is as if each file's own checksums had been repaired.
"""

import random
from dataclasses import replace

import pytest
import torch

import lightning_modules
from lightning_modules.packets import DesyncError

CODECS = [(name, {}) for name in lightning_modules.CODECS]
CODECS += [
    ("UI2C", {"frames_per_unit": 1, "divided": True}),
    ("UI2C", {"skip_threshold": 0.2}),
    ("DHVC", {"auxiliary": False}),
]
TRIES = 36


def flip(rng, data):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def change_head(rng, data):
    data[rng.randrange(min(4, len(data)))] = rng.randrange(256)


def cut(rng, data):
    del data[rng.randrange(len(data)) :]


def cut_all(rng, data):
    data.clear()


def insert(rng, data):
    place = rng.randrange(len(data))
    data[place:place] = rng.randbytes(rng.randint(1, 4))


def zero(rng, data):
    place = rng.randrange(len(data))
    data[place : place + 6] = bytes(len(data[place : place + 6]))


def randomise(rng, data):
    data[:] = rng.randbytes(rng.randint(1, 100))


BYTES = [flip, change_head, cut, cut_all, insert, zero, randomise]


def other_frames(rng, packets, place):
    packets[place] = replace(packets[place], frames=rng.choice([0, 1, 2, 3, 5, 4096]))


def other_checksum(rng, packets, place):
    packets[place] = replace(packets[place], checksum=rng.getrandbits(32))


def drop(rng, packets, place):
    del packets[place]


def double(rng, packets, place):
    packets.insert(place, packets[place])


def swap(rng, packets, place):
    other = rng.randrange(len(packets))
    packets[place], packets[other] = packets[other], packets[place]


UNITS = [other_frames, other_checksum, drop, double, swap]


@pytest.mark.parametrize(("name", "arguments"), CODECS)
def test_mutated_packets_give_the_frames_or_one_kind_of_error(
    lively_module, scene, name, arguments
):
    codec = lively_module(name, **arguments).codec.eval()
    clip, rate = scene(3, 40, 56), codec.rate_knob.points[0]
    packets = list(codec.compress(clip, rate, intra_period=codec.start_multiple))
    whole = list(codec.decompress(packets, 40, 56))
    rng = random.Random(f"{name}{arguments}")
    refused = 0
    for number in range(TRIES):
        mutated, place = list(packets), rng.randrange(len(packets))
        kind = [*BYTES, *UNITS][number % (len(BYTES) + len(UNITS))]
        if kind in BYTES:
            payload = bytearray(packets[place].payload)
            kind(rng, payload)
            mutated[place] = replace(packets[place], payload=bytes(payload))
        else:
            kind(rng, mutated, place)
        frames = []
        try:
            for frame in codec.decompress(mutated, 40, 56):
                frames.append(frame)
        except DesyncError as error:
            refused += 1
            assert "\n" not in str(error)
        if kind in BYTES:
            # Never noise: what is shown before the error is what was coded.
            assert all(map(torch.equal, frames, whole)), kind
    assert refused > TRIES // 2
