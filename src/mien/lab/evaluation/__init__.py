"""Judging: Scores in, metrics, intervals, comparisons, figures and reports out. No torch."""
