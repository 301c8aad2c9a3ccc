"""Images and clicks in, masks out. Never imports torch."""
