"""Distil language models: losses between logits, tasks, students, and the trainer."""
