"""Every option of every mode, and the presets."""
