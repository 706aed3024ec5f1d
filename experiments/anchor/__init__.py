"""Other codecs as anchors, coded and assessed like the suite's own.

Each YAML file beside this module describes one codec: which encoder or network runs it,
what sets its rate, how pictures are given to it, and its presets, with the source of
each. A further preset is a few lines of YAML. ``python -m experiments.anchor --list``
prints them; :func:`experiments.anchor.coders.make_coder` makes the coder of one. Of a
codec that cannot be run here, decoded frames and bytes are taken as they are given.
"""
