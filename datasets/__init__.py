"""Event files, sensors, and audio turned into spikes."""
