"""From latents to bits: estimates that train, integer tables and a coder that count.

Training asks what symbols would cost (``estimates``, ``priors``) under a quantiser with
useful gradients. Real coding turns the model into integer tables once (``tables``),
and then exchanges arrays and bytes with the coder of ``symbols``.
"""
