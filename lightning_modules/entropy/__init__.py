"""From latents to bits, for all codecs.

A network's walk through its entropy model tells a port (``ports``) how each element is
distributed (``distributions``, ``priors``, CompressAI's ``bottleneck``), in some order
(``steps``). Training asks what symbols would cost (``estimates``); real coding asks for
integer tables (``tables``) and gives arrays to a coder (``symbols``, ``rans``).
"""
