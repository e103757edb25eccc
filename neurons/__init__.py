"""What a neuron is: dynamics, surrogates, and the step program that every engine and exporter reads."""
