"""What the models are made of: layers, blocks and stages, and the leaner ways to compute them."""

# Ultralytics imports our blocks as it registers them; were it to start halfway through the import of one, that one
# would not be there yet. Imported here, it is always complete before any of them begins.
import ultralytics.nn.tasks  # noqa: F401
