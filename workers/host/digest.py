"""What names the compiled code of this package, whose files are no part of the model."""

from pathlib import Path

from pool_impl.jit import source_digest
from workers.model import MODEL_DIGEST

HOST_DIGEST = f"{source_digest(Path(__file__).parent)}-{MODEL_DIGEST}"
