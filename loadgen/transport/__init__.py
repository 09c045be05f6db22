"""One request: sent, its answer read with the kernel's times, and made sense of after its end."""
