"""Released libraries, as PyPI installs them, beside the oracle. FINDINGS.md tells what came of it."""
