"""Kinds by their functions' names."""


def named(*functions):
    return {f.__name__: f for f in functions}
