"""Evaluation: generated answers with their scores, and teacher-forced digit statistics."""
