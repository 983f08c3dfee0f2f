"""Training: reference networks, the shipped detector, research recipes. Alone in needing torch."""
