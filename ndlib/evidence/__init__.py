"""Published accuracies and the audit of tables of results.

``tables`` reads tables, ``checks`` asks nine questions about their rows, ``report`` writes down the answers,
``simulation`` makes tables without an error to try the checks on, and ``published`` joins and marks the numbers of the
paper and of its reproductions.
"""

__all__ = ["checks", "published", "report", "simulation", "tables"]
