"""What the layers are built from; nothing here is meant to be imported by users of the layers.

* ``options``: every option, its default and its validation.
* ``patches`` -> ``moments`` -> ``roots`` -> ``folding``: the steps of the method, with gradients of their own;
  ``products``: matrix products in float32 proper.
* ``whitening``: the layer behind the layers; its parts are ``counting``, ``averages``, ``guards``, ``distributed``.
* ``hooks``: looking on while a network runs.
* ``private_torch``: every private name of torch that is used. ``warn``: warnings that point at the user's line.
"""
