"""Evaluation: metrics, and tables of measured numbers with their intervals."""
