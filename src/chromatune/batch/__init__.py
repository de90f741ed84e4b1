"""Many photos ⇒ many files: what each result is called, and what became of it.

destinations.py  which file each result goes to, decided before any work is done
events.py        what becomes of each
hint_layers.py   what is known of the colours of each photo
run.py           photos through one model to those files, an event for each result and each failure
pipeline.py      reading, the model, and writing at the same time
"""

from chromatune.batch.destinations import STANDARD_STREAM, Job, plan
from chromatune.batch.events import Done, Event, Exists, Failed
from chromatune.batch.run import run_jobs

__all__ = ["STANDARD_STREAM", "Done", "Event", "Exists", "Failed", "Job", "plan", "run_jobs"]
