"""Sweeps: many short trainings of one recipe with other settings, and few long ones."""
