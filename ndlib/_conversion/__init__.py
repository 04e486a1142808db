"""How ``convert`` reads networks that nobody here wrote, and what it says of them.

A forward pass becomes a graph of ``calls``, by a trace (``tracing``) or by running it once (``following``). ``norms``
and ``subclasses`` recognise layers by what they compute, ``planning`` holds the rules, ``replacing`` puts modules in
the place of others, ``pretrained`` keeps what a trained network computes, ``report`` says what became of each.
"""
