"""An OpenAI-compatible server without a model, with the timing of one."""
