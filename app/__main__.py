"""`python -m app`: Streamlit's server on this dashboard, with the options of `streamlit run`.

What every page imports takes a second. It is loaded meanwhile, not when the first visitor waits for it.
"""

import sys
import threading
from importlib import import_module
from pathlib import Path

from streamlit.web.cli import main

LOADED = (
    "app.figures.acr",
    "app.figures.along_lambda",
    "app.figures.curves",
    "app.widgets.figure",
    "backend.reproduction",
    "backend.store.queries",
)

threading.Thread(target=lambda: [import_module(name) for name in LOADED], daemon=True).start()
sys.argv = ["streamlit", "run", str(Path(__file__).with_name("main.py")), *sys.argv[1:]]
main()
