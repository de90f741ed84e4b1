"""Many photos ⇒ many files: what each result is called, and what became of it.

destinations.py  which file each result goes to, decided before any work is done
run.py           photos through one model to those files, an event for each result and each failure
"""

from chromatune.batch.destinations import STANDARD_STREAM, Job, plan
from chromatune.batch.run import Done, Event, Exists, Failed, run_jobs

__all__ = ["STANDARD_STREAM", "Done", "Event", "Exists", "Failed", "Job", "plan", "run_jobs"]
