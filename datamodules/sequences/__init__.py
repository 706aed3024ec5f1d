"""Test sequences: what the commands are told of them, finding them, reading them."""

SEQUENCES = """\
test sequences: NAME=ROOT (uvg, mcl_jcv, hevc_b to hevc_e), a dataset JSON of DCVC, any
folder of videos, one video, or patterns, patterns:N, patterns=DIR (eight synthetic
motions over N pictures, procedural or of a folder)"""
"""Help of the option that names them; :mod:`datamodules.sequences.find` says more."""
